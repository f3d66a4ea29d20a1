"""The rows of one silo, ready to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Rows:
    """Features and labels of some rows.

    Attributes
    ----------
    x : numpy.ndarray of float32, shape (n, ...)
        Features, scaled.
    y : numpy.ndarray of int64, shape (n,)
        Labels, counted from 0.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows at these places."""
        return Rows(self.x[index], self.y[index])


@dataclass(frozen=True, eq=False)
class SiloData:
    """What one silo holds: rows to train on and rows kept for testing."""

    train: Rows
    test: Rows


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several silos in one place. For the simulator's pooled baseline only."""
    return Rows(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


def split(rows: Rows, test_fraction: float, rng: np.random.Generator) -> SiloData:
    """Keep a share of the rows for testing, class by class.

    Parameters
    ----------
    rows : Rows
    test_fraction : float
        Share of the rows to keep, in (0, 1). Of each class that has at least two rows, at least one row stays
        for training; at least one row in all goes to each side.
    rng : numpy.random.Generator
        Decides which rows.
    """
    test_parts = []
    for label in np.unique(rows.y):
        places = rng.permutation(np.flatnonzero(rows.y == label))
        test_parts.append(places[: min(round(test_fraction * len(places)), len(places) - 1)])
    test = np.concatenate(test_parts)
    if len(test) == 0:
        test = rng.permutation(len(rows))[:1]
    is_test = np.zeros(len(rows), dtype=bool)
    is_test[test] = True
    return SiloData(train=rows.take(np.flatnonzero(~is_test)), test=rows.take(np.flatnonzero(is_test)))
