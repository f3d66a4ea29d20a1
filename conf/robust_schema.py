"""The settings of robust aggregation: rules for a server that sees updates, some of which may be anything."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quire.conf.privacy_schema import PlainAggregation
from quire.conf.setting import setting

_BYZANTINE = "silos of a round that may send anything (f)"

#: By the rule's name: the fewest updates that it takes, for f that may be anything.
FEWEST: Mapping[str, Callable[[int], int]] = {
    "trimmed_mean": lambda byzantine: 2 * byzantine + 1,
    "krum": lambda byzantine: 2 * byzantine + 3,
    "multi_krum": lambda byzantine: 2 * byzantine + 3,
    "bulyan": lambda byzantine: 4 * byzantine + 3,
}


@dataclass(frozen=True)
class RobustAggregation(PlainAggregation):
    """The server sees updates, each counts alike, and outliers move their mean only so far."""


@dataclass(frozen=True)
class MedianAggregation(RobustAggregation):
    """The median of each coordinate (Yin et al. 2018, arXiv 1803.01498, definition 1)."""


@dataclass(frozen=True)
class TrimmedMeanAggregation(RobustAggregation):
    """The mean of each coordinate without its f smallest and f largest values (Yin et al. 2018, definition 2)."""

    byzantine: int = setting(_BYZANTINE, ge=1, le=100_000)


@dataclass(frozen=True)
class KrumAggregation(RobustAggregation):
    """The one update that lies closest to most others (Blanchard et al. 2017, arXiv 1703.02757)."""

    byzantine: int = setting(_BYZANTINE, ge=1, le=100_000)


@dataclass(frozen=True)
class MultiKrumAggregation(KrumAggregation):
    """The mean of the updates that lie closest to most others (Blanchard et al. 2017, section 6)."""

    kept: int | None = setting("how many updates are taken; null: all that came but f", ge=1, le=100_000)


@dataclass(frozen=True)
class BulyanAggregation(RobustAggregation):
    """Krum's choice, and of each coordinate the values around the median (El Mhamdi et al. 2018, arXiv 1802.07927)."""

    byzantine: int = setting(_BYZANTINE, ge=1, le=100_000)


@dataclass(frozen=True)
class GeometricMedianAggregation(RobustAggregation):
    """The point closest to all updates (Pillutla et al. 2022, arXiv 1912.13445)."""


@dataclass(frozen=True)
class CenteredClippingAggregation(RobustAggregation):
    """Differences from the last round's mean, each cut to a radius (Karimireddy et al. 2021, arXiv 2012.10333)."""

    radius: float | None = setting(
        "what a difference is cut to; null: the median of their norms, in each step", gt=0.0, le=1e9
    )
    steps: int = setting("how often the centre moves in a round", ge=1, le=100)


@dataclass(frozen=True)
class NormBoundAggregation(RobustAggregation):
    """The mean of updates that are scaled down to a norm (Sun et al. 2019, arXiv 1911.07963)."""

    bound: float | None = setting("the norm; null: the median of the round's norms", gt=0.0, le=1e9)
