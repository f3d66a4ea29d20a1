"""Is it the noise that was promised? Opened sums of silos that added nothing but their shares, held against the law.

Such a sum is a discrete Gaussian of a known variance in every coordinate, for sums of discrete Gaussian shares are as
good as one (:data:`quire.privacy.dp.distributed.DIVERGENCE`), and independent from coordinate to coordinate and from
round to round. Five questions are asked, each with its part of ``FALSE_ALARM``, so that of noise as promised one
self-test in a thousand says otherwise. It finds broken code; a party that does right in self-tests alone is not found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, chdtrc, chdtri, ndtr, ndtri, stdtr, stdtrit

from quire.privacy.dp.contract import PrivacyError

#: Probability that a self-test says otherwise of noise as it was promised.
FALSE_ALARM = 1e-3
#: What is said to be found is found with this probability.
POWER = 0.999
#: Fewest numbers in a sum: below, the approximations behind the questions are too coarse for their levels.
FEWEST = 256

_CELLS = 32
_EXACT = 1 << 16  # deviations up to which cells get their mass number by number; a normal law is as good beyond
_QUESTIONS = 5


class SelftestError(PrivacyError):
    """Sums that cannot be tested."""


@dataclass(frozen=True)
class Question:
    """One question to the noise, and its answer.

    Attributes
    ----------
    name : str
        ``mean``, ``variance``, ``shape``, ``tails`` or ``rounds``.
    found, promised : float
        Mean in standard deviations of a coordinate; variance over the promised one; chi-squared of the cells over its
        degrees of freedom; kurtosis; the correlation of two rounds that is furthest from 0.
    p : float
        How likely so large a deviation is for noise as promised, of all that the question looked at together.
    level : float
        Below which ``p`` is an alarm.
    shows : float or None
        The deviation that would have been found in 999 of 1,000 self-tests like this one; None where none is worked
        out.
    words : str
        What an alarm means.
    """

    name: str
    found: float
    promised: float
    p: float
    level: float
    shows: float | None
    words: str

    @property
    def alarm(self) -> bool:
        """Whether the noise is not as it was promised."""
        return self.p < self.level


@dataclass(frozen=True)
class Selftest:
    """What a self-test found.

    Attributes
    ----------
    rounds, length : int
        Opened sums, and numbers in each.
    questions : tuple of Question
    """

    rounds: int
    length: int
    questions: tuple[Question, ...]

    @property
    def passed(self) -> bool:
        """Whether the noise is as promised, as far as this can show."""
        return not any(question.alarm for question in self.questions)

    def verdict(self) -> str:
        """Say in one sentence what follows."""
        wrong = [question.words for question in self.questions if question.alarm]
        if wrong:
            return f"The noise is not as promised: {'; '.join(wrong)}."
        return (
            f"The noise is as promised: {self.rounds} opened sums of {self.length} numbers differ from it by no more "
            f"than chance allows; of noise as promised, one self-test in {1 / FALSE_ALARM:,.0f} says otherwise."
        )


def selftest(sums: Sequence[NDArray[np.int64]], variances: Sequence[int]) -> Selftest:
    """Hold opened sums of noise alone against what was promised.

    Parameters
    ----------
    sums : sequence of numpy.ndarray of int64, shape (length,)
        One for each round, in integer units.
    variances : sequence of int
        The promised variance of each round's numbers: that of one share times the number of parties in the sum.

    Raises
    ------
    SelftestError
        If there is nothing to test, or the sums do not go together.
    """
    lengths = {len(one) for one in sums}
    if not sums or len(sums) != len(variances) or len(lengths) != 1 or min(lengths) < FEWEST or min(variances) < 1:
        raise SelftestError(
            f"A self-test needs sums of one length, at least {FEWEST}, and a promised variance above 0 for each."
        )
    scaled = [one.astype(np.float64) / math.sqrt(variance) for one, variance in zip(sums, variances, strict=True)]
    whole, level = np.concatenate(scaled), FALSE_ALARM / _QUESTIONS
    questions = [_mean(whole, level), _variance(whole, level), _shape(sums, variances, level), _tails(whole, level)]
    if len(sums) > 1:
        questions.append(_rounds(scaled, level))
    return Selftest(len(sums), lengths.pop(), tuple(questions))


def _mean(whole: NDArray[np.float64], level: float) -> Question:
    count, found = len(whole), float(whole.mean())
    p = 2.0 * float(ndtr(-abs(found) * math.sqrt(count)))
    words = f"its mean is {found:+.3g} standard deviations, not 0, so that the sampler is biased"
    return Question("mean", found, 0.0, p, level, _normal_reach(level) / math.sqrt(count), words)


def _variance(whole: NDArray[np.float64], level: float) -> Question:
    count, statistic = len(whole), float(np.square(whole).sum())
    p, ratio = 2.0 * min(float(chdtr(count, statistic)), float(chdtrc(count, statistic))), statistic / count
    least = float(chdtri(count, 1.0 - level / 2)) / float(chdtri(count, 1.0 - POWER))
    means = (
        "too little: an epsilon that rests on it cannot be relied upon, for some silo adds less than its share"
        if ratio < 1.0
        else "too much: accuracy is lost, privacy is not"
    )
    words = f"its variance is {ratio:.3g} times the promised one, {means}"
    return Question("variance", ratio, 1.0, min(p, 1.0), level, 1.0 - least, words)


def _shape(sums: Sequence[NDArray[np.int64]], variances: Sequence[int], level: float) -> Question:
    statistic, freedom = 0.0, 0
    for one, variance in zip(sums, variances, strict=True):
        edges, masses = cells(variance)
        seen = np.bincount(np.searchsorted(edges, one, side="right"), minlength=len(masses))
        expected = masses * len(one)
        statistic += float((np.square(seen - expected) / expected).sum())
        freedom += len(masses) - 1
    words = "its distribution is not that of a sum of discrete Gaussian shares"
    return Question("shape", statistic / freedom, 1.0, float(chdtrc(freedom, statistic)), level, None, words)


def _tails(whole: NDArray[np.float64], level: float) -> Question:
    from scipy.stats import kurtosistest  # Anscombe and Glynn 1983: the exact law is far from normal in its own tails

    centred = whole - whole.mean()
    spread = float(np.square(centred).mean())
    if spread == 0.0:
        return Question("tails", 0.0, 3.0, 0.0, level, None, "all its numbers are the same")
    found, p = float(np.mean(centred**4)) / spread**2, float(kurtosistest(whole).pvalue)
    words = f"its kurtosis is {found:.3g}, not 3, so that its tails are not those of the promised noise"
    return Question("tails", found, 3.0, p, level, _normal_reach(level) * math.sqrt(24.0 / len(whole)), words)


def _rounds(scaled: Sequence[NDArray[np.float64]], level: float) -> Question:
    """Look at every pair of rounds: their correlation has Student's t law, and the least p counts for all pairs."""
    norms, freedom = [float(np.linalg.norm(one)) for one in scaled], len(scaled[0]) - 1
    furthest, place = 0.0, (0, 1)
    for first, second in combinations(range(len(scaled)), 2):
        both = norms[first] * norms[second]
        found = float(scaled[first] @ scaled[second]) / both if both else 0.0
        if abs(found) > abs(furthest):
            furthest, place = found, (first, second)
    pairs = math.comb(len(scaled), 2)
    left = 1.0 - min(furthest**2, 1.0)
    p = 2.0 * float(stdtr(freedom, -abs(furthest) * math.sqrt(freedom / left))) if left > 0.0 else 0.0
    same = np.array_equal(scaled[place[0]], scaled[place[1]])
    which = f"rounds {place[0] + 1} and {place[1] + 1}"
    words = f"the sums of {which} are " + ("the same" if same else f"correlated ({furthest:+.3g})")
    reach = -float(stdtrit(freedom, level / 2 / pairs)) + float(ndtri(POWER))
    return Question(
        "rounds",
        furthest,
        0.0,
        min(1.0, pairs * p),
        level,
        reach / math.sqrt(freedom),
        f"{words}, so that some noise was drawn from the same random numbers twice",
    )


