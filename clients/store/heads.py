"""What the store knows about its ledgers, and the same said at another place: the witness.

A ledger's chain shows a changed entry, but not that its last entries are gone. The heads say how many entries there
are and what the last one is, and are themselves signed and replaced after every charge. A copy of the whole store put
back from a backup agrees with itself; the witness, a copy of the heads on another path (best another machine's), is
what it disagrees with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quire.clients.store import files
from quire.clients.store.errors import RolledBack, StoreDamaged, StoreError
from quire.clients.store.lines import START, BadLine, Signed
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.spending import Spending

TAG = "quire/store/heads/1"
MAX_BYTES = 16 * 1024 * 1024
REMEDY = "put back the newest copy of the store, or override with `quire ledger reset`"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """Where the ledger of one population stands.

    Attributes
    ----------
    count : int
        Entries ever written, over all segments; the number of the last one.
    line : str
        The hash of the last entry's line.
    size : int
        Bytes of the current segment.
    spent : mapping of Unit to Spending
        All that was ever charged.
    """

    count: int
    line: str
    size: int
    spent: Mapping[Unit, Spending]

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        spent = {str(unit): spending.to_json() for unit, spending in self.spent.items()}
        return {"count": self.count, "line": self.line, "size": self.size, "spent": spent}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Head:
        """Read what :meth:`as_dict` returned."""
        spent = {Unit(unit): Spending.from_json(item) for unit, item in value["spent"].items()}
        return cls(int(value["count"]), str(value["line"]), int(value["size"]), spent)


NO_HEAD = Head(0, START, 0, {})


@dataclass(frozen=True)
class Heads:
    """All heads of a store, in one generation.

    Attributes
    ----------
    store : str
        The store's id.
    generation : int
        How often heads were written.
    counters : int
        How often a position was passed, see :class:`~quire.clients.store.counters.Counters`.
    witnessed : bool
        Whether they were also written to a witness.
    ledgers : mapping of str to Head
        By population.
    """

    store: str
    generation: int
    counters: int
    witnessed: bool
    ledgers: Mapping[str, Head]

    def close(self, seal: Signed) -> bytes:
        """Return the heads as a signed line."""
        ledgers = {name: head.as_dict() for name, head in self.ledgers.items()}
        body = {"version": 1, "store": self.store, "generation": self.generation, "counters": self.counters}
        return seal.close({**body, "witnessed": self.witnessed, "ledgers": ledgers}) + b"\n"

    @classmethod
    def open(cls, data: bytes, seal: Signed, path: Path) -> Heads:
        """Read what :meth:`close` returned.

        Raises
        ------
        StoreDamaged
            If it is anything else, or was signed by somebody else.
        """
        try:
            if not data.endswith(b"\n"):
                raise BadLine("is cut off")
            found = seal.open(data[:-1])
            if found["version"] != 1:
                raise BadLine(f"is of version {found['version']!r}, which this Quire does not know")
            ledgers = {name: Head.of(item) for name, item in found["ledgers"].items()}
            return cls(found["store"], found["generation"], found["counters"], found["witnessed"], ledgers)
        except BadLine as error:
            raise StoreDamaged(f"{path} {error}; {REMEDY}.") from None
        except (AttributeError, KeyError, TypeError, ValueError, PrivacyError):
            raise StoreDamaged(f"{path} is malformed; {REMEDY}.") from None


def read_heads(path: Path, seal: Signed) -> Heads | None:
    """Read a file of heads; None if there is no such file.

    Raises
    ------
    StoreDamaged
        If it is not what was written.
    """
    data = files.read(path, MAX_BYTES)
    return None if data is None else Heads.open(data, seal, path)


class HeadsFile:
    """The heads on disk, and their witness. Made by the store, which holds the lock.

    Parameters
    ----------
    path : pathlib.Path
    seal : Signed
    witness : pathlib.Path or None
        A file on another path; made if the store has none yet.
    store : str
        The store's id.

    Raises
    ------
    StoreDamaged
        If the heads or the witness are missing or not what was written.
    RolledBack
        If the witness has seen more than the store.
    """

    def __init__(self, path: Path, seal: Signed, witness: Path | None, store: str) -> None:
        self._path, self._seal, self._witness = path, seal, witness
        found = read_heads(path, seal)
        if found is None:
            raise StoreDamaged(f"{path} is missing, which says how long the ledgers are; {REMEDY}.")
        if found.store != store:
            raise StoreDamaged(f"{path} belongs to another store; {REMEDY}.")
        self.now = found
        self.seen: Heads | None = None
        if witness is not None:
            self.seen = self._see(witness)

    def _see(self, witness: Path) -> Heads | None:
        seen = read_heads(witness, self._seal)
        if seen is None:
            if self.now.witnessed:
                raise StoreDamaged(
                    f"The witness {witness} is missing, so that nobody can tell whether an old copy of the store was "
                    "put back; put the witness back, or override with `quire ledger reset`."
                )
            return None
        if seen.store != self.now.store:
            raise RolledBack(
                f"The witness {witness} has seen another store than {self._path.parent}: this one was begun anew; put "
                "the store back, or override with `quire ledger reset`."
            )
        if seen.generation > self.now.generation:
            raise RolledBack(
                f"The store {self._path.parent} is older than what the witness {witness} has seen (generation "
                f"{self.now.generation}, seen {seen.generation}): an old copy was put back; put back the newest one, "
                "or override with `quire ledger reset`."
            )
        if seen.generation == self.now.generation and seen != self.now:
            raise RolledBack(
                f"The store {self._path.parent} and the witness {witness} disagree on generation {seen.generation}: an "
                "old copy was put back and went on without the witness; put back the newest copy of the store, or "
                "override with `quire ledger reset`."
            )
        return seen

    def update(self, counters: int, population: str | None = None, head: Head | None = None) -> None:
        """Write new heads, and the witness after them.

        Raises
        ------
        StoreError
            If either cannot be written: then nothing may leave the silo.
        """
        if self._witness is not None and not self.now.witnessed:
            # It is there before the heads say so: a crash between the two would look as if it had been lost.
            self._write_witness(self._witness, self.now.close(self._seal))
        ledgers = dict(self.now.ledgers)
        if population is not None and head is not None:
            ledgers[population] = head
        self.now = replace(
            self.now,
            generation=self.now.generation + 1,
            counters=counters,
            ledgers=ledgers,
            witnessed=self.now.witnessed or self._witness is not None,
        )
        data = self.now.close(self._seal)
        files.replace(self._path, data)
        if self._witness is not None:
            self._write_witness(self._witness, data)

    def _write_witness(self, witness: Path, data: bytes) -> None:
        try:
            files.replace(witness, data)
        except StoreError:
            _log.error("the witness %s cannot be written", witness)
            raise

    @property
    def witnessing(self) -> bool:
        """Whether there is a witness to be written."""
        return self._witness is not None
