"""What a sweep says about privacy: the score against epsilon, what the noise was, and what it cost against none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from quire.conf.overrides import Value
from quire.simulation.sweep_data import Configuration, Spread, SweepData, is_condition
from quire.simulation.sweep_measured import EPSILON, NONE, Measured, measured


@dataclass(frozen=True)
class Range:
    """Smallest and largest of some numbers."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Range | None:
        """Return the range of some values, None for no values."""
        known = list(values)
        return cls(min(known), max(known)) if known else None


@dataclass(frozen=True)
class Point:
    """One configuration on the axis of epsilon, over its seeds."""

    configuration: Configuration
    measured: tuple[Measured, ...]

    @property
    def mode(self) -> str:
        """``privacy=...``."""
        return self.measured[0].mode

    @property
    def epsilon(self) -> float:
        """The target; infinite without noise, NaN where nobody can tell."""
        return self.measured[0].epsilon

    @property
    def noised(self) -> bool:
        """Whether the target is finite."""
        return math.isfinite(self.epsilon)

    @property
    def multipliers(self) -> Range | None:
        """Noise multipliers over silos and seeds."""
        return Range.of(value for one in self.measured for value in one.multipliers)

    @property
    def deltas(self) -> Range | None:
        """Delta over silos and seeds."""
        return Range.of(value for one in self.measured for value in one.deltas)

    @property
    def ratios(self) -> dict[int, float]:
        """Signal-to-noise by round, as the mean over seeds."""
        rounds = sorted({place for one in self.measured for place in one.ratios})
        return {place: fmean(one.ratios[place] for one in self.measured if place in one.ratios) for place in rounds}


@dataclass(frozen=True)
class Line:
    """Points that differ in epsilon only."""

    values: Mapping[str, Value]
    points: tuple[Point, ...]

    @property
    def mode(self) -> str:
        """``privacy=...``."""
        return self.points[0].mode


@dataclass(frozen=True)
class Panel:
    """What may be looked at on one pair of axes: runs that learn the same from the same rows.

    Attributes
    ----------
    values : dict
        The swept settings that all of it shares.
    lines : tuple of Line
    chosen : tuple of Line
        For each promise, the points that are best on validation rows; empty where there was nothing to choose.
    """

    data: SweepData
    values: Mapping[str, Value]
    lines: tuple[Line, ...]
    chosen: tuple[Line, ...]

    @cached_property
    def leading(self) -> tuple[Line, ...]:
        """The lines to speak of: those chosen, where there was a choice."""
        return self.chosen or self.lines

    @cached_property
    def without(self) -> Point | None:
        """The runs without privacy, or without noise; None where there are none, or several that differ."""
        points = [point for line in self.leading for point in line.points if scored(self.data, point) is not None]
        plain = [point for point in points if point.mode == NONE]
        clipped = [point for point in points if math.isinf(point.epsilon)]
        found = plain or clipped
        return found[0] if len(found) == 1 else None

    def cost(self, point: Point) -> Spread | None:
        """Return by how much a point falls short of no noise, seed by seed; positive is worse. None if unknown.

        Of no noise in its own line, or else of the one best without noise or privacy.
        """
        own = [one for line in self.leading if point in line.points for one in line.points if math.isinf(one.epsilon)]
        other = own[0] if len(own) == 1 else self.without
        if other is None or other == point:
            return None
        kept, metric = kept_rows(self.data), self.data.metric
        ours, theirs = (one.configuration.by_seed(kept, metric) for one in (point, other))
        sign = self.data.better
        return Spread.of([sign * (theirs[seed] - ours[seed]) for seed in ours if seed in theirs])

    def reference(self, name: str) -> tuple[float, float, float] | None:
        """Return mean, smallest and largest of ``pooled``, ``majority`` or ``alone``, each as a mean over runs."""
        runs = [one for line in self.leading for point in line.points for one in point.measured]
        if name == "alone":
            groups = [one.alone for one in runs if one.alone]
        else:
            single = [getattr(one, name) for one in runs]
            groups = [(value,) for value in single if value is not None]
        if not groups:
            return None
        return fmean(map(fmean, groups)), fmean(map(min, groups)), fmean(map(max, groups))


@dataclass(frozen=True)
class PrivacyData:
    """The privacy of a sweep."""

    data: SweepData
    panels: tuple[Panel, ...]

    @property
    def points(self) -> list[Point]:
        """All points."""
        return [point for panel in self.panels for line in panel.lines for point in line.points]

    @property
    def several(self) -> bool:
        """Whether there is more than one place on the axis of epsilon."""
        return len({(point.mode == NONE, point.epsilon) for point in self.points}) > 1

    @property
    def together(self) -> float:
        """The epsilon of all runs as one release, by basic composition: the sum of those that began."""
        return sum(one.epsilon for point in self.points for one in point.measured if one.began)


def kept_rows(data: SweepData) -> str:
    """Return the rows whose scores are shown: test rows, which have no part in a choice, where they are known."""
    return "test" if any(job.scores.get("test") for job in data.jobs) else "validation"


def scored(data: SweepData, point: Point) -> Spread | None:
    """Return a point's score over its seeds, of the completed jobs."""
    return point.configuration.spread(kept_rows(data), data.metric)


def read_privacy(data: SweepData) -> PrivacyData | None:
    """Return what a sweep says about privacy; None for one whose every job trains without."""
    points = [Point(one, tuple(measured(job, data.metric) for job in one.jobs)) for one in data.configurations]
    if all(point.mode == NONE for point in points):
        return None
    groups: dict[tuple[str, ...], list[Point]] = {}
    for point in points:
        groups.setdefault(_label(_shared(data, point)), []).append(point)
    return PrivacyData(data, tuple(_panel(data, group) for group in groups.values()))


def _shared(data: SweepData, point: Point) -> dict[str, Value]:
    pairs = zip(data.keys, point.configuration.values, strict=True)
    return {key: value for key, value in pairs if is_condition(key)}


def _label(values: Mapping[str, Value]) -> tuple[str, ...]:
    return tuple(f"{key}={value!r}" for key, value in values.items())


def _panel(data: SweepData, points: Sequence[Point]) -> Panel:
    shared = _shared(data, points[0])
    lines = _lines(data, points, [key for key in data.keys if key != EPSILON and key not in shared])
    promises: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        delta = dict(zip(data.keys, point.configuration.values, strict=True)).get("privacy.delta")
        promises.setdefault((point.mode, repr(delta), point.epsilon), []).append(point)
    chosen: tuple[Line, ...] = ()
    if data.validated and any(len(group) > 1 for group in promises.values()):
        ranked = [data.ranked([point.configuration for point in group]) for group in promises.values()]
        best = [point for point in points if any(order and order[0] is point.configuration for order in ranked)]
        chosen = _lines(data, best, [key for key in data.keys if key in ("privacy", "privacy.delta")])
    return Panel(data, shared, lines, chosen)


def _lines(data: SweepData, points: Sequence[Point], keys: Sequence[str]) -> tuple[Line, ...]:
    groups: dict[tuple[str, ...], tuple[dict[str, Value], list[Point]]] = {}
    for point in points:
        values = dict(zip(data.keys, point.configuration.values, strict=True))
        own = {key: values[key] for key in keys if values[key] is not None}
        groups.setdefault(_label(own), (own, []))[1].append(point)
    return tuple(
        Line(own, tuple(sorted(group, key=lambda point: (math.isnan(point.epsilon), point.epsilon))))
        for own, group in groups.values()
    )
