"""The least noise that keeps a promise: from epsilon, delta, steps and sampling rate to a noise multiplier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from quire.privacy.dp import accounting
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.events import MAX_COUNT
from quire.privacy.dp.spending import Spending

LARGEST = 1e6  # noise multiplier beyond which a target counts as unreachable
SMALLEST = 1e-3
DIGITS = 5  # significant digits of an answer
WINDOW = 5  # orders on either side of the best one by which the search ends


class CalibrationError(PrivacyError):
    """A target that no reasonable noise reaches, or that is no target."""


def calibrate(
    epsilon: float,
    delta: float,
    steps: int,
    sampling_rate: float,
    unit: Unit = Unit.RECORD,
    *,
    discrete: bool = False,
    failure: float = 0.0,
) -> float:
    """Return the smallest noise multiplier with which a run keeps to (epsilon, delta).

    Parameters
    ----------
    epsilon : float
        Target of the whole run, above 0; infinite for no noise.
    delta : float
        In (0, 1).
    steps : int
        Noisy releases of the whole run: local steps times rounds (record unit), or rounds (silo unit).
    sampling_rate : float
        Poisson sampling rate, in (0, 1]. The silo unit has no amplification: it must be 1, because the server, not a
        secret coin, chooses the cohort.
    unit : Unit
    discrete : bool
        Whether the noise is discrete and so accounted at integer orders; see
        :func:`quire.privacy.dp.accounting.rdp`.
    failure : float
        Additive terms of delta over the whole run, subtracted from ``delta`` first.

    Returns
    -------
    float
        Standard deviation over sensitivity, rounded up to five significant digits: the smallest such number whose
        epsilon, by the figure of record, is at most the target. 0.0 for an infinite epsilon.

    Raises
    ------
    CalibrationError
        If nothing reaches the target, or an argument is out of range.
    """
    if math.isnan(epsilon) or epsilon <= 0:
        raise CalibrationError(f"epsilon has to be above 0 (inf for no noise), not {epsilon}.")
    accounting.check_delta(delta)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_COUNT:
        raise CalibrationError(f"A run has at least one noisy step, a whole number, not {steps!r}.")
    if not 0 < sampling_rate <= 1:
        raise CalibrationError(f"The sampling rate has to be in (0, 1], not {sampling_rate}: is the batch too large?")
    if unit is Unit.SILO and sampling_rate != 1:
        raise CalibrationError(
            "The silo unit is not amplified by sampling: a cohort that the server chose is no secret."
        )
    if not failure >= 0:
        raise CalibrationError(f"Additive terms of delta are at least 0, not {failure}.")
    if math.isinf(epsilon):
        return 0.0
    if failure >= delta:
        raise CalibrationError(
            f"delta {delta:g} is used up by the additive terms of the mechanism, {failure:g}: take a larger delta, or "
            "fewer steps."
        )
    return _calibrate(float(epsilon), float(delta - failure), steps, float(sampling_rate), bool(discrete))


@lru_cache(maxsize=1024)
def _calibrate(epsilon: float, delta: float, steps: int, sampling_rate: float, discrete: bool) -> float:
    run = _Run(epsilon, delta, steps, sampling_rate, discrete)
    usable = run.orders()
    answer = run.crossing(1.0, usable[::4], 1e-2)
    for _ in range(20):  # two or three times in practice: until the best order is inside the window searched
        best = usable.index(run.best_order(answer))
        window = usable[max(best - WINDOW, 0) : best + WINDOW + 1]
        answer = run.crossing(answer, window, 1e-6)
        if abs(usable.index(run.best_order(answer)) - best) < WINDOW:
            break
    answer = round_up(answer)
    # The search looked at some orders only. What is promised is checked over all of them, and so is tightness.
    while run.spent(answer) > epsilon:
        answer = _next(answer, 1)
    while run.spent(_next(answer, -1)) <= epsilon:
        answer = _next(answer, -1)
    return answer


@dataclass(frozen=True)
class _Run:
    """A run whose noise multiplier is sought."""

    epsilon: float
    delta: float
    steps: int
    sampling_rate: float
    discrete: bool

    def spent(self, noise_multiplier: float) -> float:
        """Return the epsilon of record."""
        vector = accounting.one_step(noise_multiplier, self.sampling_rate, discrete=self.discrete)
        return accounting.epsilon(Spending(self.steps * vector), self.delta)

    def orders(self) -> list[float]:
        """Return the orders with a value of their own: the integers, where the noise is discrete and sampled."""
        only = self.discrete and self.sampling_rate < 1
        return [order for order in accounting.ORDERS if order.is_integer() or not only]

    def best_order(self, noise_multiplier: float) -> float:
        """Return the order that gives the epsilon of record."""
        vector = accounting.one_step(noise_multiplier, self.sampling_rate, discrete=self.discrete)
        usable = self.orders()
        kept = np.isin(accounting.ORDERS, usable)
        return accounting.convert(usable, self.steps * vector[kept], self.delta)[1]

    def gap(self, log_noise: float, orders: Sequence[float]) -> float:
        """Return log(epsilon spent / target) by some of the orders; nearly straight in log noise."""
        vector = accounting.rdp_at(orders, math.exp(log_noise), self.sampling_rate)
        spent, _ = accounting.convert(orders, self.steps * vector, self.delta)
        # An epsilon can be exactly 0 where noise is vast, or infinite: bounds keep the search going.
        return math.log(min(max(spent / self.epsilon, 1e-3), 1e12))

    def crossing(self, start: float, orders: Sequence[float], tolerance: float) -> float:
        """Return the noise multiplier at which some of the orders say that the target is met."""
        from scipy.optimize import brentq

        def gap(log_noise: float) -> float:
            return self.gap(log_noise, orders)

        low = high = math.log(start)
        at_low = at_high = gap(low)
        stride = 100 * tolerance
        while at_low <= 0:
            if low <= math.log(SMALLEST):
                raise CalibrationError(
                    f"epsilon {self.epsilon:g} asks for less noise than {SMALLEST:g} of the sensitivity, which "
                    "protects nothing: say inf to train without noise."
                )
            high, low, stride = low, max(low - stride, math.log(SMALLEST)), stride * 3
            at_low = gap(low)
        while at_high > 0:
            if high >= math.log(LARGEST):
                raise CalibrationError(
                    f"No noise up to {LARGEST:g} times the sensitivity reaches epsilon {self.epsilon:g} at delta "
                    f"{self.delta:g} in {self.steps} steps: take a larger epsilon or delta, or fewer steps."
                )
            low, high, stride = high, min(high + stride, math.log(LARGEST)), stride * 3
            at_high = gap(high)
        return math.exp(brentq(gap, low, high, xtol=tolerance))


def round_up(value: float) -> float:
    """Round a positive number up to :data:`DIGITS` significant decimal digits.

    The answers lie on this lattice, so that they are exactly monotone in steps and sampling rate, and can be read.
    """
    rounded = float(f"{value:.{DIGITS - 1}e}")
    return rounded if rounded >= value else _next(rounded, 1)


def _next(value: float, direction: int) -> float:
    """Return the neighbour of a number on the lattice, above (1) or below (-1)."""
    digits, exponent = f"{value:.{DIGITS - 1}e}".split("e")
    whole = int(digits.replace(".", "")) + direction
    if whole < 10 ** (DIGITS - 1):  # 1.0000 -> 0.99999
        return float(f"{10**DIGITS - 1}e{int(exponent) - DIGITS}")
    return float(f"{whole}e{int(exponent) - DIGITS + 1}")
