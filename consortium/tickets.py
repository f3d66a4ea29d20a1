"""Which folder a run goes on in that is not its own: tickets of ``quire submit --resume``, for the server's gate.

Flower gives every run a number of its own when it is submitted, and may start it at once. So the ticket is written
before that, and the run's config carries a word that cannot be guessed. The word names a run of this operator's and
opens nothing else: settings and code are held to those with which the run began, whoever submits.

A run that goes on with another is a link in ``runs/``: its own number, pointing to the number that it goes on with. Of
such a line the newest run alone writes, and a lock sees to it that it is one: the gate takes it, and the ServerApp's
process, which the gate becomes, holds it for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quire.consortium.errors import ConsortiumError
from quire.consortium.loopback import write_private

#: Key of the run config under which the word travels; empty in a run that goes on with none.
RESUME_CONFIG = "resume"
_WORD = re.compile(r"([1-9][0-9]{0,19}|0)-([0-9a-f]{64})", re.ASCII)


class ResumeError(ConsortiumError):
    """A run cannot be gone on with."""


def lineage(runs: Path, run: int) -> list[int]:
    """Return the runs that share one folder, the oldest first: it alone is a folder, the others are links.

    Parameters
    ----------
    runs : pathlib.Path
        Where the run folders are.
    run : int
        Any of them.
    """
    older = continued(runs)
    newer = {old: new for new, old in older.items()}
    line = [run]
    while (before := older.get(line[0])) is not None and before not in line:
        line.insert(0, before)
    while (after := newer.get(line[-1])) is not None and after not in line:
        line.append(after)
    return line


def continued(runs: Path) -> dict[int, int]:
    """Return which run each goes on with, of those that go on with one."""
    found: dict[int, int] = {}
    if runs.is_dir():
        for path in runs.iterdir():
            if path.name.isdecimal() and path.is_symlink() and (to := os.readlink(path)).isdecimal():
                found[int(path.name)] = int(to)
    return found


def check_can_go_on(place: Path) -> None:
    """See to it that nobody writes a run folder, and that its run is not complete; nothing in it is changed.

    Raises
    ------
    SettingsError
        If it is, somebody does, or there is no run in it.
    """
    from quire.strategies.folder import RunFolder

    RunFolder(place, reopen=True).close()


@dataclass(frozen=True)
class Tickets:
    """The tickets of an operator's folder.

    Attributes
    ----------
    folder : pathlib.Path
        This user's only; made if need be.
    runs : pathlib.Path
        Where the run folders are.
    """

    folder: Path
    runs: Path

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Be alone with the tickets: who submits writes one and submits its run, and only then is it redeemed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "asking.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def issue(self, root: int) -> str:
        """Write a ticket for the folder of a run, in the place of any other, and return the word for it."""
        token = secrets.token_hex(32)
        self._write(root, {"token": token, "run": None})
        return f"{root}-{token}"

    def submitted(self, root: int, run: int) -> None:
        """Note which run has the word."""
        self._write(root, {**(self._read(root) or {}), "run": run})

    def waiting(self, root: int) -> int | None:
        """Return the run that has a word which the gate was not shown yet."""
        run = (self._read(root) or {}).get("run")
        return run if isinstance(run, int) else None

    def redeem(self, word: str, run: int) -> Path:
        """Let a run go on in the folder that its word names; return that folder.

        This process holds the folder from here on, and so does the one that it becomes by ``execve``.

        Parameters
        ----------
        word : str
            From the run's config.
        run : int
            Flower's number of the new run.

        Raises
        ------
        QuireError
            If there is no such ticket, or the folder's run cannot be gone on with; the folder is as it was.
        OSError
            If the link cannot be made.
        """
        found = _WORD.fullmatch(word)
        with self.asking():
            told = None if found is None else self._read(int(found[1]))
            if found is None or told is None or not hmac.compare_digest(str(told.get("token")), found[2]):
                raise ResumeError(
                    "it asks to go on with another run, and no `quire submit --resume` wrote a ticket for that"
                )
            lock = self._hold(int(found[1]), run)
            self._file(int(found[1])).unlink()
        os.set_inheritable(lock, True)
        return self.runs / found[1]

    def _hold(self, root: int, run: int) -> int:
        """Take the lock of a folder and link the run to it; return the open lock."""
        lock = os.open(self.folder / f"{root}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ResumeError(f"another run goes on with run {root} already") from None
            check_can_go_on(self.runs / str(root))
            os.symlink(str(lineage(self.runs, root)[-1]), self.runs / str(run))
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _file(self, root: int) -> Path:
        return self.folder / f"{root}.json"

    def _write(self, root: int, told: dict[str, object]) -> None:
        write_private(self.folder / f"{root}.new", json.dumps(told).encode()).replace(self._file(root))

    def _read(self, root: int) -> dict[str, object] | None:
        try:
            told = json.loads(self._file(root).read_text())
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) else None
