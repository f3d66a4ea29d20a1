"""Is the noise there? All-zero coordinates take the same path as all others; what is released of them is noise alone.

Everybody who sees the sum can test it, in every round, at no cost in privacy. The statistic is the sum of squares over
the promised variance, chi-squared under the promise, taken over *all rounds so far*; a run that is looked at again
and again must not raise an alarm by looking often, so look t may spend only ``alpha / (t (t + 1))``, which adds up to
``alpha`` over any number of rounds. It finds broken code, not a party that leaves its noise out on purpose and puts it
on the probes alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, chdtrc, chdtri

from quire.privacy.dp.contract import PrivacyError

#: Probes in every vector, unless set otherwise.
PROBES = 1024
#: Probability that a run with the promised noise ever raises an alarm, half of it on either side.
FALSE_ALARM = 1e-3


class ProbeError(PrivacyError):
    """Probes that cannot be tested."""


@dataclass(frozen=True)
class ProbeTest:
    """The probes of a run so far; immutable: :meth:`observe` returns the next one.

    Attributes
    ----------
    looks : int
        Rounds observed.
    probes : int
        Probes observed, over all rounds.
    statistic : float
        Sum of squares over the promised variance.
    alpha : float
        Probability of a false alarm over the whole run, however long.
    too_little, too_much : int or None
        The first look at which the noise was found too small (the promise is broken) or too large (accuracy is
        lost); None if it was not. An alarm stays.
    """

    looks: int = 0
    probes: int = 0
    statistic: float = 0.0
    alpha: float = FALSE_ALARM
    too_little: int | None = None
    too_much: int | None = None

    def observe(self, released: NDArray[np.int64], variance: int | Fraction) -> ProbeTest:
        """Add a round.

        Parameters
        ----------
        released : numpy.ndarray of int64
            The probes of the sum, in integer units.
        variance : int or fractions.Fraction
            The promised variance of each: that of one share times the number of parties in the sum.

        Raises
        ------
        ProbeError
            If there is no probe, or no noise was promised.
        """
        if len(released) == 0 or variance <= 0:
            raise ProbeError("a test of the noise needs at least one probe and a promised variance above 0")
        squares = float(np.square(released.astype(np.float64)).sum())
        return self.add(len(released), squares / float(variance))

    def add(self, count: int, statistic: float) -> ProbeTest:
        """Add a round of which only the statistic is known.

        Parameters
        ----------
        count : int
            Probes in the round.
        statistic : float
            Sum of their squares over the promised variance.

        Raises
        ------
        ProbeError
            If there is no probe, or the statistic is none.
        """
        if count < 1 or not (math.isfinite(statistic) and statistic >= 0.0):
            raise ProbeError("a round of probes has at least one, and a statistic of at least 0")
        looks, probes, statistic = self.looks + 1, self.probes + count, self.statistic + statistic
        level = self.alpha / 2 / (looks * (looks + 1))
        low = float(chdtr(probes, statistic)) < level
        high = float(chdtrc(probes, statistic)) < level
        return ProbeTest(
            looks,
            probes,
            statistic,
            self.alpha,
            looks if low and self.too_little is None else self.too_little,
            looks if high and self.too_much is None else self.too_much,
        )

    @property
    def ratio(self) -> float:
        """Observed over promised variance; NaN before the first round."""
        return self.statistic / self.probes if self.probes else math.nan

    @property
    def alarm(self) -> bool:
        """Whether the noise was ever found to differ from what was promised."""
        return self.too_little is not None or self.too_much is not None

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return a confidence interval of the ratio, for this look alone (no correction for the others)."""
        if not self.probes:
            return 0.0, math.inf
        tail = (1 - confidence) / 2
        return (
            self.statistic / float(chdtri(self.probes, tail)),
            self.statistic / float(chdtri(self.probes, 1 - tail)),
        )


def p_value(probes: int, statistic: float) -> float:
    """Return how likely so large a deviation, on either side, is for the promised noise; of one round by itself."""
    return min(1.0, 2.0 * min(float(chdtr(probes, statistic)), float(chdtrc(probes, statistic))))


def detection_power(ratio: float, probes: int, looks: int, alpha: float = FALSE_ALARM) -> float:
    """Return how likely the test is to have found noise of too little variance by its ``looks``-th look.

    Parameters
    ----------
    ratio : float
        True over promised variance, in (0, 1): 0.81 for noise times 0.9; (n - 1)/n where one of n adds none.
    probes : int
        Each round.
    looks : int
        Rounds.
    alpha : float

    Returns
    -------
    float
        A lower bound: the probability of an alarm at the last of these looks alone.
    """
    critical = float(chdtri(probes * looks, 1 - alpha / 2 / (looks * (looks + 1))))
    return float(chdtr(probes * looks, critical / ratio))


def probes_needed(ratio: float, looks: int, power: float = 0.999, alpha: float = FALSE_ALARM) -> int:
    """Return how many probes find noise of too little variance in time: ``PROBES``, doubled as often as it takes.

    Parameters
    ----------
    ratio : float
        True over promised variance, in (0, 1), as in :func:`detection_power`.
    looks : int
        Rounds within which it has to be found.
    power : float
        With at least this probability.
    alpha : float

    Raises
    ------
    ProbeError
        If the ratio, the looks or the power are out of range, or 2**24 probes do not suffice.
    """
    if not (0 < ratio < 1 and looks >= 1 and 0 < power < 1):
        raise ProbeError(f"cannot plan probes for ratio={ratio}, looks={looks}, power={power}")
    probes = PROBES
    while detection_power(ratio, probes, looks, alpha) < power:
        probes *= 2
        if probes > 1 << 24:
            raise ProbeError(f"a variance of {ratio} times the promised one is too close to be found in {looks} rounds")
    return probes
