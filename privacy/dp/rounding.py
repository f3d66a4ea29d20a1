"""From clipped real vectors to integer ones, with the sensitivity that the integers have.

Floating-point results leak: adding or removing a record changes which floats can come out at all (Mironov 2012). So
a vector of norm at most C is scaled by ``kappa * sqrt(d) / C`` and rounded stochastically to integers, and everything
that is released afterwards is an integer vector plus integer noise. The scaling and the bounds follow Kairouz, Liu and
Steinke (2021, https://arxiv.org/abs/2102.06387, proposition 26); what is ours is said in the notes.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import PrivacyError, Unit

KAPPA = 16.0
#: How much the floating-point arithmetic before the rounding may lengthen the difference of two neighbouring sums.
SLACK = 2.0**-20
#: Probability, for each rounding of a sum, that two neighbours come to lie further apart than Delta2.
ROUNDING_FAILURE = 2.0**-60
#: Vectors summed in float64, in whatever order, stay within ``SLACK`` up to this many of them.
MAX_SUMMANDS = 1 << 15
MAX_REDRAWS = 16
_LARGEST = 2.0**53
_CHUNK = 1 << 15


class EncodingError(PrivacyError):
    """A vector, or the numbers that describe an encoding, cannot be used; the text says what to do."""


def clip_to(vector: NDArray[np.floating], clip: float) -> tuple[NDArray[np.float64], bool]:
    """Scale a vector down to an L2 norm of at most ``clip``, in float64, without overflow or underflow on the way.

    Parameters
    ----------
    vector : numpy.ndarray
        Of any real floating type and any length.
    clip : float
        Above 0.

    Returns
    -------
    clipped : numpy.ndarray of float64
        A new array. Rounding may leave it longer than ``clip`` by a few parts in 10^16.
    finite : bool
        False if the vector held a NaN or an infinity; it is zero now.
    """
    values = np.array(vector, dtype=np.float64)
    largest = float(np.max(np.abs(values), initial=0.0))
    if not math.isfinite(largest):
        return np.zeros_like(values), False
    if largest > 0.0:
        unit = values / largest
        length = math.sqrt(float(np.square(unit).sum()))
        if largest * length > clip:
            return unit * (clip / length), True
    return values, True


def clipped_sum(rows: NDArray[np.floating], clip: float) -> tuple[NDArray[np.float64], int]:
    """Clip every row to an L2 norm of at most ``clip`` and add the rows up in float64.

    Parameters
    ----------
    rows : numpy.ndarray
        One row for each record, shape (records, d); at most 32,768 rows.
    clip : float
        Above 0.

    Returns
    -------
    total : numpy.ndarray of float64
        The sum, shape (d,).
    broken : int
        How many rows held a NaN or an infinity; they added zero.

    Raises
    ------
    EncodingError
        If the shape is wrong or the rows are too many for the error of their sum to stay within ``SLACK``.
    """
    if rows.ndim != 2 or len(rows) > MAX_SUMMANDS:
        raise EncodingError(f"a clipped sum takes a matrix of at most {MAX_SUMMANDS} rows, not {rows.shape}")
    total, broken = np.zeros(rows.shape[1]), 0
    for row in rows:
        clipped, finite = clip_to(row, clip)
        total += clipped
        broken += not finite
    return total, broken


def scaled_clip(dimension: int, kappa: float = KAPPA) -> float:
    """Return the clip in integer units, C_s = kappa sqrt(d)."""
    if dimension < 1 or not 1.0 <= kappa <= 1024.0:
        raise EncodingError(
            f"an encoding needs a dimension of at least 1 and 1 <= kappa <= 1024, not {dimension}, {kappa}"
        )
    return kappa * math.sqrt(dimension)


def delta2_squared(dimension: int, unit: Unit, kappa: float = KAPPA) -> int:
    """Return the squared L2 sensitivity of the integers, min{C_s^2 + d/4 + t (C_s + sqrt(d)/2), (C_s + sqrt(d))^2}.

    Parameters
    ----------
    dimension : int
        Number of coordinates that are rounded.
    unit : Unit
        ``SILO``: t = 1 (beta = exp(-1/2)); :func:`round_within` enforces the bound, so it always holds.
        ``RECORD``: t = sqrt(2 ln 2**60), and both terms are widened by ``(1 + SLACK)**2``; a sum is rounded once, and
        the bound fails with probability at most 2**-60 for each rounding, which adds to delta.
    kappa : float
        Grid points per root mean square of a coordinate at the clip.

    Raises
    ------
    EncodingError
        If the numbers are out of range, or so large that squares would overflow 64-bit integers.

    Notes
    -----
    Record unit (our derivation). Round v to floor(v + u) with u uniform. For sums v and v + w of neighbours and the
    same u, each coordinate of the difference of the rounded sums is floor(w + f) with f = frac(v + u) uniform: it is
    the stochastic rounding of w alone, one clipped gradient, to which proposition 26 applies. Given u, the mechanism is
    a discrete Gaussian one; divergences are jointly convex in the shared u, and the event that the bound fails is
    charged on one side only, so it adds its probability to delta, once for each rounding.
    """
    clip = scaled_clip(dimension, kappa)
    spread = 1.0 if unit is Unit.SILO else math.sqrt(-2.0 * math.log(ROUNDING_FAILURE))
    root = math.sqrt(dimension)
    bound = min(clip**2 + dimension / 4 + spread * (clip + root / 2), (clip + root) ** 2)
    if unit is Unit.RECORD:
        bound *= (1.0 + SLACK) ** 2
    if bound * dimension >= 2.0**62:
        raise EncodingError(f"{dimension} coordinates at kappa={kappa} are too many for 64-bit integers: lower kappa")
    return math.floor(bound)


def share_variance(noise_multiplier: float, delta2: int, shares: int = 1) -> int:
    """Return sigma^2 of each share of the noise: ceil((z Delta2)^2 / shares), in exact arithmetic.

    Parameters
    ----------
    noise_multiplier : float
        z, at least 0; 0 means no noise.
    delta2 : int
        The squared sensitivity, as returned by :func:`delta2_squared`.
    shares : int
        How many independent shares an observer is sure not to know (U_min - c_dp).
    """
    if not (math.isfinite(noise_multiplier) and noise_multiplier >= 0) or shares < 1:
        raise EncodingError(f"noise needs a multiplier of at least 0 and a share, not {noise_multiplier} and {shares}")
    return math.ceil(Fraction(noise_multiplier) ** 2 * delta2 / shares)


def stochastic_round(vector: NDArray[np.float64], source: Csprng) -> NDArray[np.int64]:
    """Round every coordinate to one of its two neighbouring integers, with the coordinate itself as the mean.

    Parameters
    ----------
    vector : numpy.ndarray of float64
        Finite; beyond 2**53 a coordinate is cut to that (which brings no two vectors further apart).
    source : quire.privacy.csprng.Csprng
    """
    result = np.empty(len(vector), dtype=np.int64)
    small = np.min(vector, initial=0.0) >= -_LARGEST and np.max(vector, initial=0.0) <= _LARGEST
    for start in range(0, len(vector), _CHUNK):
        values = vector[start : start + _CHUNK]
        values = values if small else np.clip(values, -_LARGEST, _LARGEST)
        floor = np.floor(values)
        # floor + (u < fraction): the fraction is exact, where v + u would have been rounded.
        np.add(floor, source.uniform(len(values)) < values - floor, out=floor)
        result[start : start + _CHUNK] = floor
    return result


def round_within(
    vector: NDArray[np.float64], limit_squared: int, source: Csprng, redraws: int = MAX_REDRAWS
) -> tuple[NDArray[np.int64], int]:
    """Round stochastically until the squared norm, an exact integer, is at most the limit: for the silo unit.

    Parameters
    ----------
    vector : numpy.ndarray of float64
        Clipped and scaled.
    limit_squared : int
        As returned by :func:`delta2_squared` for the silo unit.
    source : quire.privacy.csprng.Csprng
    redraws : int
        After this many the vector is rounded towards zero instead.

    Returns
    -------
    rounded : numpy.ndarray of int64
        The bound holds by construction, whatever the floating-point arithmetic before did.
    redrawn : int
    """
    for attempt in range(redraws + 1):
        rounded = stochastic_round(vector, source)
        if _within(rounded, limit_squared):
            return rounded, attempt
    rounded = np.trunc(np.clip(vector, -_LARGEST, _LARGEST)).astype(np.int64)
    if not _within(rounded, limit_squared):  # it was not clipped: it must not leave
        rounded = np.zeros_like(rounded)
    return rounded, redraws


def _within(vector: NDArray[np.int64], limit_squared: int) -> bool:
    if max(int(vector.max(initial=0)), -int(vector.min(initial=0))) > math.isqrt(limit_squared):
        return False  # also keeps the sum below from overflowing: delta2_squared has limited limit * d
    return int(np.dot(vector, vector)) <= limit_squared
