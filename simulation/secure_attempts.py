"""Attempts of secure aggregation, as the journal of a run tells of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quire.simulation.report_data import RunData, number


@dataclass(frozen=True)
class Attempt:
    """One attempt of a round, as journalled."""

    event: Mapping[str, Any]
    log: Mapping[str, Any]

    @property
    def round(self) -> int:
        return int(self.event["round"])

    @property
    def group(self) -> int:
        """Of silos that are summed together, from 1; 0 where all are."""
        return int(number(self.log.get("group")) or 0)

    @property
    def error(self) -> str | None:
        return None if self.log.get("error") is None else str(self.log["error"])

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        return self.log.get("stages") or {}

    @property
    def rejected(self) -> bool:
        """Whether its sum was opened, and is none of honest silos."""
        told = self.event.get("secure") or {}
        if self.group:
            told = dict(told_of_groups(self.event)).get(self.group, {})
        return self.error is None and told.get("rejected") is True

    @property
    def members(self) -> set[str]:
        """The silos that it was about."""
        return {str(silo) for part in (self.log.get("cohort", ()), self.log.get("bytes") or {}) for silo in part}

    @property
    def rekeyed(self) -> bool:
        return "open" in self.stages

    def figure(self, stage: str, key: str) -> float:
        """Return a figure of an exchange, 0 where there was none."""
        return number(self.stages.get(stage, {}).get(key)) or 0.0

    def seconds(self, *stages: str) -> float:
        return sum(self.figure(stage, "seconds") for stage in stages)


def attempts_in(data: RunData) -> Iterator[Attempt]:
    """Yield all attempts of a run, in order."""
    for event in events_of(data):
        for log in (event.get("secure") or {}).get("attempts", ()):
            yield Attempt(event, log)


def events_of(data: RunData) -> tuple[Mapping[str, Any], ...]:
    """Return the rounds, and the one that ended the run after them."""
    return (*data.rounds, *data.failed)


def good(attempts: list[Attempt]) -> list[Attempt]:
    """Return those whose sum was opened."""
    return [attempt for attempt in attempts if attempt.error is None]


def least(attempts: list[Attempt]) -> int:
    """Return the fewest silos that a sum opens for; of groups, in the one that opens for fewest."""
    told = [int(number(attempt.log.get("threshold")) or 0) for attempt in attempts]
    return min((fewest for fewest in told if fewest), default=0)


def told_of_groups(event: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield what the line of a round says of each group, by number from 1; nothing where silos are summed together."""
    secure = event.get("secure")
    listed = secure.get("groups") if isinstance(secure, Mapping) else None
    for told in listed if isinstance(listed, list) else ():
        if isinstance(told, Mapping) and type(told.get("group")) is int:
            yield told["group"], told


def silos_in(told: Mapping[str, Any]) -> list[str]:
    """Return the silos of a group whose sum was opened."""
    silos = told.get("silos")
    return [str(silo) for silo in silos] if isinstance(silos, list) else []
