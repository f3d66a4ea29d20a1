"""Robust aggregators: each silo counts alike, and a round with too few replies for the rule's promise fails.

Rows are no weight here: whoever may send any update may state any number of rows. The server sees every update, as
under ``aggregation=plain``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from quire.conf.robust_schema import FEWEST
from quire.errors import RunFailed
from quire.strategies.aggregators import PlainMean
from quire.strategies.robust.coordinates import mean_around_median, median, trimmed_mean
from quire.strategies.robust.geometry import (
    bulyan_choice,
    clipped_around,
    geometric_median,
    krum,
    products,
    squared_distances,
)
from quire.strategies.rounds import Aggregator, Arrays, Cohort, RoundState, Told, Update

LOG = logging.getLogger("quire.strategies")

_CENTRE = "centre/"
_MOST = 1e140  # the squares of float64 numbers beyond would overflow when they are summed


class _Measured(Aggregator):
    """A rule that takes distances or norms: one silo whose update has none would leave the round without a mean."""

    def objection(self, update: Arrays) -> str | None:
        """Refuse numbers whose squares are beyond float64."""
        return too_large(update)


def too_large(update: Arrays) -> str | None:
    """Say that an update holds numbers whose squares are beyond float64, if so; no other dtype holds any."""
    large = (array for array in update.values() if array.dtype == np.float64 and array.size)
    return f"it holds numbers beyond {_MOST:g}" if any(float(np.abs(one).max()) > _MOST for one in large) else None


@dataclass(frozen=True)
class _Robust(Aggregator):
    """A rule that holds while at most ``byzantine`` of the silos that answered send what they should not.

    Attributes
    ----------
    byzantine : int
        f.
    exposed : int
        How many silos of the round have shown that they are among the f, and have no part in it. A rule that takes
        n >= k f + c updates has n - exposed of them left, at most f - exposed of them bad: still enough, as k >= 1.
    """

    byzantine: int = 1
    exposed: int = field(default=0, kw_only=True)
    name: ClassVar[str]

    @property
    def left(self) -> int:
        """How many of the f may be among the updates."""
        return max(0, self.byzantine - self.exposed)

    @property
    def fewest(self) -> int:
        """How many replies a round needs."""
        return FEWEST[self.name](self.left)

    def without(self, exposed: int) -> _Robust:
        """Return the rule for a round in which so many of the f have shown themselves."""
        return replace(self, exposed=exposed)

    def tell(self, report: Told, memory: Arrays) -> None:
        """Add to the report what the rule went by, where that is less than f."""
        super().tell(report, memory)
        if self.exposed:
            report.byzantine = {"stated": self.byzantine, "exposed": self.exposed, "left": self.left}
        if self.exposed > self.byzantine:
            LOG.warning(
                "%d silos sent what honest ones do not, and aggregation.byzantine=%d is less: aggregation=%s protects "
                "from no other silo in this round.",
                self.exposed,
                self.byzantine,
                self.name,
            )

    def check(self, updates: Sequence[Update], cohort: Cohort) -> None:
        """Refuse a round with too few replies.

        Raises
        ------
        RunFailed
        """
        if len(updates) < self.fewest:
            known = f", {self.byzantine - self.left} of which sent what honest silos do not," if self.exposed else ""
            raise RunFailed(
                f"Round {cohort.round} failed: aggregation={self.name} with byzantine={self.byzantine}{known} takes at "
                f"least {self.fewest} updates, and {len(updates)} came."
            )


class Median(Aggregator):
    """The median of each coordinate: bounded while fewer than half of the silos are byzantine."""

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the median of each coordinate, float64."""
        return median(_arrays(updates))


