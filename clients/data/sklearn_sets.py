"""Data sets that ship inside scikit-learn: no download, no account."""

from __future__ import annotations

import numpy as np

from quire.clients.data.silo import Rows
from quire.clients.tasks import DIABETES_BOUNDS
from quire.conf.schema import SklearnData

# Lower and upper bounds of the thirty features, as printed in the data set's own published description. They are
# public constants: scaling by them tells nothing about the rows of any silo.
_BREAST_CANCER_LOW = [
    *[6.981, 9.71, 43.79, 143.5, 0.053, 0.019, 0.0, 0.0, 0.106, 0.05],
    *[0.112, 0.36, 0.757, 6.802, 0.002, 0.002, 0.0, 0.0, 0.008, 0.001],
    *[7.93, 12.02, 50.41, 185.2, 0.071, 0.027, 0.0, 0.0, 0.156, 0.055],
]
_BREAST_CANCER_HIGH = [
    *[28.11, 39.28, 188.5, 2501.0, 0.163, 0.345, 0.427, 0.201, 0.304, 0.097],
    *[2.873, 4.885, 21.98, 542.2, 0.031, 0.135, 0.396, 0.053, 0.079, 0.03],
    *[36.04, 49.54, 251.2, 4254.0, 0.223, 1.058, 1.252, 0.291, 0.664, 0.208],
]


# Of age, sex, body mass index, blood pressure and six blood serum measurements, in their own units.
_DIABETES_LOW = [19.0, 1.0, 18.0, 62.0, 97.0, 41.6, 22.0, 2.0, 3.2581, 58.0]
_DIABETES_HIGH = [79.0, 2.0, 42.2, 133.0, 301.0, 242.4, 99.0, 9.09, 6.107, 124.0]


def load(settings: SklearnData) -> Rows:
    """Load all rows of a data set, features scaled to [-1, 1] by public bounds.

    Label 1 of ``breast_cancer`` is malignant, the finding that a test must not miss. The target of ``diabetes`` is a
    number, scaled to [-1, 1] by public bounds too.
    """
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

    if settings.dataset == "digits":
        bunch = load_digits()
        return Rows(scale(bunch.data, np.zeros(64), np.full(64, 16.0)), bunch.target.astype(np.int64))
    if settings.dataset == "diabetes":
        bunch = load_diabetes(scaled=False)
        x = scale(bunch.data, np.array(_DIABETES_LOW), np.array(_DIABETES_HIGH))
        return Rows(x, scale(bunch.target, *map(np.array, DIABETES_BOUNDS)))
    bunch = load_breast_cancer()
    x = scale(bunch.data, np.array(_BREAST_CANCER_LOW), np.array(_BREAST_CANCER_HIGH))
    return Rows(x, 1 - bunch.target.astype(np.int64))


def scale(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Scale features from [low, high] to [-1, 1]; values outside the bounds are clipped to them.

    Parameters
    ----------
    x : numpy.ndarray, shape (n, d), or (n,)
    low, high : numpy.ndarray, shape (d,), or ()
        Public bounds.

    Returns
    -------
    numpy.ndarray of float32, shape (n, d)
    """
    unit = (np.clip(x, low, high) - low) / (high - low)
    return np.asarray(2.0 * unit - 1.0, dtype=np.float32)
