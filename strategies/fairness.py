"""How evenly a model serves the silos: the worst of them, the spread over them. Every silo counts alike here.

The figures of Li et al. 2020 (arXiv 1905.10497, section 4.1 and table 1): mean, worst and best tenth, and how far
silos lie apart. They speak of silos by name, and need each silo's own score: where a server learns sums only, it has
none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from quire.clients.contract import TUNED

#: Scores of which less is better; of all others here more is.
LESS_IS_BETTER = frozenset({"loss", "rmse", "mae"})
_KNOWN = (*LESS_IS_BETTER, "accuracy", "balanced_accuracy", "auc", "r2")
_NAMES = frozenset({*_KNOWN, *(TUNED + name for name in _KNOWN)})


def less_is_better(metric: str) -> bool:
    """Tell whether a smaller value of a score is the better one."""
    return metric.removeprefix(TUNED) in LESS_IS_BETTER


def spread(scores: Mapping[str, float], metric: str) -> dict[str, Any] | None:
    """Return how evenly one score falls to the silos.

    Parameters
    ----------
    scores : mapping of str to float
        By silo, in roster order; of several that do equally badly the first is named.
    metric : str
        Which score it is: says whether more or less is better.

    Returns
    -------
    dict or None
        ``silos`` (how many), ``mean`` (each silo counts alike), ``worst`` and ``worst_silo``, ``best`` and
        ``best_silo``, ``worst_tenth`` (mean of the worst tenth of the silos, of one at least) and ``std``
        (square root of the mean squared deviation). None for fewer than two silos, or where a figure is not finite.
    """
    if len(scores) < 2:
        return None
    names = list(scores)
    values = np.array([scores[name] for name in names], dtype=np.float64)
    order = np.argsort(-values if less_is_better(metric) else values, kind="stable")  # the worst first
    worst = values[order]
    with np.errstate(over="ignore", invalid="ignore"):
        figures = {
            "mean": float(values.mean()),
            "worst": float(worst[0]),
            "best": float(worst[-1]),
            "worst_tenth": float(worst[: max(1, len(names) // 10)].mean()),
            "std": float(values.std()),
        }
    if not all(math.isfinite(value) for value in figures.values()):
        return None
    return {"silos": len(names), **figures, "worst_silo": names[order[0]], "best_silo": names[order[-1]]}


def spreads(silos: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return :func:`spread` of every score that is known here, over the silos that have it.

    Parameters
    ----------
    silos : mapping of str to mapping of str to float
        Each silo's scores by name; what else stands among them is passed over.
    """
    metrics = dict.fromkeys(name for scores in silos.values() for name in scores if name in _NAMES)
    found = {
        metric: spread({silo: scores[metric] for silo, scores in silos.items() if metric in scores}, metric)
        for metric in metrics
    }
    return {metric: figures for metric, figures in found.items() if figures is not None}