@lru_cache(maxsize=64)
def cells(variance: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Cut the integers into cells of about the same mass under a discrete Gaussian.

    Parameters
    ----------
    variance : int
        The parameter sigma^2, at least 1.

    Returns
    -------
    edges : numpy.ndarray of int64
        A cell has the integers from one edge up to, and without, the next; the first and the last have no end.
    masses : numpy.ndarray of float64, one longer
        Exact but for floating point up to a sigma of 2**16. Beyond, a normal law between half-integers is taken, which
        differs from it by less than 2**-34.
    """
    sigma = math.sqrt(variance)
    quantiles = ndtri(np.arange(1, _CELLS) / _CELLS) * sigma
    edges = np.unique(np.ceil(quantiles).astype(np.int64))
    if sigma > _EXACT:
        below = ndtr((edges - 0.5) / sigma)
    else:
        last = math.ceil(14.0 * sigma)
        numbers = np.arange(-last, last + 1)
        masses = np.exp(-np.square(numbers / sigma) / 2.0)
        running = np.concatenate([[0.0], np.cumsum(masses)])
        below = running[edges + last] / running[-1]
    return edges, np.diff(below, prepend=0.0, append=1.0)


def _normal_reach(level: float) -> float:
    return float(ndtri(1.0 - level / 2) + ndtri(POWER))
