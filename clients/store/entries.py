"""What stands in a privacy ledger: openings and charges, as JSON objects, strictly read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

from quire.clients.store.counters import Position
from quire.clients.store.errors import Replay
from quire.clients.store.lines import BadLine
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.events import Event, from_json, to_json
from quire.privacy.dp.spending import Spending

TAG = "quire/ledger/entry/1"
#: The session that a carried-over balance is booked under.
CARRIED = "carried-over"
_COMMON = ("kind", "seq", "prev", "store", "population", "time")
_FIELDS = {
    "opening": {*_COMMON, "segment", "because", "found", "kept", "carried"},
    "charge": {*_COMMON, "session", "round", "attempt", "stage", "code", "settings", "charges"},
}
_CHARGE = {"unit", "event", "spending", "delta", "epsilon_after"}


@dataclass(frozen=True)
class Charge:
    """What one release costs one unit.

    Attributes
    ----------
    unit : Unit
    event : Event
        What is about to be released; what it costs is computed from it, and never typed.
    """

    unit: Unit
    event: Event

    @cached_property
    def spending(self) -> Spending:
        """What the event costs: Renyi differential privacy over the grid of orders, and its terms of delta."""
        return Spending.of(self.event)


@dataclass(frozen=True)
class Booked:
    """A charge as it stands in the ledger.

    Attributes
    ----------
    unit : Unit
    event : Event
    spending : Spending
    delta : float or None
        The delta of the policy at the time.
    epsilon_after : float or None
        What the unit had spent at that delta after the charge; "inf" in the file stands for infinity.
    """

    unit: Unit
    event: Event
    spending: Spending
    delta: float | None
    epsilon_after: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        after = "inf" if self.epsilon_after == float("inf") else self.epsilon_after
        body = {"unit": str(self.unit), "event": to_json(self.event), "spending": self.spending.to_json()}
        return {**body, "delta": self.delta, "epsilon_after": after}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Booked:
        """Read what :meth:`as_dict` returned."""
        if set(value) != _CHARGE:
            raise BadLine("has a charge with missing or unknown fields")
        after = value["epsilon_after"]
        return cls(
            Unit(value["unit"]),
            from_json(value["event"]),
            Spending.from_json(value["spending"]),
            None if value["delta"] is None else float(value["delta"]),
            None if after is None else float(after),
        )


@dataclass(frozen=True)
class Entry:
    """One line of a ledger.

    Attributes
    ----------
    seq : int
        Its number, from 1 and on through all segments.
    time : datetime.datetime
        In UTC; never before that of the entry before it.
    position : Position or None
        What was charged for; None for an opening.
    charges : tuple of Booked
    code, settings : str
        Hashes of what ran; empty for an opening.
    carried : mapping of Unit to Spending
        What an opening takes over from before.
    because, found : str or None
        Of an opening: the operator's reason for an override, and what was wrong with the ledger before.
    """

    seq: int
    time: datetime
    position: Position | None
    charges: tuple[Booked, ...]
    code: str
    settings: str
    carried: Mapping[Unit, Spending]
    because: str | None
    found: str | None

    @property
    def day(self) -> date:
        """The day (UTC) that it is booked under."""
        return self.time.date()


def common(kind: str, seq: int, prev: str, store: str, population: str, time: datetime) -> dict[str, Any]:
    """Return what every entry begins with."""
    stamp = time.astimezone(UTC).isoformat()
    return {"kind": kind, "seq": seq, "prev": prev, "store": store, "population": population, "time": stamp}


def charge_body(position: Position, booked: Sequence[Booked], code: str, settings: str) -> dict[str, Any]:
    """Return what a charge goes on with."""
    place = {"session": position.session, "round": position.round, "attempt": position.attempt}
    what = {"stage": position.stage, "code": code, "settings": settings}
    return {**place, **what, "charges": [item.as_dict() for item in booked]}


def opening_body(
    segment: int,
    carried: Mapping[Unit, Spending],
    because: str | None = None,
    found: str | None = None,
    kept: str | None = None,
) -> dict[str, Any]:
    """Return what an opening goes on with.

    Parameters
    ----------
    segment : int
        Its number, from 0.
    carried : mapping of Unit to Spending
    because, found : str or None
        See :class:`Entry`.
    kept : str or None
        The name of the file that holds the segment before.
    """
    balance = {str(unit): spending.to_json() for unit, spending in carried.items()}
    return {"segment": segment, "because": because, "found": found, "kept": kept, "carried": balance}


def read_entry(body: Mapping[str, Any], store: str, population: str) -> Entry:
    """Read the object of a line.

    Raises
    ------
    BadLine
        If it is no entry of this ledger.
    """
    try:
        if set(body) != _FIELDS[body["kind"]]:
            raise BadLine("has missing or unknown fields")
        if body["store"] != store or body["population"] != population:
            raise BadLine("belongs to another ledger")
        charge = body["kind"] == "charge"
        return Entry(
            seq=body["seq"],
            time=datetime.fromisoformat(body["time"]).astimezone(UTC),
            position=Position(body["session"], body["round"], body["attempt"], body["stage"]) if charge else None,
            charges=tuple(Booked.of(item) for item in body["charges"]) if charge else (),
            code=body["code"] if charge else "",
            settings=body["settings"] if charge else "",
            carried={} if charge else {Unit(key): Spending.from_json(item) for key, item in body["carried"].items()},
            because=None if charge else body["because"],
            found=None if charge else body["found"],
        )
    except BadLine:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, PrivacyError, Replay):
        raise BadLine("is malformed") from None
