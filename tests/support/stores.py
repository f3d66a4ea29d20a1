"""A silo's store in a folder of its own, with what is charged to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from quire.clients.store import Budget, Charge, Ledger, Position, Receipt, Store, Unit
from quire.privacy.dp.events import Gaussian, NonPrivate
from quire.privacy.identity.keys import PrivateIdentity

TODAY = date(2026, 5, 4)
HEART = "heart-2020"


@dataclass
class Home:
    """Where a silo keeps its store, its witness and its key."""

    folder: Path
    identity: PrivateIdentity
    witness: Path | None = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def ledger_file(self) -> Path:
        return self.store / "ledger" / f"{HEART}.jsonl"

    def open(self, **options: object) -> Store:
        return Store.open(self.store, self.identity, **{"witness": self.witness, "wait": 5.0, **options})  # type: ignore[arg-type]

    def run(self, rounds: int, session: str = "run-1", charge: Charge | None = None) -> Receipt:
        """Charge some more rounds of a session and close the store."""
        with self.open() as store:
            return go_on(store, store.ledger(HEART), rounds, session, charge)


def gaussian(noise: float = 20.0, unit: Unit = Unit.RECORD) -> Charge:
    return Charge(unit, Gaussian(noise))


def non_private(unit: Unit = Unit.RECORD) -> Charge:
    return Charge(unit, NonPrivate())


def go_on(store: Store, ledger: Ledger, rounds: int, session: str = "run-1", charge: Charge | None = None) -> Receipt:
    last = store.counters.last(session)
    begin = 1 if last is None else last.round + 1
    budget = None if charge is not None else Budget(1000.0, 1e-5)
    for number in range(begin, begin + rounds):
        position = Position(session, number)
        store.counters.advance(position, TODAY)
        receipt = ledger.charge([charge or gaussian()], budget, position, code="c0de", settings="5e77")
    return receipt
