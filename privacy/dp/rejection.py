"""The discrete Gaussian of Canonne, Kamath and Steinke (2020), drawn exactly and slowly, as the yardstick.

Every step compares integers with uniform random integers; no floating-point number occurs, so the distribution is
the stated one without any error. Algorithms 1 to 3 of https://arxiv.org/abs/2004.00010. A sample takes tens of
microseconds; :mod:`quire.privacy.dp.discrete_gaussian`, which is held against this, is thousands of times faster.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng


def bernoulli_exp(numerator: int, denominator: int, source: Csprng) -> bool:
    """Draw an event of probability exp(-numerator/denominator), exactly (Algorithm 1).

    Parameters
    ----------
    numerator, denominator : int
        Of a rational number that is not negative.
    source : quire.privacy.csprng.Csprng
    """
    while numerator > denominator:
        if not continue_bernoulli_exp(1, 1, 1, source):
            return False
        numerator -= denominator
    return continue_bernoulli_exp(numerator, denominator, 1, source)


def continue_bernoulli_exp(numerator: int, denominator: int, first: int, source: Csprng) -> bool:
    """Finish Algorithm 1 for an exponent in [0, 1], after its first ``first - 1`` inner trials succeeded.

    The inner trial k succeeds with probability ``numerator / (denominator * k)``; the answer is whether the first
    trial that fails has an odd number.
    """
    trial = first
    while source.below(denominator * trial) < numerator:
        trial += 1
    return trial % 2 == 1


def discrete_laplace(scale: int, source: Csprng, steps: int = 1) -> int:
    """Draw an integer x with probability proportional to exp(-abs(x) * steps / scale) (Algorithm 2)."""
    while True:
        remainder = source.below(scale)
        if not continue_bernoulli_exp(remainder, scale, 1, source):
            continue
        whole = 0
        while continue_bernoulli_exp(1, 1, 1, source):
            whole += 1
        magnitude = (remainder + scale * whole) // steps
        negative = bool(source.below(2))
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude


def sample_by_rejection(variance: int | Fraction, count: int, source: Csprng) -> NDArray[np.int64]:
    """Draw from the discrete Gaussian N_Z(0, variance) (Algorithm 3): P(x) proportional to exp(-x^2/(2 variance)).

    Parameters
    ----------
    variance : int or fractions.Fraction
        The parameter sigma^2, greater than 0.
    count : int
    source : quire.privacy.csprng.Csprng
    """
    sigma2 = Fraction(variance)
    scale = isqrt(sigma2.numerator // sigma2.denominator) + 1
    result = np.empty(count, dtype=np.int64)
    for position in range(count):
        while True:
            proposal = discrete_laplace(scale, source)
            exponent = (abs(proposal) - sigma2 / scale) ** 2 / (2 * sigma2)
            if bernoulli_exp(exponent.numerator, exponent.denominator, source):
                break
        result[position] = proposal
    return result
