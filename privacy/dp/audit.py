"""Lower bounds of epsilon from what a mechanism released: they can refute a claim, never prove one.

Canaries are put in or left out by fair coins; whoever can tell from the released model which were in has shown that
epsilon is at least so large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from quire.privacy.dp.contract import PrivacyError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SHARES = (0.05, 0.2, 1.0)
"""Shares of the canaries that are guessed at, the others abstained from. Each is one look at the data and has to be
paid for, so they are few: the first two serve 10,000 canaries at epsilon 2 to 6, the last serves few canaries."""

_HIGHEST = 50.0  # an epsilon beyond which nothing is distinguished
_APART = 1e3  # deviations between the means beyond which epsilon (about 500,000) counts as infinite


@dataclass(frozen=True)
class LowerBound:
    """What an audit found.

    Attributes
    ----------
    epsilon : float
        With the stated confidence the mechanism's epsilon is at least this; 0 if nothing was found.
    canaries, guesses, correct : int
        How many canaries there were, at how many was guessed, how many guesses were right; the Gaussian estimator
        does not guess (0).
    highest : float
        The bound if every guess had been right: a claim above it cannot be refuted with so few canaries.
    """

    epsilon: float
    canaries: int
    guesses: int = 0
    correct: int = 0
    highest: float = math.inf


def p_value(epsilon: float, delta: float, canaries: int, guesses: int, correct: int) -> float:
    """Bound the probability that an (epsilon, delta) mechanism allows so many right guesses, or more.

    Steinke, Nasr and Jagielski (2023), theorem 5.2 with section 5.1: with B ~ Binomial(guesses, e^eps / (1 + e^eps)),
    ``P[B >= v] + 2 m delta max over 1 <= i <= v of P[v - i <= B < v] / i``.

    Parameters
    ----------
    epsilon, delta : float
    canaries : int
        ``m``: the fair coins that were thrown.
    guesses : int
        Canaries guessed at; the rest were abstained from.
    correct : int
        ``v``: right guesses.

    Returns
    -------
    float
        In [0, 1].
    """
    from scipy.special import bdtrc, expit
    from scipy.stats import binom

    if not 0 <= correct <= guesses <= canaries:
        raise PrivacyError(f"{correct} of {guesses} guesses right out of {canaries} canaries cannot be.")
    if correct == 0:
        return 1.0
    chance = float(expit(epsilon))
    tail = float(bdtrc(correct - 1, guesses, chance))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, chance))
    worst = float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, tail + 2 * canaries * delta * worst)


@lru_cache(maxsize=4096)
def bound_of_guesses(delta: float, canaries: int, guesses: int, correct: int, error: float = 0.05) -> float:
    """Return the largest epsilon that so many right guesses refute, at an error probability.

    Returns
    -------
    float
        In [0, 50]; 0 if not even epsilon = 0 is refuted. The p-value grows with epsilon only almost everywhere, so
        the first epsilon from below that is *not* refuted ends the search: what is returned is never too large.
    """
    grid = np.concatenate([np.arange(0.0, 12.0, 0.25), np.arange(12.0, _HIGHEST, 1.0)])
    low: float | None = None
    high = _HIGHEST
    for candidate in grid.tolist():
        if p_value(float(candidate), delta, canaries, guesses, correct) >= error:
            high = float(candidate)
            break
        low = float(candidate)
    if low is None:
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if p_value(middle, delta, canaries, guesses, correct) < error:
            low = middle
        else:
            high = middle
    return low


def one_run(
    scores: ArrayLike,
    included: ArrayLike,
    delta: float,
    confidence: float = 0.95,
    shares: Sequence[float] = SHARES,
) -> LowerBound:
    """Audit one run: guess "in" for the highest scores and "out" for the lowest, abstain between.

    Parameters
    ----------
    scores : array_like of float, shape (m,)
        One score per canary, from what was released only; higher where the canary was more likely in.
    included : array_like of bool, shape (m,)
        The coins: fair, and independent of each other and of everything else.
    delta : float
        In [0, 1).
    confidence : float
        Probability with which the bound holds; the looks at several shares are paid for (Bonferroni).
    shares : sequence of float
        Shares of the canaries guessed at.

    Returns
    -------
    LowerBound

    Raises
    ------
    PrivacyError
        For other shapes, no canaries, or a score that is NaN.

    Notes
    -----
    Steinke, Nasr and Jagielski (2023), "Privacy auditing with one (1) training run", algorithm 1.
    """
    score, coin = _checked(scores, included)
    order = np.argsort(score, kind="stable")
    error = (1 - confidence) / len(shares)
    best = LowerBound(0.0, len(score), highest=0.0)
    for share in shares:
        half = max(1, round(share * len(score) / 2))
        guesses = min(2 * half, len(score) - len(score) % 2)
        half = guesses // 2
        correct = int(coin[order[len(score) - half :]].sum() + (~coin[order[:half]]).sum())
        found = bound_of_guesses(delta, len(score), guesses, correct, error)
        highest = max(best.highest, bound_of_guesses(delta, len(score), guesses, guesses, error))
        if found > best.epsilon or best.guesses == 0:
            best = LowerBound(found, len(score), guesses, correct, highest)
        else:
            best = LowerBound(best.epsilon, len(score), best.guesses, best.correct, highest)
    return best


def gaussian(scores: ArrayLike, included: ArrayLike, delta: float, confidence: float = 0.95) -> LowerBound:
    """Estimate epsilon where scores are Gaussian with one variance, as those of Dirac canaries at rate 1 are.

    ``mu = (mean in - mean out) / sd``, and ``mu / sqrt(1/n_in + 1/n_out)`` is distributed as a noncentral t with m - 2
    degrees of freedom: inverting its distribution gives the exact one-sided lower limit of mu, for few canaries too.
    epsilon is that of mu-GDP at delta (Dong, Roth and Su 2022, corollary 2.13). More powerful than :func:`one_run`,
    and valid only under its assumption.

    Parameters
    ----------
    scores, included, delta, confidence
        As in :func:`one_run`.

    Returns
    -------
    LowerBound
        Infinite if the two groups are apart and neither varies.
    """
    from dp_accounting import get_epsilon_gaussian

    score, coin = _checked(scores, included)
    inside, outside = score[coin], score[~coin]
    if len(inside) < 2 or len(outside) < 2:
        raise PrivacyError("The Gaussian estimator needs at least two canaries in and two out.")
    gap = float(inside.mean() - outside.mean())
    squares = float(((inside - inside.mean()) ** 2).sum() + ((outside - outside.mean()) ** 2).sum())
    deviation = math.sqrt(squares / (len(score) - 2))
    if deviation == 0:
        return LowerBound(math.inf if gap > 0 else 0.0, len(score))
    spread = math.sqrt(1 / len(inside) + 1 / len(outside))
    least = spread * _least_shift(gap / deviation / spread, len(score) - 2, 1 - confidence)
    if least <= 0:
        return LowerBound(0.0, len(score))
    if least > _APART:
        return LowerBound(math.inf, len(score))
    return LowerBound(float(get_epsilon_gaussian(1 / least, delta)), len(score))


def _least_shift(t: float, freedom: int, error: float) -> float:
    """Return the noncentrality below which a noncentral t variable reaches ``t`` with probability less than ``error``.

    0 if even without a shift it does so more often.
    """
    from scipy.optimize import brentq

    def excess(shift: float) -> float:
        return _tail(t, freedom, shift) - error

    if t <= 0 or excess(0.0) >= 0:
        return 0.0
    high = t
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high, rtol=1e-9))


def _tail(t: float, freedom: int, shift: float) -> float:
    """Return P[(Z + shift) / S >= t], Z standard normal, S**2 chi-squared over its degrees of freedom; t above 0.

    Integrated over whichever of Z and S leaves the smoother integrand, which is good at any size of t, and where
    series for the noncentral t underflow.
    """
    from scipy.special import chdtr, ndtr
    from scipy.stats import chi

    nodes, weights = _legendre()
    if t < math.sqrt(2 * freedom):
        low, high = chi.ppf([1e-15, 1 - 1e-15], freedom)
        place = low + (high - low) * nodes
        mass = (high - low) * weights * chi.pdf(place, freedom)
        return float(mass @ ndtr(shift - t * place / math.sqrt(freedom)))
    place = 18.0 * nodes - 9.0
    mass = 18.0 * weights * np.exp(-(place**2) / 2) / math.sqrt(2 * math.pi)
    return float(mass @ chdtr(freedom, freedom * (np.maximum(place + shift, 0.0) / t) ** 2))


@lru_cache(maxsize=1)
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights of Gauss and Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return (nodes + 1) / 2, weights / 2


def _checked(scores: ArrayLike, included: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    score = np.asarray(scores, dtype=np.float64)
    coin = np.asarray(included, dtype=np.bool_)
    if score.ndim != 1 or score.shape != coin.shape or len(score) < 2:
        raise PrivacyError(f"An audit needs one score and one coin for each canary, not {score.shape}, {coin.shape}.")
    if np.isnan(score).any():
        raise PrivacyError("A canary's score is NaN: nothing can be concluded from it.")
    return score, coin
