"""A clip that follows the norms of the updates, with what the following costs charged (Andrew et al. 2021).

Beside its clipped update every unit adds one bit: whether its update was within the clip. The noisy share of such
bits moves the clip, geometrically, towards a quantile of the norms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from quire.privacy.dp.contract import PrivacyError

FEWEST_UNITS = 500
"""Below that many units the noise on the bits is either useless or eats the budget of the updates."""

RATE = 0.2  # learning rate of the clip; Andrew et al. (2021), section 3.1, recommend it for every task


@dataclass(frozen=True)
class Split:
    """How one Gaussian release is shared between the sum of updates and the sum of bits.

    Attributes
    ----------
    update_noise : float
        Noise multiplier of the sum of updates, in units of the clip: larger than that of the round, which is the
        price of the bits.
    bit_noise : float
        Standard deviation of the noise on the sum of bits.
    """

    update_noise: float
    bit_noise: float


def split(noise_multiplier: float, units: int) -> Split:
    """Share a round's noise between updates and bits so that both together cost what one release costs.

    A unit's centred bit, +1/2 or -1/2, is removed with the unit, so the sum of bits has sensitivity 1/2 and noise
    ``s`` on it the multiplier ``2 s``. Two Gaussian releases with multipliers ``a`` and ``b`` cost exactly as much as
    one with ``(a**-2 + b**-2)**-0.5``; hence ``update_noise = (z**-2 - (2 s)**-2)**-0.5`` with ``s = units / 20``
    (Andrew et al. 2021, theorem 1 and section 3.2). A round is still charged as one Gaussian release with ``z``. To one
    record of a unit everything costs alike: it can turn the bit, by 1, and the update, by twice the clip, both twice
    what removing the unit does.

    Parameters
    ----------
    noise_multiplier : float
        ``z`` of the whole round, above 0.
    units : int
        Number of units in a round: public and fixed.

    Raises
    ------
    PrivacyError
        With fewer than 500 units, or noise so large that the bits' share cannot pay it.
    """
    if units < FEWEST_UNITS:
        raise PrivacyError(
            f"clipping=adaptive needs at least {FEWEST_UNITS} units and there are {units}: over so few, a share of "
            "clipped updates that is noisy enough to be private says nothing; take clipping=fixed."
        )
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise PrivacyError(f"Adaptive clipping needs a noise multiplier above 0, not {noise_multiplier}.")
    rest = 1 / Fraction(noise_multiplier) ** 2 - 1 / Fraction(units, 10) ** 2
    if rest <= 0:
        raise PrivacyError(
            f"clipping=adaptive with noise {noise_multiplier:g} needs more than {10 * noise_multiplier:g} units and "
            f"there are {units}: take clipping=fixed, or a larger epsilon."
        )
    update_noise = float(1 / rest) ** 0.5
    while 1 / Fraction(update_noise) ** 2 > rest:  # rounded down, it would cost a little more than was charged
        update_noise = math.nextafter(update_noise, math.inf)
    return Split(update_noise, bit_noise=units / 20)


def centred_bit(norm: float, clip: float) -> float:
    """Return what a unit adds: +1/2 if its norm is within the clip, else -1/2; NaN counts as not within."""
    return 0.5 if norm <= clip else -0.5


def noisy_share(centred_bits: float, noise: float, units: int) -> float:
    """Return the noisy share of units within the clip.

    Parameters
    ----------
    centred_bits : float
        Sum of the units' centred bits.
    noise : float
        A draw of N(0, bit_noise**2), from the source of all the round's noise.
    units : int
        The public number of units, not the number of those that answered.

    Returns
    -------
    float
        Not cut to [0, 1]: it is unbiased.
    """
    return (centred_bits + noise) / units + 0.5


def next_clip(clip: float, share: float, quantile: float, rate: float = RATE) -> float:
    """Move the clip geometrically: ``clip * exp(-rate * (share - quantile))`` (Andrew et al. 2021, section 2).

    Post-processing of a noisy share: it costs nothing more.

    Raises
    ------
    PrivacyError
        If the clip leaves what a float can hold, or the share is no number.
    """
    if not math.isfinite(share):
        raise PrivacyError("The noisy share of clipped updates is no number: the clip cannot follow it.")
    moved = clip * math.exp(max(-50.0, min(50.0, -rate * (share - quantile))))
    if not 0 < moved < math.inf:
        raise PrivacyError(f"The adaptive clip became {moved}: it started too far from the updates' norms.")
    return moved
