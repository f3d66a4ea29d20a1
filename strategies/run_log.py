"""What a run says in its transparency log: every line of its journal by hash, and what silos would look for by name.

The log lies in the run folder, as ``log/``. It is written where the server has a key for it (``QUIRE_LOG_KEY``), and
grows after every round, with a checkpoint. A run that is resumed cuts its journal back; the log cannot be cut, and says
how many lines of the journal were kept. So the log tells of rounds, too, that were run again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from quire.clients.identity import load_identity
from quire.conf.schema import Settings
from quire.privacy.approval import Statement
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import Receipt, settings_hash
from quire.strategies.card import CARD_FILE
from quire.strategies.folder import RunFolder, read_about
from quire.strategies.report import RoundReport
from quire.strategies.rounds import RoundState
from quire.transparency.checkpoints import Note
from quire.transparency.entries import WORD, Entry
from quire.transparency.errors import LogDamaged
from quire.transparency.log import Log, origin_of

#: The log's name in the run folder, and the journal's.
LOG_FOLDER, JOURNAL = "log", "metrics.jsonl"

_WORD = re.compile(WORD)
_ROUNDS = "round", "failed"  # what the journal calls lines about one


class RunLog:
    """A run's log, told by the strategy of every round that the run folder was told of before.

    Parameters
    ----------
    folder : RunFolder
    key : PrivateIdentity
        The server's, for logs.
    run : str
        What entries call the run.

    Raises
    ------
    LogError
        If the folder has a log that was begun with another key, is damaged, or cannot be written.

    Attributes
    ----------
    log : Log
    """

    def __init__(self, folder: RunFolder, key: PrivateIdentity, run: str) -> None:
        self._folder, self._run, self._at = folder, run, 0
        where = folder.path / LOG_FOLDER
        # No two logs of one key have the same name: they would be a split view.
        origin = origin_of(where) or f"run/{secrets.token_hex(8)}"
        self.log = Log.open(where, origin, key, _now())
        try:
            self._check_covered(where)
        except BaseException:
            self.log.close()
            raise

    def _check_covered(self, where: Path) -> None:
        """Refuse to sign what no crash leaves behind: every write but the last is followed by its checkpoint."""
        covered = self.log.notes[-1].checkpoint.size if self.log.notes else 0
        unsigned = [entry.kind for at, entry in self.log.each() if at >= covered]
        if unsigned.count("model") + unsigned.count("end") > (1 if covered else 0):
            raise LogDamaged(
                f"{where} has rounds that no checkpoint covers: checkpoints were taken away, or entries added; put the "
                "newest copy of the folder back."
            )

    @classmethod
    def named(cls, folder: RunFolder, key: Path, run: str) -> RunLog:
        """Open the log with the key in a file; its passphrase is where ``QUIRE_PASSPHRASE_FILE`` says.

        Raises
        ------
        IdentityFileError
            If there is no key to be had.
        LogError
            If the log cannot be opened.
        """
        return cls(folder, load_identity(key), run)

    def began(self, settings: Settings, code: str) -> None:
        """Say what is run, once the journal has begun or goes on."""
        whole = _finished(self._folder.path / JOURNAL, 0)
        journal = [(hashlib.sha256(line).hexdigest(), end) for line, end in whole]
        logged = journal_in(self.log.each(lambda line: b'"kind":"journal"' in line or b'"kind":"resume"' in line))
        same = next((at for at, pair in enumerate(zip(logged, journal, strict=False)) if pair[0] != pair[1][0]), None)
        kept = min(len(logged), len(journal)) if same is None else same
        held = read_about(self._folder.path).get("held_to", {})
        roster, charter = held.get("roster"), held.get("charter")
        body = {"settings": settings_hash(settings.as_dict()), "code": code, "roster": roster}
        entries = [self._entry("charter", 0, charter)] if charter else []
        entries.append(self._entry("session", 0, body))
        if logged:
            entries.append(self._entry("resume", 0, {"lines": kept}))
        self._at = journal[kept - 1][1] if kept else 0
        lines, end = self._new_lines()
        # First what a crash or a full disk kept from the log, behind the checkpoint that the round was bound to.
        missed = self._not_torn([entry for line, _ in lines for entry in self._of_round(line)])
        self._write([*missed, *entries, *(entry for _, entry in lines)], end)

    def _not_torn(self, missed: list[Entry]) -> list[Entry]:
        """Leave out what a write that was cut short had brought into the log already."""
        covered = self.log.notes[-1].checkpoint.size if self.log.notes else 0
        there = [(entry.kind, entry.round, entry.body) for at, entry in self.log.each() if at >= covered]
        return [entry for entry in missed if (entry.kind, entry.round, entry.body) not in there]

    def decided(self, statements: Mapping[str, Statement]) -> None:
        """Log what silos' operators have decided about the run, as their silos state it."""
        told = [(word(silo), statements[silo]) for silo in sorted(statements)]
        bodies = [{"silo": silo, "decision": one.body["decision"], "what": one.binding.hash} for silo, one in told]
        if bodies:
            self._write([self._entry("approval", 0, body) for body in bodies], self._at)

    def round_done(self, report: RoundReport, state: RoundState) -> None:
        """Log a round, after the folder has it."""
        self._folder.round_done(report, state)
        self._write_new()

    def round_failed(self, report: RoundReport, error: str) -> None:
        """Log a round that ends the run, after the folder has it."""
        self._folder.round_failed(report, error)
        self._write_new()

    def ended(self) -> None:
        """Say how the run ended, after the folder says so."""
        card = self._folder.path / CARD_FILE
        digest = hashlib.sha256(card.read_bytes()).hexdigest() if card.exists() else None
        about = read_about(self._folder.path)
        body = {"status": about["status"], "model": about["model"], "card": digest}
        self._write_new(self._entry("end", 0, body))

    def _of_round(self, line: Mapping[str, Any]) -> Iterator[Entry]:
        """Yield what silos would look for by name in a line of the journal; nothing if it is not about a round."""
        if line["event"] not in _ROUNDS:
            return
        number, secure = line["round"], line["secure"]
        if named := secure.get("checkpoint"):  # the newest but for rounds that the log was not told of at once
            bound = next((note for note in reversed(self.log.notes) if note.checkpoint.hash == named), None)
            if bound is not None:
                yield self._bound(number, bound)
        for attempt in secure.get("attempts") or [{"attempt": 1, "cohort": line["cohort"]}]:
            silos = sorted({word(name) for name in attempt["cohort"]})
            yield self._entry("cohort", number, {"attempt": attempt["attempt"], "silos": silos})
            if kept := attempt.get("transcript"):
                yield self._entry("transcript", number, {"attempt": attempt["attempt"], "transcript": kept["sha256"]})
            if attempt.get("error"):
                yield self._entry("abort", number, {"code": word(attempt["error"])})
        for failure in line["failed"]:
            yield self._entry("refusal", number, {"silo": word(failure["silo"]), "code": word(failure["code"])})
        for silo, text in line["receipts"].items():
            ledger = Receipt.decode(base64.b64decode(text)).body["ledger"]
            if ledger is not None:
                body = {"silo": word(silo), "entries": ledger["entries"], "head": ledger["head"]}
                yield self._entry("ledger_head", number, body)
        if "model" in line:
            yield self._entry("model", number, {"model": line["model"]})

    def _bound(self, round_number: int, note: Note) -> Entry:
        """Say which checkpoint a round was bound to, and who has countersigned it."""
        silos = sorted(word(mark.name) for mark in note.marks if mark.name != note.checkpoint.origin)
        body = {"size": note.checkpoint.size, "checkpoint": note.checkpoint.hash, "silos": silos}
        return self._entry("checkpoint", round_number, body)

    def _new_lines(self) -> tuple[list[tuple[dict[str, Any], Entry]], int]:
        """Return the finished lines that the log was not told of, each with the entry of its hash, and their end."""
        found, end = [], self._at
        for data, behind in _finished(self._folder.path / JOURNAL, self._at):
            line = json.loads(data)
            number = line["round"] if line["event"] in _ROUNDS else 0
            found.append((line, self._entry("journal", number, {"line": hashlib.sha256(data).hexdigest()})))
            end = behind
        return found, end

    def _write_new(self, *last: Entry) -> None:
        """Write what the journal has got since the last look: a line's hash comes when all else of it is there."""
        lines, end = self._new_lines()
        self._write([*(one for line, entry in lines for one in (*self._of_round(line), entry)), *last], end)

    def _entry(self, kind: str, round_number: int, body: Mapping[str, Any]) -> Entry:
        return Entry(kind, word(self._run), round_number, _now(), body)

    def _write(self, entries: Iterable[Entry], at: int) -> None:
        """Write entries, which tell of the journal as far as a byte of it, with a checkpoint."""
        self.log.append(*entries)
        self._at = at
        self.log.checkpoint(_now())

    def close(self) -> None:
        """Close the log."""
        self.log.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def journal_in(entries: Iterable[tuple[int, Entry]]) -> list[str]:
    """Return the hashes of the journal's lines that a log tells of, without those that were cut off by a resume."""
    lines: list[str] = []
    for _, entry in entries:
        if entry.kind == "journal":
            lines.append(entry.body["line"])
        elif entry.kind == "resume":
            del lines[entry.body["lines"] :]
    return lines


def word(name: str) -> str:
    """Return a name as entries have it: itself, or where it has other characters or is too long, a hash of it."""
    return name if _WORD.fullmatch(name) else "name-" + tagged_hash("quire/log/name/1", name.encode()).hex()[:32]


def _finished(path: Path, at: int) -> Iterator[tuple[bytes, int]]:
    """Yield every finished line behind a byte, with its line feed, and where it ends."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(at)
        for line in file:
            if line.endswith(b"\n"):
                at += len(line)
                yield line, at


def _now() -> int:
    return int(time.time())
