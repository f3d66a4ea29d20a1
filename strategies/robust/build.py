"""From settings to a robust aggregator: a closed registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quire.conf.schema import RobustAggregation
from quire.strategies.robust.aggregators import (
    Bulyan,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from quire.strategies.rounds import Aggregator

_RULES: Mapping[str, Callable[..., Aggregator]] = {
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "krum": Krum,
    "multi_krum": MultiKrum,
    "bulyan": Bulyan,
    "geometric_median": GeometricMedian,
    "centered_clipping": CenteredClipping,
    "norm_bound": NormBound,
}


def is_robust(name: str) -> bool:
    """Tell whether an option of the group ``aggregation`` is one of these rules."""
    return name in _RULES


def robust_aggregator(settings: RobustAggregation) -> Aggregator:
    """Return the aggregator that the settings name, with their parameters."""
    chosen = {key: value for key, value in vars(settings).items() if key != "name"}
    return _RULES[settings.name](**chosen)
