"""How large a sum of weighted updates can be at all; :mod:`quire.privacy.dp.plausible` has it for distributed noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quire.privacy.dp.plausible import BeyondHonest
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.wire import centred
from quire.privacy.secagg.fixedpoint import METRIC_BITS, FixedPoint, Mean

#: Clipping to a norm, scaling and rotating are off by less than this, in float64 and relative.
_SLACK = 2.0**-30


def largest_norm(point: FixedPoint, weight: int, silos: int, norm_bound: float) -> float:
    """Return the L2 norm, in integer units, that the sum of some updates can have that were clipped.

    A silo of weight ``w`` adds its update, of a norm of at most ``norm_bound``, times ``scale w / max_weight``, with an
    error of less than one in each coordinate by rounding; a rotation keeps the norm, and cutting to the bound only
    shortens. So the sum stays within ``norm_bound scale W / max_weight + silos sqrt(body)``.

    Parameters
    ----------
    point : FixedPoint
    weight : int
        The sum of the weights, W.
    silos : int
        How many there are in the sum.
    norm_bound : float
        What every silo clips its update to.
    """
    signal = norm_bound * point.scale * weight / point.max_weight
    return signal * (1.0 + _SLACK) + silos * math.sqrt(point.body)


def check_sum(point: FixedPoint, total: NDArray[np.uint32], silos: int, norm_bound: float | None = None) -> float:
    """Refuse a sum that honest silos cannot have come to.

    A silo of weight ``w`` adds a whole number of magnitude at most ``limit w / max_weight + 1`` to each coordinate, the
    one being for rounding; so the sum of all stays within ``limit W / max_weight + silos``, where ``W`` is the sum of
    the weights that stands in it. The mean of the updates is then within the agreed bound, but for rounding. The same
    goes for the means beside it. Where silos clip their updates, the norm of the sum is bounded as well.

    Parameters
    ----------
    point : FixedPoint
    total : numpy.ndarray of uint32, shape (point.length,)
    silos : int
        How many there are in it.
    norm_bound : float, optional
        What every silo clips its update to; see :func:`largest_norm`.

    Returns
    -------
    float
        How far the sum reaches towards what is allowed, 1 at most: in its largest coordinate, or by its norm.

    Raises
    ------
    BeyondHonest
        If something is larger than that, or a sum that is not nothing has weights that sum to nothing.
    EncodingError
        If all silos add nothing, the sum has another number of words, or so many silos cannot be in it.
    """
    if not 1 <= silos <= point.parties:
        raise EncodingError(f"{silos} silos cannot be in a sum of which {point.parties} are asked")
    mean = _mean(point, total)
    if mean.weight > silos * point.max_weight:
        raise BeyondHonest(f"{silos} silos do not weigh {mean.weight} together")
    body = centred(total, point.bits)[: point.body]
    reach = 0.0
    if norm_bound is not None:  # the closer of the two as a rule, and so the first
        norm = math.sqrt(float(np.square(body.astype(np.float64)).sum()))
        if norm > (most := largest_norm(point, mean.weight, silos, norm_bound)):
            raise BeyondHonest(
                f"the sum is {norm / most:.3g} times as long as updates of {silos} silos that are clipped to "
                f"aggregation.norm_bound={norm_bound:g} can be: somebody adds what no honest silo adds"
            )
        reach = norm / most
    largest = int(np.abs(body).max(initial=0)) * point.max_weight
    allowed = point.limit * mean.weight + silos * point.max_weight
    if largest > allowed:
        raise BeyondHonest(
            "a coordinate of the sum is larger than aggregation.bound allows for its weights: somebody adds what no "
            "honest silo adds"
        )
    reach = max(reach, largest / allowed)
    # Half a level of rounding for each silo, at the least weight there is.
    rounding = 2.0 * silos * point.max_weight / (2.0**METRIC_BITS * mean.weight) + 2.0**-40
    for name, bound in point.metrics:
        if abs(mean.metrics[name]) > bound * (1.0 + rounding):
            raise BeyondHonest(f"the mean of '{name}' is beyond what one silo may tell")
    return reach


def _mean(point: FixedPoint, total: NDArray[np.uint32]) -> Mean:
    try:
        return point.decode(total)
    except EncodingError as error:
        if total.shape != (point.length,) or not total.any():
            raise
        # Weights are added up exactly, and who has none adds zeros: somebody made the weights vanish.
        raise BeyondHonest("the sum is not nothing, and its weights sum to nothing") from error
