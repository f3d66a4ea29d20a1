"""The rows of one silo, ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quire.errors import DataError


@dataclass(frozen=True, eq=False)
class Rows:
    """Features and labels of some rows.

    Attributes
    ----------
    x : numpy.ndarray of float32, shape (n, ...)
        Features, scaled; NaN where a value is missing, until :mod:`quire.clients.data.preprocess` has seen to it.
    y : numpy.ndarray of int64, shape (n,)
        Labels, counted from 0; float32 where a number is learned, scaled by its public bounds.
    places : numpy.ndarray of int64, shape (n,), or None
        Which rows of the silo's tables these are, where that matters: for :mod:`quire.clients.data.consent`.
    """

    x: np.ndarray
    y: np.ndarray
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows at these places."""
        return Rows(self.x[index], self.y[index], None if self.places is None else self.places[index])


@dataclass(frozen=True, eq=False)
class SiloData:
    """What one silo holds: rows to train on, rows kept for testing, and rows kept for choosing settings, if any."""

    train: Rows
    test: Rows
    validation: Rows | None = None

    @property
    def scored(self) -> Rows:
        """The rows on which each round's model is scored: those for validation where there are any, else the test rows.

        So with validation rows the test rows are not looked at before the run is over.
        """
        return self.test if self.validation is None else self.validation


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several silos in one place. For the simulator's pooled baseline only."""
    return Rows(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


def split(rows: Rows, test_fraction: float, rng: np.random.Generator) -> SiloData:
    """Keep a share of the rows for testing, class by class where there are classes.

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
    strata = rows.y if rows.y.dtype.kind == "i" else np.zeros(len(rows), dtype=np.int64)
    for label in np.unique(strata):
        places = rng.permutation(np.flatnonzero(strata == label))
        test_parts.append(places[: min(round(test_fraction * len(places)), len(places) - 1)])
    test = np.concatenate(test_parts)
    if len(test) == 0:
        test = rng.permutation(len(rows))[:1]
    is_test = np.zeros(len(rows), dtype=bool)
    is_test[test] = True
    return SiloData(train=rows.take(np.flatnonzero(~is_test)), test=rows.take(np.flatnonzero(is_test)))


def split_each(rows: Rows, fraction: float, key: bytes) -> tuple[Rows, Rows]:
    """Decide of each row by itself whether it is set aside, by a keyed hash of what is in it.

    Under differential privacy a split class by class, or by the places of rows, would not do: one record more would
    move others from one side to the other, and the promise to one record would be one to dozens.

    Parameters
    ----------
    rows : Rows
    fraction : float
        Probability of a row to be set aside, in [0, 1). Equal rows go to the same side.
    key : bytes

    Returns
    -------
    kept, aside : Rows
        In their order; either may be empty.
    """
    threshold = int(fraction * 2.0**64)
    aside = np.array(
        [
            int.from_bytes(hashlib.sha256(key + x.tobytes() + y.tobytes()).digest()[:8], "big") < threshold
            for x, y in zip(rows.x, rows.y, strict=True)
        ],
        dtype=bool,
    )
    return rows.take(np.flatnonzero(~aside)), rows.take(np.flatnonzero(aside))


def hold_out(silo: SiloData, fraction: float, rng: np.random.Generator) -> SiloData:
    """Move a share of a silo's training rows aside for validation, class by class; the test rows stay as they are.

    Parameters
    ----------
    silo : SiloData
    fraction : float
        Share of the training rows, in [0, 1). 0 moves none.
    rng : numpy.random.Generator
        Decides which rows.

    Raises
    ------
    DataError
        If there are fewer than two training rows.
    """
    if fraction == 0.0:
        return silo
    if len(silo.train) < 2:
        raise DataError("A silo has a single training row, so it cannot keep any for validation: give silos more rows.")
    parts = split(silo.train, fraction, rng)
    return SiloData(train=parts.train, test=silo.test, validation=parts.test)
