"""What the tests of randomness and noise share: sources that say what they are told, and chi-squared tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import special

from quire.privacy.csprng import Csprng
from quire.privacy.randomness import key

#: A correct sampler fails a test with this probability (over the choice of the seed, which is fixed).
FALSE_ALARM = 1e-7


def source(*labels: str | int) -> Csprng:
    return Csprng(key(1, "test", *labels))


class Scripted(Csprng):
    """A source whose words and bytes are given: to walk paths that chance takes once in 2**60 draws."""

    __slots__ = ("_bytes", "_words")

    def __init__(self, words: Sequence[int] = (), data: bytes = b"") -> None:
        super().__init__(bytes(32))
        self._words, self._bytes = list(words), data

    def uint64(self, count: int) -> NDArray[np.uint64]:
        taken, self._words = self._words[:count], self._words[count:]
        if len(taken) < count:
            raise IndexError("the script is at its end")
        return np.array(taken, dtype=np.uint64)

    def bytes(self, count: int) -> bytes:
        taken, self._bytes = self._bytes[:count], self._bytes[count:]
        if len(taken) < count:
            raise IndexError("the script is at its end")
        return taken

    @property
    def finished(self) -> bool:
        return not self._words and not self._bytes


def exact_pmf(variance: Fraction | float, radius: int) -> NDArray[np.float64]:
    """Return P(x) for x = -radius to radius, from the definition."""
    sigma2 = float(variance)
    weights = [math.exp(-x * x / (2 * sigma2)) for x in range(-radius, radius + 1)]
    total = math.fsum(weights)
    return np.array([weight / total for weight in weights])


def goodness(samples: NDArray[np.int64], variance: Fraction | float, bins: int = 64) -> float:
    """Return the p-value of a chi-squared test of samples against the exact discrete Gaussian.

    Integers are grouped into at most ``bins`` runs of about equal probability, in the order of their values.
    """
    radius = math.ceil(8 * math.sqrt(float(variance))) + 2
    cumulative = np.cumsum(exact_pmf(variance, radius))
    groups = np.minimum((cumulative * bins).astype(int), bins - 1)
    _, groups = np.unique(groups, return_inverse=True)
    expected = np.bincount(groups, weights=exact_pmf(variance, radius)) * len(samples)
    if np.abs(samples).max() > radius:
        return 0.0
    observed = np.bincount(groups[samples + radius], minlength=len(expected))
    return chi_squared(observed, expected)


def chi_squared(observed: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    keep = expected >= 5
    observed = np.append(observed[keep], observed[~keep].sum())
    expected = np.append(expected[keep], expected[~keep].sum())
    if expected[-1] < 5:
        observed = np.append(observed[:-2], observed[-2:].sum())
        expected = np.append(expected[:-2], expected[-2:].sum())
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(special.chdtrc(len(expected) - 1, statistic))
