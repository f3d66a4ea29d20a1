"""The privacy ledger of one population: what was spent on its records, written down before anything leaves.

One line per exchange, chained by hashes, signed by the silo (see :mod:`~quire.clients.store.lines`).
:meth:`Ledger.charge` returns once the line is on the disk; a silo that is killed after that has charged for something
it did not send, never sent something that it did not charge for. Only a line without its newline, which cannot have
been acknowledged, is ever cut off.

Source: the budget is a privacy filter over a fixed grid of Renyi orders, charged before each release (Feldman and Zrnic
2021, "Individual privacy accounting via a Renyi filter"; Lécuyer 2021, "Practical privacy filters and odometers with
Renyi differential privacy").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

from quire.clients.store.counters import Counters, Position
from quire.clients.store.entries import Booked, Charge, Entry, charge_body, common, opening_body
from quire.clients.store.errors import BudgetExceeded, RolledBack, StoreError
from quire.clients.store.heads import NO_HEAD, Head, HeadsFile
from quire.clients.store.lines import START, Writer, create
from quire.clients.store.scan import Place, read_ledger, write_checkpoint
from quire.clients.store.shown import note
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.spending import Budget, Spending

CHECKPOINT = 32  # entries after which a checkpoint is due; more where the sums in it are many, which cost more to write


@dataclass(frozen=True)
class Receipt:
    """Where a ledger stands after a charge: goes with the reply, so that others can tell a copy that was put back.

    Attributes
    ----------
    count : int
        The number of the last entry.
    head : str
        The hash of its line, 64 hexadecimal digits. It says nothing about what was spent.
    """

    count: int
    head: str


class Ledger:
    """The ledger of one population. Made by :meth:`quire.clients.store.Store.ledger`, which holds the lock.

    Parameters
    ----------
    place : Place
    heads : HeadsFile
    counters : Counters

    Raises
    ------
    StoreDamaged
        If it is not what was written; see :func:`~quire.clients.store.scan.read_ledger`.
    RolledBack
        If the witness, or the counters, have seen otherwise.
    """

    def __init__(self, place: Place, heads: HeadsFile, counters: Counters) -> None:
        self._place, self._heads, self._counters = place, heads, counters
        head = heads.now.ledgers.get(place.population, NO_HEAD)
        seen = None if heads.seen is None else heads.seen.ledgers.get(place.population)
        marks = [] if seen is None else [(seen.count, seen.line, "the witness")]
        self._scan = read_ledger(place, head, marks)
        self._check_counters()
        create(place.path)
        self._writer = Writer(place.path, self._scan.size, self._scan.head)
        if not self._scan.count:
            self._open()
        elif self._scan.count > head.count:  # killed between a charge and its head: it counts
            self._publish()
        self._checkpoint_if_due()

    def _check_counters(self) -> None:
        for session, order in self._scan.sums.positions.items():
            last = self._counters.last(session)
            if last is None or last.order < order:
                raise RolledBack(
                    f"The ledger of {self.population} has charged {Position(session, *order)}, which the counters in "
                    f"{self._counters.path} have not reached: an old copy of them was put back; put back the newest "
                    "copy of the store, or override with `quire ledger reset`."
                )

    def _open(self) -> None:
        scan, place = self._scan, self._place
        now = datetime.now(UTC)
        body = common("opening", scan.count + 1, START, place.store, place.population, now) | opening_body(0, {})
        self._append(body, now, ())

    @property
    def population(self) -> str:
        """The operator's name for those whom the records are about."""
        return self._place.population

    @property
    def receipt(self) -> Receipt:
        """Where the ledger stands."""
        return Receipt(self._scan.count, self._scan.head)

    def spent(self, unit: Unit, since: date | None = None) -> Spending:
        """Return what was charged to a unit, ever or from a day (UTC) on."""
        return self._scan.sums.spent(unit, since)

    def spent_in(self, session: str, unit: Unit) -> Spending:
        """Return what one session, and what is part of it, was charged on a unit."""
        return self._scan.sums.spent_in(session, unit)

    def unprotected(self, unit: Unit, since: date) -> bool:
        """Tell whether a unit was charged without limit on a day (UTC), or later; a balance taken over is no charge."""
        return self._scan.sums.unprotected(unit, since)

    def require(self, receipt: Receipt, who: str) -> None:
        """Refuse to go on if somebody else has seen more of this ledger than there is.

        Parameters
        ----------
        receipt : Receipt
            An earlier receipt of this ledger, from wherever it was kept.
        who : str
            Where, for the error: "the transparency log".

        Raises
        ------
        RolledBack
        """
        self.require_all([(receipt, who)])

    def require_all(self, seen: Iterable[tuple[Receipt, str]]) -> None:
        """Do what :meth:`require` does for many receipts, reading the ledger once.

        How far the furthest has seen is noted if it is refused, so that an override begins beyond it.
        """
        marks = [(receipt.count, receipt.head, who) for receipt, who in seen]
        head = self._heads.now.ledgers.get(self.population, NO_HEAD)
        try:
            read_ledger(self._place, head, marks)
        except RolledBack:
            with suppress(StoreError):  # what it says is said all the same
                note(self._place, max(count for count, _, _ in marks))
            raise

    def check(self, charges: Iterable[Charge], budget: Budget | None, since: date | None = None) -> tuple[Booked, ...]:
        """Tell whether charges fit, without charging them; return them as they would be booked.

        Parameters
        ----------
        charges : iterable of Charge
            All of one exchange. A silo-unit release is charged to the record unit too: give both.
        budget : Budget or None
            What may be spent on each unit. None: the operator has set no cap, as for runs without privacy.
        since : datetime.date, optional
            The first day (UTC) of the operator's period; what was spent before no longer counts.

        Raises
        ------
        BudgetExceeded
            Saying in words what is spent, and what it would come to.
        StoreError
            If an event cannot be accounted.
        """
        after: dict[Unit, Spending] = {}
        booked = []
        try:
            for charge in charges:
                before = after.get(charge.unit) or self.spent(charge.unit, since)
                after[charge.unit] = before + charge.spending
                epsilon = None if budget is None else after[charge.unit].epsilon(budget.delta)
                delta = None if budget is None else budget.delta
                booked.append(Booked(charge.unit, charge.event, charge.spending, delta, epsilon))
                if budget is not None and epsilon is not None and not epsilon <= budget.epsilon:
                    raise BudgetExceeded(self._words(charge.unit, budget, since, epsilon))
        except PrivacyError as error:
            raise StoreError(f"This release cannot be charged to {self.population}: {error}") from error
        if not booked:
            raise StoreError("There is nothing to charge; a run without privacy is charged as NonPrivate.")
        return tuple(booked)

    def charge(
        self,
        charges: Sequence[Charge],
        budget: Budget | None,
        position: Position,
        *,
        code: str,
        settings: str,
        since: date | None = None,
        now: datetime | None = None,
    ) -> Receipt:
        """Charge for a release that is about to leave, all of it or nothing, durably.

        Parameters
        ----------
        charges, budget, since
            See :meth:`check`.
        position : Position
            What it is for. The counters must have reached it already, so that it cannot be answered twice.
        code, settings : str
            Hashes (hexadecimal) of the code that ran and of the settings it ran under.
        now : datetime.datetime, optional
            The time, with a zone. A clock that went back does not date an entry before the one before it: it would
            leave the operator's period too early.

        Returns
        -------
        Receipt
            After this, and not before, the release may leave.

        Raises
        ------
        BudgetExceeded
            If it does not fit; nothing was written.
        StoreError
            If it could not be written, or the counters are behind. It may have been charged nevertheless.
        """
        reached = self._counters.last(position.session)
        if reached is None or reached.order < position.order:
            raise StoreError(f"{str(position).capitalize()} was charged before it was counted; nothing was charged.")
        booked = self.check(charges, budget, since)
        now = max(now or datetime.now(UTC), self._scan.time)
        place = self._place
        body = common("charge", self._scan.count + 1, self._writer.head, place.store, place.population, now)
        self._append(body | charge_body(position, booked, code, settings), now, booked, position)
        self._checkpoint_if_due()
        return self.receipt

    def _append(
        self, body: dict[str, object], now: datetime, booked: Sequence[Booked], position: Position | None = None
    ) -> None:
        line = self._place.seal.close(body)
        self._writer.append(line)
        entry = Entry(self._scan.count + 1, now.astimezone(UTC), position, tuple(booked), "", "", {}, None, None)
        self._scan.take(line, entry)
        self._publish()

    def _publish(self) -> None:
        scan = self._scan
        head = Head(scan.count, scan.head, scan.size, scan.sums.all_spent())
        self._heads.update(self._counters.count, self.population, head)

    def _checkpoint_if_due(self) -> None:
        if self._scan.count - self._scan.checked >= max(CHECKPOINT, len(self._scan.sums.rows)):
            write_checkpoint(self._place, self._scan)

    def _words(self, unit: Unit, budget: Budget, since: date | None, epsilon: float) -> str:
        spent = self.spent(unit, since).epsilon(budget.delta)
        period = "" if since is None else f" since {since.isoformat()}"
        to = "without limit" if math.isinf(epsilon) else f"to epsilon {epsilon:.4g}"
        return (
            f"The budget of the population {self.population} is epsilon {budget.epsilon:g} at delta {budget.delta:g} "
            f"for one {unit}: {_number(spent)} was spent{period}, and this release would take it {to}; it is refused."
        )

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _number(epsilon: float) -> str:
    return "an unlimited epsilon" if math.isinf(epsilon) else f"{epsilon:.4g}"


def populations(folder: Iterable[str]) -> Iterator[str]:
    """Yield the populations that have a ledger, from the names of the files in its folder."""
    for name in sorted(folder):
        if name.endswith(".jsonl") and ":" not in name:
            yield name.removesuffix(".jsonl")
