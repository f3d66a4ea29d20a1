"""Rules that look at each coordinate by itself: median, trimmed mean, and the second half of Bulyan.

Pieces of a few thousand coordinates are laid out with the silos side by side, so that one vectorised sort serves a
piece, and everything stays in the processor's cache: no copy of all updates is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from quire.strategies.rounds import Arrays

_PIECE = 2048  # coordinates


def median(updates: Sequence[Arrays]) -> Arrays:
    """Return the median of each coordinate, float64; of an even number, the mean of the two in the middle.

    Yin et al. 2018, arXiv 1803.01498, definition 1.

    Parameters
    ----------
    updates : sequence of dict of str to numpy.ndarray
        Finite, all of one form. Not empty.
    """
    count = len(updates)
    return trimmed_mean(updates, (count - 1) // 2)


def trimmed_mean(updates: Sequence[Arrays], trimmed: int) -> Arrays:
    """Return the mean of each coordinate without its smallest and its largest values, float64.

    Yin et al. 2018, arXiv 1803.01498, definition 2.

    Parameters
    ----------
    updates : sequence of dict of str to numpy.ndarray
        Finite, all of one form.
    trimmed : int
        How many are left out at either end; fewer than half of the updates.
    """
    last = len(updates) - trimmed
    return _by_coordinate(updates, lambda piece: piece[:, trimmed:last].mean(axis=1, dtype=np.float64))


def mean_around_median(updates: Sequence[Arrays], kept: int) -> Arrays:
    """Return the mean of those values of each coordinate that are closest to its median, float64.

    El Mhamdi et al. 2018, arXiv 1802.07927, section 4. Of two sets that are as close, the one with smaller values.

    Parameters
    ----------
    updates : sequence of dict of str to numpy.ndarray
        Finite, all of one form.
    kept : int
        How many values of each coordinate are taken; at least 1, at most all.
    """
    return _by_coordinate(updates, lambda piece: _around_median(piece, kept))


def _around_median(piece: np.ndarray, kept: int) -> np.ndarray:
    # In sorted order the closest lie side by side: in the first stretch whose next value is no closer than its first.
    count = piece.shape[1]
    wide = piece.astype(np.float64)
    middle = wide[:, (count - 1) // 2 : count // 2 + 1].mean(axis=1)
    settled = np.ones((len(wide), count - kept + 1), dtype=bool)
    np.less_equal(middle[:, None] - wide[:, : count - kept], wide[:, kept:] - middle[:, None], out=settled[:, :-1])
    first = settled.argmax(axis=1)
    found: np.ndarray = np.take_along_axis(wide, first[:, None] + np.arange(kept), axis=1).mean(axis=1)
    return found


def _by_coordinate(updates: Sequence[Arrays], rule: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    """Apply a rule to the sorted values, shape (coordinates, updates), of one piece after the other."""
    found: Arrays = {}
    for name, first in updates[0].items():
        flat = [update[name].reshape(-1) for update in updates]
        result = np.empty(first.size)
        room = np.empty((min(_PIECE, first.size), len(flat)), np.result_type(first.dtype, np.float32))
        for start in range(0, first.size, _PIECE):
            piece = room[: min(_PIECE, first.size - start)]
            for silo, values in enumerate(flat):
                piece[:, silo] = values[start : start + _PIECE]
            piece.sort(axis=1)
            result[start : start + _PIECE] = rule(piece)
        found[name] = result.reshape(first.shape)
    return found
