"""Axes of the privacy figures.

Epsilon has a logarithmic axis. What has no noise stands apart at the right, beyond a break in the axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quire.simulation.drawing import GRID, INK, MUTED
from quire.simulation.sweep_measured import NONE
from quire.simulation.sweep_privacy import Point

_APART = 0.16  # of the axis, between the last epsilon and infinity
_CLOSE = 0.055  # of the height, between two labels

Told = tuple[float, str, str]
"""A label: its height, its text, its colour."""


@dataclass(frozen=True)
class Axis:
    """Where epsilons stand: their logarithms, then infinity, then ``privacy=none``, between 0 and 1."""

    finite: tuple[float, ...]
    infinite: bool
    none: bool

    @classmethod
    def of(cls, points: Sequence[Point]) -> Axis:
        """Return the axis that shows some points."""
        return cls(
            tuple(sorted({point.epsilon for point in points if point.noised})),
            any(math.isinf(point.epsilon) and point.mode != NONE for point in points),
            any(point.mode == NONE for point in points),
        )

    @property
    def end(self) -> float:
        """Where the logarithmic part ends."""
        return 1.0 - _APART * (self.infinite + self.none) if self.finite else 0.0

    def place(self, point: Point) -> float:
        """Return where a point stands."""
        if not point.noised:
            last = 1.0 - _APART if self.none else 1.0
            return 1.0 if point.mode == NONE else last
        return self.at(point.epsilon)

    def at(self, epsilon: float) -> float:
        """Return where a finite epsilon stands."""
        low, high = math.log(self.finite[0]), math.log(self.finite[-1])
        return self.end * (math.log(epsilon) - low) / (high - low) if high > low else self.end / 2

    def dress(self, axes: Any, words: str) -> None:
        """Label the axis, and break it before infinity."""
        ticks = [(self.at(value), f"{value:g}") for value in _apart(self.finite, self.at)]
        if self.infinite:
            ticks.append((1.0 - _APART if self.none else 1.0, "∞"))
        if self.none:
            ticks.append((1.0, "no privacy"))
        axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
        axes.tick_params(axis="x", labelcolor=INK)
        axes.set_xlim(-0.04, 1.05)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel(words)
        if self.finite and (self.infinite or self.none):
            axes.spines["bottom"].set_visible(False)
            low = axes.get_ylim()[0]
            middle = self.end + _APART / 2
            across = {"color": GRID, "linewidth": 0.8, "clip_on": False, "zorder": 1}
            axes.plot([-0.04, middle - 0.008], [low, low], **across)
            axes.plot([middle + 0.008, 1.05], [low, low], **across)
            for x in (middle - 0.008, middle + 0.008):
                axes.plot(x, low, marker=(2, 0, -25), markersize=11, color=MUTED, clip_on=False)


def _apart(values: Sequence[float], at: Callable[[float], float]) -> list[float]:
    """Return the values that can be labelled without touching each other."""
    kept: list[float] = []
    for value in values:
        if not kept or at(value) - at(kept[-1]) >= 0.045:
            kept.append(value)
    return kept


def spaced(told: list[Told], reach: tuple[float, float]) -> list[Told]:
    """Move labels up so that none touches the one below, and all down again by what they then stick out."""
    gap = _CLOSE * (reach[1] - reach[0])
    placed: list[Told] = []
    for y, text, color in sorted(told):
        lowest = placed[-1][0] + gap if placed else y
        placed.append((max(y, lowest), text, color))
    over = max(0.0, placed[-1][0] - reach[1]) if placed else 0.0
    middle = sum(now - was for (now, *_), (was, *_) in zip(placed, sorted(told), strict=True)) / max(len(placed), 1)
    return [(y - max(over, middle), text, color) for y, text, color in placed]


def log_axis(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with at least three plain numbers on it."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.axes.set_yscale("log")
    low, high = min(values) / 1.15, max(values) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            break
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.axes.set_ylim(low, high)
