"""One directory per silo: counters, state between stages, secrets and ledgers, each durable before a reply leaves.

::

    store/
      lock                 held by one process at a time
      store.json           the store's id and the public identity of its silo
      counters.jsonl       where every session stands
      heads.json           how long the ledgers are, signed
      ledger/              one file of chained lines per population
      approvals.jsonl      runs that had to be approved, and what was decided; see decision_book
      state/  secrets/     what is kept between two stages
      logs/                which transparency logs were seen, and how far
      consent/             requests for erasure and lineage; may be there before anything else is
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType

from quire.clients.store import files
from quire.clients.store.blobs import Blobs
from quire.clients.store.counters import Counters, Position
from quire.clients.store.errors import RolledBack, StoreDamaged, StoreError
from quire.clients.store.heads import REMEDY, TAG, Heads, HeadsFile
from quire.clients.store.ledger import Ledger
from quire.clients.store.lines import Signed
from quire.clients.store.scan import Place
from quire.clients.store.secrets import Secrets, secret_key
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity

WAIT = 10.0  # seconds to wait for the lock
_MAX_ABOUT = 64 * 1024
_POPULATION = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class About:
    """What ``store.json`` says: the store's id, and whose it is."""

    store: str
    public: PublicIdentity

    def encode(self) -> bytes:
        """Return the content of the file."""
        body = {"version": 1, "store": self.store, "identity": self.public.encode().hex()}
        return json.dumps(body, indent=2).encode() + b"\n"


def read_about(folder: Path) -> About | None:
    """Read ``store.json``; None if there is none.

    Raises
    ------
    StoreDamaged
        If it is not what was written.
    """
    path = folder / "store.json"
    data = files.read(path, _MAX_ABOUT)
    if data is None:
        return None
    try:
        found = json.loads(data)
        about = About(found["store"], PublicIdentity.decode(bytes.fromhex(found["identity"])))
        if about.encode() != data:
            raise ValueError
    except (KeyError, TypeError, ValueError, IdentityError):
        raise StoreDamaged(f"{path} is not what was written; {REMEDY}.") from None
    return about


def ledger_place(folder: Path, about: About, population: str, private: PrivateIdentity | None = None) -> Place:
    """Return where the ledger of a population is.

    Raises
    ------
    StoreError
        If the name cannot be that of a population.
    """
    if not _POPULATION.fullmatch(population):
        raise StoreError(
            f"{population[:70]!r} cannot name a population: at most 64 lower-case letters, digits, dots, dashes and "
            "underscores, beginning with a letter or a digit."
        )
    return Place(folder / "ledger", about.store, population, about.public, private)


