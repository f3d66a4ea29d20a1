"""Lineage: what each round that the silo trained was trained on, in counts; ``lineage.jsonl``, one chained line each.

A line is on the disk before training begins. It names the run, the round, the model that the round began with, how many
rows came in, were left out and why; not which. So that the silo can tell later in which rounds a subject was, a line
names a set of keyed, truncated hashes of those whose rows were trained on; a set is kept once, in ``members/``.
None of it travels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quire.clients.arrays import fingerprint
from quire.clients.data.consent.place import Place, Subjects
from quire.clients.data.consent.requests import excluded
from quire.clients.data.consent.sieve import REASONS, Sifted
from quire.clients.policy.model import Operator
from quire.clients.store import files
from quire.clients.store.errors import StoreDamaged, StoreError

MEMBERS = "members"
#: Bytes of a set of members: 8 for each of some 134 million subjects.
MAX_SET = 1 << 30
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Line:
    """One round that was trained, or an attempt of it.

    Attributes
    ----------
    time : str
        UTC.
    run : int
        Flower's number of the run.
    round : int
    simulated : bool
    model : str
        Hash of the model that the round began with.
    came, trained, scored : int
        Rows of the silo's tables; rows trained on; rows kept for testing and validation.
    left_out : dict of str to int
        By reason.
    members : str
        SHA-256 (hex) of the set of those whose rows were trained on.
    column : str
        The column that said whose a row is: the set is of its ids.
    key : str
        Which key the set was hashed under (:attr:`~quire.clients.data.consent.place.Subjects.check`).
    """

    time: str
    run: int
    round: int
    simulated: bool
    model: str
    came: int
    trained: int
    scored: int
    left_out: dict[str, int]
    members: str
    column: str
    key: str

    def tells_of(self, subjects: Subjects, column: str) -> bool:
        """Tell whether ids of a column, hashed under a key, can be looked for in the line's set at all."""
        return self.column == column and self.key == subjects.check


@dataclass(frozen=True, eq=False)
class Trains:
    """Notes a round in a silo's lineage, once its rows are at hand and before they are trained on.

    Attributes
    ----------
    operator : Operator or None
        None: a simulated silo without a file of its own, which has no lineage.
    run, round : int
    simulated : bool
    model : mapping of str to numpy.ndarray
        The model that the round begins with.
    """

    operator: Operator | None
    run: int
    round: int
    simulated: bool
    model: Mapping[str, np.ndarray]

    def __call__(self, sifted: Sifted | None) -> None:
        """Note it, durably; nothing for a silo that names no subjects.

        Raises
        ------
        StoreError
            If it cannot be written, or a subject has asked for erasure since the rows were read. Then the silo does
            not train.
        """
        if self.operator is None or sifted is None:
            return
        place = Place.of(self.operator)
        model = fingerprint(self.model)
        with place.locked():
            subjects = place.subjects(make=True)
            gone = excluded(place, sifted.column)
            if (frozenset() if gone is None else gone[1]) != sifted.erased:
                raise StoreError("A request for erasure came in while rows were read: they are not trained on.")
            if subjects.check not in sifted.kept:
                sifted.kept[subjects.check] = _keep(place, subjects.members(sifted.train_ids))
            about = {"run": self.run, "round": self.round, "simulated": self.simulated, "model": model}
            counts = {"came": sifted.came, "trained": sifted.trained, "scored": sifted.scored}
            members = sifted.kept[subjects.check]
            place.lineage.append(
                {
                    "key": subjects.check,
                    "column": sifted.column,
                    **about,
                    **counts,
                    "left_out": sifted.left_out,
                    "members": members,
                }
            )


def lines_of(place: Place) -> list[Line]:
    """Return all lines, checked.

    Raises
    ------
    StoreDamaged
        If one is not what was written.
    """
    chain, found = place.lineage, []
    for number, body in enumerate(chain.read(), start=1):
        try:
            found.append(_line(body))
        except (KeyError, TypeError, ValueError):
            raise StoreDamaged(f"Line {number} of {chain.path} is malformed: put back a copy of it.") from None
    return found


def members_of(place: Place, digest: str) -> np.ndarray:
    """Return a set of members: uint64, sorted.

    Raises
    ------
    StoreDamaged
        If it is missing, or not what was written.
    """
    path = place.folder / MEMBERS / f"{digest}.bin"
    data = files.read(path, MAX_SET)
    if data is None or hashlib.sha256(data).hexdigest() != digest or len(data) % 8:
        raise StoreDamaged(f"{path} is {'missing' if data is None else 'not what was written'}: put back a copy of it.")
    return np.frombuffer(data, dtype="<u8")


def holds(members: np.ndarray, tag: bytes) -> bool:
    """Tell whether a subject, by its keyed hash, is in a set; wrong about one in 2**64 of those who are not, each."""
    one = np.frombuffer(tag[:8], dtype="<u8")[0]
    spot = int(np.searchsorted(members, one))
    return spot < len(members) and bool(members[spot] == one)


def _keep(place: Place, members: np.ndarray) -> str:
    data = members.tobytes()
    digest = hashlib.sha256(data).hexdigest()
    folder = place.folder / MEMBERS
    files.private_folder(folder)
    path = folder / f"{digest}.bin"
    if not path.exists():
        files.replace(path, data)
    return digest


def _line(body: Mapping[str, Any]) -> Line:
    counts = [body[name] for name in ("run", "round", "came", "trained", "scored")]
    left = dict(body["left_out"])
    if any(type(count) is not int for count in [*counts, *left.values()]) or not set(left) <= set(REASONS):
        raise ValueError
    if type(body["simulated"]) is not bool or not all(_HASH.fullmatch(body[name]) for name in ("model", "members")):
        raise ValueError
    if type(body["column"]) is not str or type(body["key"]) is not str:
        raise ValueError
    run, number, came, trained, scored = counts
    told = (str(body["time"]), run, number, body["simulated"], body["model"])
    return Line(*told, came, trained, scored, left, body["members"], body["column"], body["key"])
