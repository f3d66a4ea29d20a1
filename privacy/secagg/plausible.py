"""How large a sum of weighted updates can be at all; :mod:`quire.privacy.dp.plausible` has it for distributed noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.wire import centred
from quire.privacy.secagg.fixedpoint import METRIC_BITS, FixedPoint


def check_sum(point: FixedPoint, total: NDArray[np.uint32]) -> None:
    """Refuse a sum that honest silos cannot have come to.

    A silo of weight ``w`` adds a whole number of magnitude at most ``limit w / max_weight + 1`` to each coordinate, the
    one being for rounding; so the sum of all stays within ``limit W / max_weight + parties``, where ``W`` is the sum of
    the weights that stands in it. The mean of the updates is then within the agreed bound, but for rounding. The same
    goes for the means beside it.

    Parameters
    ----------
    point : FixedPoint
    total : numpy.ndarray of uint32, shape (point.length,)

    Raises
    ------
    EncodingError
        If something is larger than that, or the sum has no mean or another number of words.
    """
    mean = point.decode(total)
    if mean.weight > point.parties * point.max_weight:
        raise EncodingError(f"{point.parties} silos do not weigh {mean.weight} together")
    largest = int(np.abs(centred(total, point.bits)[: point.body]).max(initial=0))
    if largest * point.max_weight > point.limit * mean.weight + point.parties * point.max_weight:
        raise EncodingError(
            "a coordinate of the sum is larger than aggregation.bound allows for its weights: somebody adds what no "
            "honest silo adds"
        )
    # Half a level of rounding for each silo, at the least weight there is.
    rounding = 2.0 * point.parties * point.max_weight / (2.0**METRIC_BITS * mean.weight) + 2.0**-40
    for name, bound in point.metrics:
        if abs(mean.metrics[name]) > bound * (1.0 + rounding):
            raise EncodingError(f"the mean of '{name}' is beyond what one silo may tell")
