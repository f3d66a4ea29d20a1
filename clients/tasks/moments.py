"""Mean and spread of features, per silo or over all silos without pooling a row.

Each silo sends for every numeric feature the count, the sum and the sum of squares of its training rows; their sums
over the silos give the very mean and variance of the pooled rows. These sums are computed from private rows: under
differential privacy they would have to be paid for, which is why that accepts public constants only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

COUNT, SUM, SQUARES = "count", "sum", "squares"
MEAN, SCALE = "feature-mean", "feature-scale"


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each numeric feature, after scaling by the public bounds."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]


def moments(x: np.ndarray, numeric: np.ndarray) -> dict[str, np.ndarray]:
    """Return count, sum and sum of squares of the numeric features, each float64 of shape (k,).

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (n, d)
        Features scaled by public bounds; NaN where a value is missing.
    numeric : numpy.ndarray of bool, shape (d,)
        Which features are numeric; k of them.
    """
    values = x[:, numeric].astype(np.float64)
    known = ~np.isnan(values)
    values = np.where(known, values, 0.0)
    return {COUNT: known.sum(axis=0).astype(np.float64), SUM: values.sum(axis=0), SQUARES: (values**2).sum(axis=0)}


_MOST_ROWS = 1e12


def usable(parts: Mapping[str, np.ndarray], features: int) -> bool:
    """Tell whether what came from a silo can be moments at all: names, shapes, and what no rows could give."""
    if set(parts) != {COUNT, SUM, SQUARES}:
        return False
    if any(part.shape != (features,) or part.dtype != np.float64 for part in parts.values()):
        return False
    count, total, squares = parts[COUNT], parts[SUM], parts[SQUARES]
    if not all(np.isfinite(part).all() for part in parts.values()):
        return False
    # Scaled values lie in [-1, 1]; float32 rounds, hence the slack.
    if not ((count >= 0).all() and (count <= _MOST_ROWS).all() and (count == np.rint(count)).all()):
        return False
    bound = count * (1 + 1e-6)
    return bool(
        (np.abs(total) <= bound).all()
        and (squares >= 0).all()
        and (squares <= bound).all()
        and (total**2 <= bound * squares + 1e-6 * bound).all()  # Cauchy and Schwarz
    )


def combine(parts: Iterable[Mapping[str, np.ndarray]]) -> Statistics:
    """Add up moments, in the order given, and return mean and standard deviation.

    A feature without any value gets mean 0, and one that never varies is only centred.
    """
    totals: dict[str, np.ndarray] = {}
    for part in parts:
        for name, values in part.items():
            totals[name] = totals[name] + values if name in totals else values.astype(np.float64)
    count = np.maximum(totals[COUNT], 1.0)
    mean = totals[SUM] / count
    spread = np.sqrt(np.maximum(totals[SQUARES] / count - mean**2, 0.0))
    scale = np.where(spread > 1e-6, spread, 1.0)
    return Statistics(tuple(mean.tolist()), tuple(scale.tolist()))
