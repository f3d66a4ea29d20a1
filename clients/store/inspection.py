"""Look at a store without locking or changing it: what ``quire ledger show`` and ``quire ledger verify`` say."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.store.counters import Counters, Position
from quire.clients.store.entries import CARRIED, Entry
from quire.clients.store.errors import RolledBack, StoreDamaged, StoreError
from quire.clients.store.files import check_private, explained
from quire.clients.store.heads import NO_HEAD, REMEDY, TAG, Heads, HeadsFile
from quire.clients.store.ledger import populations
from quire.clients.store.lines import BadLine, Signed, read_lines
from quire.clients.store.scan import Place, Scan, read_ledger
from quire.clients.store.store import About, ledger_place, read_about
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.spending import Spending

_SLACK = 1e-9  # relative: what two versions of dp-accounting may differ by


@dataclass(frozen=True)
class Opening:
    """The first line of a segment.

    Attributes
    ----------
    day : datetime.date
    because, found : str or None
        Of an override: the operator's reason, and what was wrong.
    """

    day: date
    because: str | None
    found: str | None


@dataclass
class Books:
    """A ledger as it is shown.

    Attributes
    ----------
    population : str
    entries : int
        Lines ever written, over all segments.
    runs : dict of (str, Unit) to (date, int, Spending)
        By session and unit: the first day, the number of charges, and what they came to; the balance that an override
        took over is under the session ``carried-over``.
    openings : list of Opening
        Of this segment; only where the whole of it was verified.
    """

    population: str
    entries: int
    runs: dict[tuple[str, Unit], tuple[date, int, Spending]] = field(default_factory=dict)
    openings: list[Opening] = field(default_factory=list)
    _scan: Scan = field(default_factory=Scan)

    def units(self) -> list[Unit]:
        """Return the units that anything was charged to."""
        return self._scan.sums.units()

    def spent(self, unit: Unit, since: date | None = None) -> Spending:
        """Return what was charged to a unit, ever or from a day (UTC) on."""
        return self._scan.sums.spent(unit, since)

    def count_runs(self, unit: Unit) -> int:
        """Return how many sessions were charged to a unit."""
        return sum(1 for session, known in self.runs if known is unit and session != CARRIED)

    def count_charges(self, unit: Unit) -> int:
        """Return how many charges were made to a unit."""
        return sum(charges for (_, known), (_, charges, _) in self.runs.items() if known is unit)


class Inspection:
    """A store, opened for reading only. What a running silo appends meanwhile may or may not be seen.

    Parameters
    ----------
    folder : pathlib.Path
    witness : pathlib.Path or None
    fingerprint : str or None
        Of the identity whose store it has to be; None: whoever ``store.json`` names, and signatures prove no more.

    Raises
    ------
    StoreError
        If there is no store.
    StoreDamaged
        If its heads, its counters or the witness are missing or not what was written.
    RolledBack
        If the witness has seen more.
    """

    def __init__(self, folder: Path, witness: Path | None = None, fingerprint: str | None = None) -> None:
        with explained(folder, "read"):
            if not folder.is_dir():
                raise StoreError(f"There is no store {folder}; the silo's first run makes it.")
            check_private(folder, folder.stat())
        about = read_about(folder)
        if about is None:
            raise StoreDamaged(f"{folder / 'store.json'} is missing; {REMEDY}.")
        if fingerprint is not None and fingerprint != about.public.fingerprint:
            raise StoreDamaged(
                f"The store {folder} belongs to the identity {about.public.fingerprint[:16]}, not to the silo's own, "
                f"{fingerprint[:16]}; {REMEDY}."
            )
        self.folder, self.about = folder, about
        self._file = HeadsFile(folder / "heads.json", Signed(TAG, about.public), witness, about.store)
        self._counters = Counters(folder / "counters.jsonl")
        seen = self._file.seen
        known = max(self.heads.counters, 0 if seen is None else seen.counters)
        if self._counters.count < known:
            raise RolledBack(f"{self._counters.path} holds {self._counters.count} of {known} positions; {REMEDY}.")

    @property
    def counters(self) -> Counters:
        """Where every session stands."""
        return self._counters

    @property
    def heads(self) -> Heads:
        """What the store knows of its ledgers."""
        return self._file.now

    def populations(self) -> list[str]:
        """Return all populations that have, or should have, a ledger."""
        with explained(self.folder / "ledger", "read"):
            return sorted({*self.heads.ledgers, *populations(os.listdir(self.folder / "ledger"))})

    def books(self, population: str, whole: bool = False) -> Books:
        """Read the ledger of a population.

        Parameters
        ----------
        population : str
        whole : bool
            Whether to verify every signature, what every event is booked at, and the segments that overrides closed.

        Raises
        ------
        StoreError
            If there is no such ledger.
        StoreDamaged
            If it is not what was written.
        RolledBack
            If the witness or the counters have seen otherwise.
        """
        place = ledger_place(self.folder, self.about, population)
        if population not in self.populations():
            known = ", ".join(self.populations()) or "none yet"
            raise StoreError(f"The store {self.folder} has no ledger of {population}; it has: {known}.")
        seen = self._file.seen
        mark = None if seen is None else seen.ledgers.get(population)
        marks = [] if mark is None else [(mark.count, mark.line, "the witness")]
        openings: list[Opening] = []
        each = _checker(place, openings) if whole else None
        scan = read_ledger(place, self.heads.ledgers.get(population, NO_HEAD), marks, whole, each)
        self._hold_against_counters(place, scan)
        if whole:
            _check_kept(place, self.about)
        books = Books(population, scan.count, openings=openings, _scan=scan)
        for (session, unit, day), row in scan.sums.rows.items():
            first, charges, spending = books.runs.get((session, unit), (date.max, 0, Spending.zero()))
            total = spending + row.spending
            books.runs[session, unit] = (min(first, date.fromisoformat(day)), charges + row.charges, total)
        return books

    def _hold_against_counters(self, place: Place, scan: Scan) -> None:
        for session, order in scan.sums.positions.items():
            last = self._counters.last(session)
            if last is None or last.order < order:
                raise RolledBack(
                    f"{place.path} has charged {Position(session, *order)}, which the counters have not reached; "
                    f"{REMEDY}."
                )


def _checker(place: Place, openings: list[Opening]) -> Callable[[Entry], None]:
    """Return what looks at every entry: is each event booked at what it costs?"""

    def check(entry: Entry) -> None:
        if entry.position is None:
            openings.append(Opening(entry.day, entry.because, entry.found))
        for booked in entry.charges:
            try:
                cost = Spending.of(booked.event)
            except PrivacyError as error:
                raise StoreDamaged(f"Entry {entry.seq} of {place.path} cannot be recomputed: {error}") from error
            enough = booked.spending.delta >= cost.delta * (1 - _SLACK)
            if not enough or not np.all(booked.spending.rdp >= cost.rdp * (1 - _SLACK)):
                raise StoreDamaged(
                    f"Entry {entry.seq} of {place.path} is booked at less than its event costs; it was not written by "
                    f"this Quire; {REMEDY}."
                )

    return check


def _check_kept(place: Place, about: About) -> None:
    """Check that every segment that an override closed is still what it was then: each is named by its successor."""
    current: Path = place.path
    while True:
        body = _first(current, Signed(place.seal.tag, about.public))
        if body is None or body["kept"] is None:
            return
        current = place.folder / Path(str(body["kept"])).name
        digest = sha256()
        try:
            with current.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except FileNotFoundError:
            raise StoreDamaged(f"{current} is missing, the history from before an override; put it back.") from None
        if digest.hexdigest() != body["prev"]:
            raise StoreDamaged(f"{current}, the history from before an override, has changed since; put it back.")


def _first(path: Path, seal: Signed) -> dict[str, Any] | None:
    """Return the opening of a segment; None where it was damaged, or signed by an identity that has been replaced."""
    with explained(path, "read"), path.open("rb") as stream:
        for line, _ in read_lines(stream):
            try:
                body = seal.open(line)
            except BadLine:
                return None
            return body if body.get("kind") == "opening" else None
    return None
