"""Aggregators: how the updates of a cohort become one mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from quire.strategies.rounds import Aggregator, Arrays, Cohort, Update

# Numbers: a piece of the sum and its scratch space stay in the processor's cache. Threads take larger ones, for before
# each operation on a piece they wait for one another.
_PIECE, _PIECE_OF_THREADS = 32_768, 131_072
_AT_ONCE = 8  # updates that are held until the sum is gone through once for all of them
_WORTH_THREADS = 1_000_000  # numbers
_SCALE = 2.0**-40  # of weights; exact, and keeps the sum of float64 updates from overflowing before it is divided


class RunningMean:
    """The mean weighted by rows, folded in place as updates come; at most eight of them are held at a time.

    It is sum(weight * update) / sum(weight). Every number is summed in float64 and in the order of :meth:`add`, however
    updates are grouped and however many threads there are, so that equal inputs give equal bits in every runtime.
    """

    def __init__(self) -> None:
        self._held: list[Update] = []
        self._sums: Arrays = {}
        self._total = 0.0

    def add(self, update: Update) -> None:
        """Take the next update in, of the same form as those before."""
        self._held.append(update)
        self._total += update.weight
        if len(self._held) == _AT_ONCE:
            self._fold()

    def mean(self) -> Arrays:
        """Return the mean, float64, and be empty again."""
        self._fold()
        means, total = self._sums, self._total * _SCALE
        for sums in means.values():
            np.divide(sums, total, out=sums)
        self._sums, self._total = {}, 0.0
        return means

    def _fold(self) -> None:
        if not self._held:
            return
        weights = [update.weight * _SCALE for update in self._held]
        for name, first in self._held[0].arrays.items():
            sums = self._sums.setdefault(name, np.zeros(first.shape))
            _add(sums.reshape(-1), [update.arrays[name].reshape(-1) for update in self._held], weights)
        self._held = []


@dataclass(frozen=True)
class PlainMean(Aggregator):
    """The mean weighted by rows, of updates that the server sees one by one."""

    def fold(self) -> RunningMean:
        """Return a mean that takes updates in as they come."""
        return RunningMean()

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return sum(weight * update) / sum(weight), float64."""
        running = self.fold()
        for update in updates:
            running.add(update)
        return running.mean()


def _add(sums: np.ndarray, arrays: Sequence[np.ndarray], weights: Sequence[float]) -> None:
    """Add weight * array, array after array, in place; large ones in as many threads as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if sums.size < _WORTH_THREADS or cores < 2:
        _add_part(sums, arrays, weights, 0, sums.size, _PIECE)
        return
    share = -(-sums.size // cores)
    with ThreadPoolExecutor(cores) as pool:
        parts = [
            pool.submit(_add_part, sums, arrays, weights, start, min(start + share, sums.size), _PIECE_OF_THREADS)
            for start in range(0, sums.size, share)
        ]
    for part in parts:
        part.result()


def _add_part(
    sums: np.ndarray, arrays: Sequence[np.ndarray], weights: Sequence[float], start: int, end: int, width: int
) -> None:
    scratch = np.empty(min(width, end - start))
    for low in range(start, end, width):
        piece = sums[low : min(low + width, end)]
        term = scratch[: len(piece)]
        for array, weight in zip(arrays, weights, strict=True):
            term[:] = array[low : low + len(piece)]
            term *= weight
            piece += term
