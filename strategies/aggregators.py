"""Aggregators: how the updates of a cohort become one mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quire.strategies.rounds import Arrays, Update


@dataclass(frozen=True)
class PlainMean:
    """The mean weighted by rows, of updates that the server sees one by one.

    Sums run in float64 and in the order given, so that equal inputs give equal bits in every runtime.
    """

    def mean(self, updates: Sequence[Update]) -> Arrays:
        """Return sum(weight * update) / sum(weight), float64."""
        total = sum(update.weight for update in updates)
        mean = {name: np.zeros(array.shape, np.float64) for name, array in updates[0].arrays.items()}
        for update in updates:
            share = update.weight / total
            for name, accumulator in mean.items():
                accumulator += np.multiply(update.arrays[name], share, dtype=np.float64)
        return mean
