"""What there is to see at a silo: its certificate, what its records may still spend, what was asked and refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from quire.clients.data.consent.lineage import lines_of
from quire.clients.data.consent.place import Place
from quire.clients.data.consent.sieve import REASONS
from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import read_key_file
from quire.clients.policy.model import Operator, Policy
from quire.clients.store.decision_book import Book, Matter, look
from quire.clients.store.errors import StoreError
from quire.clients.store.inspection import Books, Inspection
from quire.dashboard.text import Long, epsilon

# The delta at which epsilon is told where no policy names one, as in `quire ledger show`.
_DELTA = 1e-5
_RUNS, _MATTERS, _ROUNDS, _MOMENT = 60, 60, 40, 0.2

Found = TypeVar("Found")


def operator_of(root: Path) -> Operator:
    """Read what the silo's operator has laid down.

    Raises
    ------
    DataError
        If ``silo.yaml`` cannot be read.
    """
    return read_operator_of(root / "silo.yaml")


def budgets(operator: Operator, runs: bool) -> list[dict[str, Any]]:
    """Return, by population, what may be spent, what was and what is left.

    Parameters
    ----------
    operator : Operator
    runs : bool
        Whether to list the runs that it was spent in.

    Raises
    ------
    QuireError
        If the books are not what was written.
    """
    policy = operator.policy
    named = [policy.population.name] if policy is not None and policy.capped else []
    found = _twice(lambda: _books(operator))
    shown = [_population(name, books, policy if name in named else None, runs) for name, books in found]
    untouched = [name for name in named if name not in dict(found)]
    return [*(_untouched(name, policy) for name in untouched if policy is not None), *shown]


def _books(operator: Operator) -> list[tuple[str, Books]]:
    if not operator.store.is_dir() or not any(operator.store.iterdir()):
        return []
    inspection = Inspection(operator.store, operator.witness, _fingerprint(operator))
    return [(name, inspection.books(name)) for name in inspection.populations()]


def _population(name: str, books: Books, policy: Policy | None, runs: bool) -> dict[str, Any]:
    delta = _DELTA if policy is None else policy.delta
    since = _since(policy)
    units = [
        _unit(str(unit), policy, books.spent(unit).epsilon(delta), books.spent(unit, since).epsilon(delta))
        | {"runs": books.count_runs(unit), "rounds": books.count_charges(unit)}
        for unit in books.units()
    ]
    rows = sorted(books.runs.items(), key=lambda item: item[1][0], reverse=True) if runs else []
    return {
        **_about(name, policy, delta),
        "entries": books.entries,
        "units": units,
        "rows": [
            {
                "run": session,
                "unit": str(unit),
                "begun": first.isoformat(),
                "rounds": rounds,
                "epsilon": epsilon(spending.epsilon(delta)),
            }
            for (session, unit), (first, rounds, spending) in rows[:_RUNS]
        ],
        "left_out": max(0, len(rows) - _RUNS),
    }


def _untouched(name: str, policy: Policy) -> dict[str, Any]:
    units = [_unit("record", policy, 0.0, 0.0) | {"runs": 0, "rounds": 0}]
    return {**_about(name, policy, policy.delta), "entries": 0, "units": units, "rows": [], "left_out": 0}


def _about(name: str, policy: Policy | None, delta: float) -> dict[str, Any]:
    return {
        "name": name,
        "delta": f"{delta:g}",
        "budget": None if policy is None else f"{policy.epsilon:g}",
        "days": None if policy is None else policy.period_days,
    }


def _unit(unit: str, policy: Policy | None, ever: float, now: float) -> dict[str, Any]:
    left = None if policy is None else max(0.0, policy.epsilon - now)
    share = None if policy is None or left is None else left / policy.epsilon if policy.epsilon else 0.0
    tone = "" if share is None else "good" if share > 0.5 else "level" if share > 0.1 else "bad"
    return {
        "unit": unit,
        "ever": epsilon(ever),
        "now": epsilon(now),
        "left": None if left is None else epsilon(left),
        "share": share,
        "tone": tone,
    }


def _since(policy: Policy | None) -> date | None:
    if policy is None or policy.period_days is None:
        return None
    return datetime.now(UTC).date() - timedelta(days=policy.period_days - 1)


def book_of(operator: Operator) -> Book:
    """Read the book of runs that had to be approved.

    Raises
    ------
    QuireError
        If it is not what was written.
    """
    return _twice(lambda: look(operator.store, operator.witness, _fingerprint(operator)))


def waiting(book: Book) -> list[dict[str, Any]]:
    """Return the runs that wait for a decision, with what each would do, in the words that the silo noted."""
    return [
        {
            **_matter(matter),
            "terms": [(title, Long(text)) for title, text in matter.request.terms],
            "code": matter.request.binding.code,
        }
        for matter in book.pending[:_MATTERS]
    ]


def decided(book: Book) -> tuple[list[dict[str, Any]], int]:
    """Return what was decided, the latest first: by whom and why; and how many more there are."""
    rows = [
        {
            **_matter(matter),
            "decision": made.decision,
            "by": made.by,
            "why": Long(made.why),
            "at": f"{made.at:%Y-%m-%d %H:%M} UTC",
            "told": made.statement.body["reason"] is not None,
            "order": made.at,
        }
        for matter in book.matters.values()
        for made in matter.decisions
    ]
    rows.sort(key=lambda row: row["order"], reverse=True)
    return rows[:_MATTERS], max(0, len(rows) - _MATTERS)


def _matter(matter: Matter) -> dict[str, Any]:
    return {
        "run": matter.request.binding.run,
        "what": matter.request.what[:12],
        "asked": f"{matter.asked:%Y-%m-%d %H:%M} UTC",
    }


def _fingerprint(operator: Operator) -> str | None:
    return read_key_file(operator.identity).fingerprint if operator.identity.exists() else None


def _twice(read: Callable[[], Found]) -> Found:
    """Look again after a moment where books do not agree: a charge may have come between two of them."""
    try:
        return read()
    except StoreError:
        time.sleep(_MOMENT)
        return read()


def lineage(operator: Operator) -> tuple[list[dict[str, Any]], tuple[str, ...], int]:
    """Return the rounds that were trained last, newest first; the reasons for which rows are left out; how many more.

    Raises
    ------
    QuireError
        If the file is not what was written.
    """
    lines = lines_of(Place.of(operator))
    shown = [
        {
            "run": f"{line.run}{' (simulated)' if line.simulated else ''}",
            "round": line.round,
            "time": line.time.replace("T", " ")[:19],
            "came": line.came,
            "left_out": [line.left_out.get(why, 0) for why in REASONS],
            "trained": line.trained,
            "scored": line.scored,
        }
        for line in lines[: -_ROUNDS - 1 : -1]
    ]
    return shown, tuple(REASONS), len(lines) - len(shown)
