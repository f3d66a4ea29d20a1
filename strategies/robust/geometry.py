"""Rules that look at how far updates lie apart: Krum, Bulyan's selection, geometric median, clipping around a centre.

All of them need inner products only. Those are taken once, in the matrix product that processors do best; points
between the updates are held as weights of them, so that an iteration costs no pass over the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quire.strategies.rounds import Arrays

_PIECE = 8192  # coordinates
# Products of float32 are good to about 1e-6 of the norms: distances below this share of them are taken anew in float64.
_RESOLVED = 1e-3
_TINY = 1e-25  # squares of single numbers may be lost to float32 below that
_SETTLED, _MOST_STEPS = 1e-10, 1000


def products(updates: Sequence[Arrays]) -> np.ndarray:
    """Return all inner products of updates, float64 of shape (n, n).

    Parameters
    ----------
    updates : sequence of dict of str to numpy.ndarray
        Finite, all of one form.

    Returns
    -------
    numpy.ndarray
        Good enough that every squared distance is right to one in a thousand, unless it is below the rounding of
        float64 products.
    """
    if all(array.dtype == np.float32 for array in updates[0].values()):
        with np.errstate(over="ignore", invalid="ignore"):
            found = _products(updates, np.dtype(np.float32))
            norms = np.diag(found)[:, None] + np.diag(found)[None, :]
            apart = (squared_distances(found) >= _RESOLVED * norms) & (norms > _TINY)
        np.fill_diagonal(apart, True)
        if apart.all() and np.isfinite(found).all():
            return found
    return _products(updates, np.dtype(np.float64))


def _products(updates: Sequence[Arrays], dtype: np.dtype[np.floating]) -> np.ndarray:
    total = np.zeros((len(updates), len(updates)))
    for name, first in updates[0].items():
        flat = [update[name].reshape(-1) for update in updates]
        room = np.empty((len(flat), min(_PIECE, first.size)), dtype)
        for start in range(0, first.size, _PIECE):
            piece = room[:, : min(_PIECE, first.size - start)]
            for silo, values in enumerate(flat):
                piece[silo] = values[start : start + _PIECE]
            total += piece @ piece.T
    return total


def squared_distances(gram: np.ndarray) -> np.ndarray:
    """Return the squared distances between updates whose inner products these are, float64 of shape (n, n)."""
    norms = np.diag(gram)
    apart: np.ndarray = np.maximum(norms[:, None] + norms[None, :] - 2.0 * gram, 0.0)
    np.fill_diagonal(apart, 0.0)
    return apart


def krum_scores(apart: np.ndarray, byzantine: int) -> np.ndarray:
    """Return Krum's score of each update: the sum of its squared distances to the n - f - 2 nearest others.

    Blanchard et al. 2017, arXiv 1703.02757, section 4.

    Parameters
    ----------
    apart : numpy.ndarray
        Squared distances, shape (n, n).
    byzantine : int
        f. With fewer than f + 3 updates the nearest one alone counts.

    Returns
    -------
    numpy.ndarray
        float64, shape (n,).
    """
    nearest = max(1, len(apart) - byzantine - 2)
    # Each is nearest to itself, at a distance of 0.
    found: np.ndarray = np.sort(apart, axis=1)[:, : nearest + 1].sum(axis=1)
    return found


def krum(apart: np.ndarray, byzantine: int, kept: int) -> list[int]:
    """Return the places of the updates with the lowest scores, in ascending order; ties go to the earlier place."""
    best = np.argsort(krum_scores(apart, byzantine), kind="stable")[:kept]
    return sorted(int(place) for place in best)


def bulyan_choice(apart: np.ndarray, byzantine: int) -> list[int]:
    """Return the n - 2f places that Bulyan goes on with: Krum's choice, again and again among those that are left.

    El Mhamdi et al. 2018, arXiv 1802.07927, section 4.

    Parameters
    ----------
    apart : numpy.ndarray
        Squared distances, shape (n, n), n at least 4f + 3.
    byzantine : int
        f.
    """
    left, chosen = list(range(len(apart))), list[int]()
    while len(chosen) < len(apart) - 2 * byzantine:
        scores = krum_scores(apart[np.ix_(left, left)], byzantine)
        chosen.append(left.pop(int(scores.argmin())))
    return sorted(chosen)


def geometric_median(gram: np.ndarray) -> np.ndarray:
    """Return the weights of updates whose mean is their geometric median, float64 of shape (n,), which sum to 1.

    Weiszfeld's algorithm, smoothed (Pillutla et al. 2022, arXiv 1912.13445, algorithm 2), until weights move by less
    than 1e-10.

    Parameters
    ----------
    gram : numpy.ndarray
        Inner products, shape (n, n).
    """
    apart = squared_distances(gram)
    halfway = np.median(apart, axis=1)
    # From the middle of the closer half: from that of all, giants would have to be forgotten first, step by step.
    middle = int(halfway.argmin())
    closer = np.argsort(apart[middle], kind="stable")[: len(gram) // 2 + 1]
    weights = np.zeros(len(gram))
    weights[closer] = 1.0 / len(closer)
    floor = max(1e-12 * float(halfway[middle]), np.finfo(np.float64).tiny)
    for _ in range(_MOST_STEPS):
        nearness = 1.0 / np.sqrt(np.maximum(_from_point(gram, weights), floor))
        after = nearness / nearness.sum()
        moved = float(np.abs(after - weights).max())
        weights = after
        if moved < _SETTLED:
            break
    return weights


def clipped_around(gram: np.ndarray, radius: float | None, steps: int) -> np.ndarray:
    """Return weights of a centre, which is the last place, and of updates: those clipped around it, and it moved.

    Centred clipping (Karimireddy et al. 2021, arXiv 2012.10333, algorithm 2): in each step the centre goes by the mean
    of the updates' differences from it, each cut to the radius.

    Parameters
    ----------
    gram : numpy.ndarray
        Inner products of n updates and the centre, shape (n + 1, n + 1).
    radius : float or None
        None: in each step the median of the distances from the centre, so that half of the updates are cut.
    steps : int

    Returns
    -------
    numpy.ndarray
        float64, shape (n + 1,); they sum to 1.
    """
    count = len(gram) - 1
    weights = np.zeros(count + 1)
    weights[-1] = 1.0
    for _ in range(steps):
        apart = np.sqrt(_from_point(gram, weights)[:count])
        reach = float(np.median(apart)) if radius is None else radius
        shares = np.ones(count)
        np.divide(reach, apart, out=shares, where=apart > reach)
        weights = weights * (1.0 - shares.mean())
        weights[:count] += shares / count
    return weights


def _from_point(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the squared distances of updates from the point that is their mean with these weights."""
    along = gram @ weights
    found: np.ndarray = np.maximum(np.diag(gram) - 2.0 * along + weights @ along, 0.0)
    return found