class Store:
    """A silo's store, open and locked. Use :meth:`open`, in a ``with`` statement; not shared between threads.

    Attributes
    ----------
    id : str
        32 hexadecimal digits, drawn when the store was made.
    counters : Counters
    state : Blobs
    secrets : Secrets
    """

    def __init__(
        self, path: Path, identity: PrivateIdentity, witness: Path | None, key: bytes | None, lock: files.Lock
    ) -> None:
        about = self._make_or_read(path, identity)
        if about.public != identity.public:
            raise StoreError(
                f"The store {path} belongs to the identity {about.public.fingerprint[:16]}, not to "
                f"{identity.public.fingerprint[:16]}; if the silo has a new identity, take the ledger over with `quire "
                "ledger reset`."
            )
        self.path, self.id = path, about.store
        self._about, self._identity, self._lock = about, identity, lock
        self._ledgers: dict[str, Ledger] = {}
        self._heads = HeadsFile(path / "heads.json", Signed(TAG, about.public, identity), witness, about.store)
        self.counters = Counters(path / "counters.jsonl")
        try:
            self._check_counters()
            self.state = Blobs(path / "state")
            self.secrets = Secrets(path / "secrets", secret_key(identity) if key is None else key, about.store)
            if self._heads.witnessing:
                self.counters.on_advance = self._publish
                if self._heads.seen != self._heads.now:
                    self._check_ledgers()
                    self._publish()
        except BaseException:
            self.counters.close()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        identity: PrivateIdentity,
        *,
        witness: Path | None = None,
        wait: float = WAIT,
        key: bytes | None = None,
    ) -> Store:
        """Open a silo's store, or make it if the folder does not exist or is empty.

        Parameters
        ----------
        path : pathlib.Path
            The folder; its parent must exist. Nobody but its owner may enter it.
        identity : PrivateIdentity
            The silo's, which signs the ledger.
        witness : pathlib.Path, optional
            A file elsewhere that notes how far the store has come, so that an old copy is told.
        wait : float
            Seconds to wait while another process has it open.
        key : bytes, optional
            The 32 bytes that secrets are encrypted under; by default derived from the identity.

        Raises
        ------
        StoreBusy
            If another process has it open for longer.
        StoreDamaged
            If something in it is missing, or not what was written. Ledgers are checked as they are asked for.
        RolledBack
            If the witness has seen more.
        StoreError
            If it cannot be used for another reason: others may enter it, it cannot be written.
        """
        files.private_folder(path)
        lock = files.Lock(path / "lock", wait)
        try:
            return cls(path, identity, witness, key, lock)
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def _make_or_read(path: Path, identity: PrivateIdentity) -> About:
        about = read_about(path)
        if about is not None:
            return about
        others = _contents(path)
        if not set(others) <= {*_PARTS, *(f"{name}.new" for name in _PARTS), "lock"}:
            raise StoreError(f"{path} is not empty and no store; name a folder that is, or that does not exist yet.")
        # store.json is written last: without it, what is there was begun and never used, or store.json was lost.
        if _was_used(path, others):
            raise StoreDamaged(f"{path / 'store.json'} is missing; {REMEDY}.")
        for name in ("ledger", "state", "secrets"):
            files.private_folder(path / name)
        about = About(os.urandom(16).hex(), identity.public)
        Counters.create(path / "counters.jsonl")
        heads = Heads(about.store, 0, 0, False, {})
        files.replace(path / "heads.json", heads.close(Signed(TAG, identity.public, identity)))
        files.replace(path / "store.json", about.encode())
        return about

    def _check_counters(self) -> None:
        seen = self._heads.seen
        known = max(self._heads.now.counters, 0 if seen is None else seen.counters)
        if self.counters.count < known:
            raise RolledBack(
                f"{self.counters.path} holds {self.counters.count} positions, but {known} were passed: an old copy was "
                f"put back; {REMEDY}."
            )

    def _check_ledgers(self) -> None:
        """Hold every ledger against the witness before the witness is written over."""
        seen = self._heads.seen
        for population in seen.ledgers if seen is not None else ():
            self.ledger(population)

    def _publish(self) -> None:
        self._heads.update(self.counters.count)

    def ledger(self, population: str) -> Ledger:
        """Return the ledger of a population, made if there is none.

        Parameters
        ----------
        population : str
            The operator's name for it.

        Raises
        ------
        StoreDamaged
            If something in it is missing, or not what was written.
        RolledBack
            If the witness or the counters have seen more.
        StoreError
            If the name cannot be one, or it cannot be written.
        """
        if population not in self._ledgers:
            place = ledger_place(self.path, self._about, population, self._identity)
            self._ledgers[population] = Ledger(place, self._heads, self.counters)
        return self._ledgers[population]

    def advance(self, position: Position, today: date) -> None:
        """Go forward to a position; see :meth:`quire.clients.store.counters.Counters.advance`."""
        self.counters.advance(position, today)

    def close(self) -> None:
        """Close the store and let the next process in."""
        for ledger in self._ledgers.values():
            ledger.close()
        self.counters.close()
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_FILES = ("approvals.jsonl", "counters.jsonl", "heads.json", "store.json")
_PARTS = (*_FILES, "ledger", "state", "secrets", "logs", "consent")


def _contents(path: Path) -> list[str]:
    with files.explained(path, "read"):
        return sorted(entry.name for entry in path.iterdir())


def _was_used(path: Path, found: list[str]) -> bool:
    """Whether a store without its store.json ever held anything."""
    return ("ledger" in found and bool(_contents(path / "ledger"))) or (
        "counters.jsonl" in found and Counters(path / "counters.jsonl").count > 0
    )
