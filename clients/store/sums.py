"""A ledger added up: what each run spent on each day, from which every total follows.

Adding rows is exact enough and never drops one: a sum of at most a few million doubles of one sign is off by a
relative 1e-9 at most, and the totals that budgets are held against are made the same way every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from quire.clients.store.entries import CARRIED, Entry
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.spending import Spending

Key = tuple[str, Unit, str]
_MEMO = 16


@dataclass(frozen=True)
class Row:
    """What one session spent on one unit on one day: how many charges, and how much."""

    charges: int
    spending: Spending


class Sums:
    """The sums of a ledger."""

    def __init__(self, rows: Mapping[Key, Row] | None = None) -> None:
        self.rows: dict[Key, Row] = dict(rows or {})
        self.positions: dict[str, tuple[int, int, int]] = {}
        self._totals: dict[tuple[Unit, date | None], Spending] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        day = entry.day
        for unit, spending in entry.carried.items():
            self._add((CARRIED, unit, day.isoformat()), 0, spending)
        if entry.position is not None:
            session = entry.position.session
            self.positions[session] = max(self.positions.get(session, (0, 0, 0)), entry.position.order)
            for booked in entry.charges:
                self._add((session, booked.unit, day.isoformat()), 1, booked.spending)

    def _add(self, key: Key, charges: int, spending: Spending) -> None:
        before = self.rows.get(key)
        self.rows[key] = (
            Row(charges, spending) if before is None else Row(before.charges + charges, before.spending + spending)
        )
        _, unit, day = key
        for (known, since), total in self._totals.items():
            if known is unit and (since is None or since.isoformat() <= day):
                self._totals[known, since] = total + spending

    def spent(self, unit: Unit, since: date | None = None) -> Spending:
        """Return what was charged to a unit, from a day on or ever."""
        if (unit, since) not in self._totals:
            if len(self._totals) >= _MEMO:
                self._totals.clear()
            self._totals[unit, since] = Spending.sum(
                row.spending
                for (_, known, day), row in self.rows.items()
                if known is unit and (since is None or since.isoformat() <= day)
            )
        return self._totals[unit, since]

    def spent_in(self, session: str, unit: Unit) -> Spending:
        """Return what a session spent on a unit, with those that are part of it (``run-7`` and ``run-7.evaluate``)."""
        return Spending.sum(
            row.spending
            for (name, known, _), row in self.rows.items()
            if known is unit and (name == session or name.startswith(f"{session}."))
        )

    def unprotected(self, unit: Unit, since: date) -> bool:
        """Tell whether anything was charged without limit from a day on."""
        return any(
            bool(np.isinf(row.spending.rdp).all())
            for (session, known, day), row in self.rows.items()
            if known is unit and session != CARRIED and since.isoformat() <= day
        )

    def units(self) -> list[Unit]:
        """Return the units that anything was charged to."""
        return [unit for unit in Unit if any(known is unit for _, known, _ in self.rows)]

    def all_spent(self) -> dict[Unit, Spending]:
        """Return what was ever charged, by unit."""
        return {unit: self.spent(unit) for unit in self.units()}

    def as_dict(self) -> dict[str, Any]:
        """Return the sums as a JSON object."""
        rows = [
            [session, str(unit), day, row.charges, row.spending.to_json()]
            for (session, unit, day), row in self.rows.items()
        ]
        return {"rows": rows, "positions": self.positions}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Sums:
        """Read what :meth:`as_dict` returned."""
        sums = cls(
            {
                (session, Unit(unit), day): Row(charges, Spending.from_json(item))
                for session, unit, day, charges, item in value["rows"]
            }
        )
        sums.positions = {
            session: (first, second, third) for session, (first, second, third) in value["positions"].items()
        }
        return sums
