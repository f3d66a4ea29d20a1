"""Was this record among those trained on? A threshold on one number, and LiRA, which knows what to expect of it.

Carlini et al. 2022, *Membership inference attacks from first principles*, arXiv 2112.03570. Shadow models, trained as
the attacked one is on random halves of the same records, show how a record's confidence is spread where it was among
those trained on and where it was not; a test of likelihoods then tells which of the two the attacked model is like.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm

from quire.privacy.attacks.roc import Flags, Scores

#: With fewer shadows than this on either side of a record, all records share one spread (section 6.2 of the paper).
FEW = 32
_LEAST = 1e-6


def confidence(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> Scores:
    """Return the logit-scaled confidence in the right class, log p/(1 - p), of each row (section 6.1).

    Computed from logits, so that it stays finite where p is 1 in floating point.

    Parameters
    ----------
    logits : numpy.ndarray, shape (n, classes), or (n, 1) for two classes
    labels : numpy.ndarray of int64, shape (n,)
    """
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        return np.asarray(np.where(labels == 1, wide[:, 0], -wide[:, 0]))
    own = wide[np.arange(len(labels)), labels]
    others = wide.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(own - logsumexp(others, axis=1))


def online(observed: Scores, shadows: NDArray[np.float64], trained: Flags) -> Scores:
    """Return LiRA's log-likelihood ratio of each record: above 0 it was rather trained on than not.

    Algorithm 1 of the paper, with a Gaussian for either case.

    Parameters
    ----------
    observed : numpy.ndarray of float64, shape (n,)
        The statistic of each record under attack.
    shadows : numpy.ndarray of float64, shape (m, n)
        The same statistic at each shadow.
    trained : numpy.ndarray of bool, shape (m, n)
        Whether the shadow was trained on the record.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        0 for a record that no shadow, or every shadow, was trained on.
    """
    (mean_in, spread_in), (mean_out, spread_out) = _fit(shadows, trained), _fit(shadows, ~trained)
    known = trained.any(axis=0) & ~trained.all(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = norm.logpdf(observed, mean_in, spread_in) - norm.logpdf(observed, mean_out, spread_out)
    return np.where(known, ratio, 0.0)


def offline(observed: Scores, shadows: NDArray[np.float64], trained: Flags) -> Scores:
    """Return LiRA's one-sided test of each record, from shadows that were *not* trained on it (section 4.4).

    Parameters
    ----------
    observed, shadows, trained
        As for :func:`online`.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        By how many spreads the record is better known than if it had not been trained on.
    """
    mean, spread = _fit(shadows, ~trained)
    return np.where((~trained).any(axis=0), (observed - mean) / spread, 0.0)


def _fit(values: NDArray[np.float64], chosen: Flags) -> tuple[Scores, Scores]:
    """Return mean and standard deviation of each column's chosen values."""
    count = chosen.sum(axis=0)
    some = np.maximum(count, 1)
    mean = np.where(chosen, values, 0.0).sum(axis=0) / some
    squares = np.where(chosen, (values - mean) ** 2, 0.0).sum(axis=0)
    # One spread for all, by the degrees of freedom that are left, where a record's own would be a guess.
    shared = squares.sum() / max(1, int((count - 1).clip(min=0).sum()))
    own = squares / np.maximum(count - 1, 1)
    variance = np.where(count >= FEW, own, shared)
    return mean, np.sqrt(np.maximum(variance, _LEAST**2))
