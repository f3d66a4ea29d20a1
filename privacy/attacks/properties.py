"""Properties of a whole data set from what training on it sends: a regression learned on data sets of one's own.

The shadow data sets of Ateniese et al. 2015 (arXiv 1306.4447) and Melis et al. 2019 (arXiv 1805.04049, section 5), with
shares of classes as the property and a ridge regression as the classifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear regression with its penalty chosen by generalised cross-validation.

    Attributes
    ----------
    mean, spread : numpy.ndarray of float64, shape (features,)
    centre : numpy.ndarray of float64, shape (targets,)
    slopes : numpy.ndarray of float64, shape (features, targets)
    """

    mean: Numbers
    spread: Numbers
    centre: Numbers
    slopes: Numbers

    def predict(self, x: Numbers) -> Numbers:
        """Return predictions, shape (n, targets)."""
        return np.asarray(self.centre + (x - self.mean) / self.spread @ self.slopes)


def fit(x: Numbers, y: Numbers) -> Ridge:
    """Fit a ridge regression; of penalties over eight decades the one with the least cross-validated error.

    Parameters
    ----------
    x : numpy.ndarray of float64, shape (n, features)
    y : numpy.ndarray of float64, shape (n, targets)

    Raises
    ------
    ValueError
        If there are fewer than two rows.
    """
    if len(x) < 2 or len(x) != len(y):
        raise ValueError("a regression takes at least two rows, and as many targets")
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
    centre = y.mean(axis=0)
    left, values, right = np.linalg.svd((x - mean) / spread, full_matrices=False)
    turned = left.T @ (y - centre)
    best, least = np.zeros((x.shape[1], y.shape[1])), np.inf
    for penalty in len(x) * 10.0 ** np.arange(-5, 4):
        kept = values**2 / (values**2 + penalty)
        rest = y - centre - left @ (kept[:, None] * turned)
        error = float((rest**2).sum()) / (1.0 - (1.0 + kept.sum()) / len(x)) ** 2 if kept.sum() < len(x) - 1 else np.inf
        if error < least:
            best, least = right.T @ ((kept / np.maximum(values, 1e-300))[:, None] * turned), error
    return Ridge(mean, spread, centre, best)


def as_shares(values: Numbers) -> Numbers:
    """Return the nearest shares (none below 0, together 1) to each row of numbers.

    The projection onto the simplex, as in Duchi et al. 2008 (10.1145/1390156.1390191), figure 1.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (n, classes)
    """
    ordered = -np.sort(-values, axis=1)
    excess = np.cumsum(ordered, axis=1) - 1.0
    counts = np.arange(1, values.shape[1] + 1)
    last = (ordered - excess / counts > 0).sum(axis=1)
    level = excess[np.arange(len(values)), last - 1] / last
    return np.asarray(np.maximum(values - level[:, None], 0.0))


def distance(some: Numbers, others: Numbers) -> Numbers:
    """Return the total variation distance of shares, row by row: 0 alike, 1 nothing in common."""
    return np.asarray(np.abs(some - others).sum(axis=-1) / 2)