@dataclass(frozen=True)
class TrimmedMean(_Robust):
    """The mean of each coordinate without its f smallest and f largest values."""

    name: ClassVar[str] = "trimmed_mean"

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the trimmed mean, float64."""
        self.check(updates, cohort)
        return trimmed_mean(_arrays(updates), self.left)


@dataclass(frozen=True)
class Krum(_Measured, _Robust):
    """The mean of those updates that lie closest to most others.

    Attributes
    ----------
    kept : int or None
        How many: 1 is Krum; None is n - f of the n that came.
    """

    kept: int | None = 1
    name: ClassVar[str] = "krum"

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the mean of the chosen updates, float64; of no more than are left without f of them."""
        self.check(updates, cohort)
        apart = squared_distances(products(_arrays(updates)))
        trusted = len(updates) - self.left
        places = krum(apart, self.left, min(self.kept or trusted, trusted))
        return _combined(_arrays([updates[place] for place in places]), np.full(len(places), 1.0 / len(places)))


@dataclass(frozen=True)
class MultiKrum(Krum):
    """Krum that keeps several updates; by default all that came but f."""

    kept: int | None = None
    name: ClassVar[str] = "multi_krum"


@dataclass(frozen=True)
class Bulyan(_Measured, _Robust):
    """Krum's choice of n - 2f updates, and of each coordinate the mean of the n - 4f values closest to the median."""

    name: ClassVar[str] = "bulyan"

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return Bulyan's mean, float64."""
        self.check(updates, cohort)
        arrays = _arrays(updates)
        places = bulyan_choice(squared_distances(products(arrays)), self.left)
        return mean_around_median([arrays[place] for place in places], len(places) - 2 * self.left)


class GeometricMedian(_Measured):
    """The point whose distances to all updates have the smallest sum: bounded while fewer than half are byzantine."""

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the geometric median, float64."""
        arrays = _arrays(updates)
        return _combined(arrays, geometric_median(products(arrays)))


@dataclass(frozen=True)
class CenteredClipping(_Measured):
    """The last round's mean, moved by the mean of what updates differ from it, each difference cut to a radius.

    Attributes
    ----------
    radius : float or None
        None: the median of the differences' norms.
    steps : int
        How often the centre moves in a round.
    """

    radius: float | None = None
    steps: int = 3
    centre: Arrays = field(default_factory=dict)

    def at(self, state: RoundState) -> CenteredClipping:
        """Return it with the last round's mean as centre; zero before the first round."""
        centre = {name: state.memory[_CENTRE + name] for name in state.model if _CENTRE + name in state.memory}
        return replace(self, centre=centre)

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the centre where it has moved to, float64."""
        arrays = _arrays(updates)
        centre = self.centre or {name: np.zeros(array.shape) for name, array in arrays[0].items()}
        arrays = [*arrays, {name: centre[name] for name in arrays[0]}]
        return _combined(arrays, clipped_around(products(arrays), self.radius, self.steps))

    def combine(self, updates: Sequence[Update], cohort: Cohort) -> tuple[Arrays, Arrays]:
        """Return the mean, which is the next round's centre."""
        mean = self.mean(updates, cohort)
        return mean, {_CENTRE + name: array for name, array in mean.items()}


@dataclass(frozen=True)
class NormBound(_Measured):
    """The mean of updates that are each scaled down to a norm.

    Sun et al. 2019, arXiv 1911.07963, section 4.

    Attributes
    ----------
    bound : float or None
        None: the median of the norms of the round.
    """

    bound: float | None = None

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the mean of the bounded updates, float64."""
        arrays = _arrays(updates)
        norms = np.array([_norm(one) for one in arrays])
        bound = float(np.median(norms)) if self.bound is None else self.bound
        shares = np.ones(len(norms))
        np.divide(bound, norms, out=shares, where=norms > bound)
        return _combined(arrays, shares / len(norms))


def _arrays(updates: Sequence[Update]) -> list[Arrays]:
    return [update.arrays for update in updates]


def _norm(arrays: Arrays) -> float:
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays.values())))


def _combined(arrays: Sequence[Arrays], weights: np.ndarray) -> Arrays:
    """Return the sum of updates with these weights, by the plain mean's own code."""
    total = float(weights.sum())
    form = Cohort(0, ())
    found = PlainMean().mean([Update("", one, float(w)) for one, w in zip(arrays, weights, strict=True)], form)
    return found if total == 1.0 else {name: array * total for name, array in found.items()}
