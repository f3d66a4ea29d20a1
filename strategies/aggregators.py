"""Aggregators: how the updates of a cohort become one mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quire.strategies.rounds import Aggregator, Arrays, Cohort, Update

_PIECE = 16_384  # numbers


@dataclass(frozen=True)
class PlainMean(Aggregator):
    """The mean weighted by rows, of updates that the server sees one by one.

    Sums run in float64 and in the order given, so that equal inputs give equal bits in every runtime.
    """

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return sum(weight * update) / sum(weight), float64."""
        total = sum(update.weight for update in updates)
        shares = [update.weight / total for update in updates]
        return {name: _weighted_sum([update.arrays[name] for update in updates], shares) for name in updates[0].arrays}


def _weighted_sum(arrays: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    # Piece by piece, so that the sum and its scratch space stay in the processor's cache.
    flat = [array.reshape(-1) for array in arrays]
    result = np.zeros(flat[0].size)
    scratch = np.empty(min(_PIECE, flat[0].size))
    for start in range(0, flat[0].size, _PIECE):
        piece = result[start : start + _PIECE]
        term = scratch[: len(piece)]
        for array, share in zip(flat, shares, strict=True):
            term[:] = array[start : start + _PIECE]
            term *= share
            piece += term
    return result.reshape(arrays[0].shape)
