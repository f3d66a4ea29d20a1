"""The discrete Gaussian N_Z(0, sigma^2), P(x) proportional to exp(-x^2 / (2 sigma^2)), fast and exact to 2**-157.

Below sigma = 1,024 a magnitude is looked up: a 63-bit word against the cumulative distribution, which is held to 191
bits; where the word alone does not decide (it equals the first 63 bits of a threshold), 128 more bits are drawn.
From there on, the table is one of blocks of ``width`` integers, weighted by the mass at the block's near end; the
place in the block is uniform, and the pair is accepted with probability
exp(-((j width + r)^2 - (j width)^2) / (2 sigma^2)), an exact rational exponent, decided exactly (Algorithm 1 of
Canonne, Kamath and Steinke 2020): floating point only says in which cases the integers have to be asked. So the table
stays small (about a megabyte) for every sigma, nearly every pair is accepted, and the only errors are the cut of the
tail at 2**-160 and the rounding of the table's thresholds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.rejection import continue_bernoulli_exp

#: The largest sigma^2 that can be drawn: sigma = 2**40.
MAX_VARIANCE = 1 << 80
#: The least sigma^2 of one party's share where shares are added up: there, sums of discrete Gaussians are as good as
#: discrete Gaussian themselves (their distance at sigma = 4 is 10^-66 already; Kairouz et al. 2021, theorem 1).
MIN_SHARED_VARIANCE = 16**2
#: The statistical distance of one sample from the exact distribution is at most 2**TV_EXPONENT.
TV_EXPONENT = -157

_FINEST = 1024  # below this sigma the table has one entry for every magnitude
_FIXED = 320  # bits after the point in the arithmetic that builds tables
_HIGH, _LOW = 63, 128  # bits of a threshold: the word that is always drawn, and what ties are broken with
_CUT = 160  # the mass of the tail left out is below 2**-_CUT
_GUIDE = 16  # the first bits of a word name one of 2**_GUIDE cells; most cells lie between two thresholds
_CHUNK = 1 << 15
_DIGITS = 150  # of the two exponentials that a table starts from, correctly rounded


class NoiseError(PrivacyError):
    """Noise was asked for that cannot be drawn."""


@dataclass(frozen=True, eq=False)
class Table:
    """The cumulative distribution of a magnitude or of a block, for look-ups by a uniform word.

    Attributes
    ----------
    width_bits : int
        A block has ``2**width_bits`` integers; 0 in a table of single magnitudes.
    high : numpy.ndarray of int64
        The first 63 bits of every threshold, ascending.
    low : tuple of int
        The 128 bits after those.
    guide : numpy.ndarray of int16
        For every cell the entry that all of its words mean, or -1 if a threshold lies in the cell.
    """

    width_bits: int
    high: NDArray[np.int64]
    low: tuple[int, ...]
    guide: NDArray[np.int16]

    def find(self, words: NDArray[np.int64], source: Csprng) -> NDArray[np.int64]:
        """Return the entry for each of the words, uniform on [0, 2**63); ties draw more bits from ``source``."""
        entries = self.guide.take(words >> (_HIGH - _GUIDE)).astype(np.int64)
        unclear = np.flatnonzero(entries < 0)
        if len(unclear):
            part = words[unclear]
            found = np.searchsorted(self.high, part, side="right")
            ties = np.flatnonzero((found > 0) & (self.high[found - 1] == part))
            for tie in ties.tolist():
                found[tie] = self._break_tie(int(part[tie]), source)
            entries[unclear] = found
        return entries

    def _break_tie(self, word: int, source: Csprng) -> int:
        first = int(np.searchsorted(self.high, word, side="left"))
        last = int(np.searchsorted(self.high, word, side="right"))
        more = int.from_bytes(source.bytes(_LOW // 8), "little")
        return bisect_right(self.low, more, first, last)


def tv_bound(variance: int | Fraction, count: int) -> float:
    """Bound the statistical (total variation) distance of ``count`` samples from exact ones.

    If a mechanism with exact noise is (epsilon, delta)-DP, the same with noise at distance ``t`` is
    (epsilon, delta + (1 + e^epsilon) t)-DP.

    Parameters
    ----------
    variance : int or fractions.Fraction
        The parameter sigma^2; the bound holds for all that can be drawn.
    count : int
        How many samples, in all coordinates and all steps.

    Returns
    -------
    float
        ``count * 2**-157``.

    Raises
    ------
    NoiseError
        If the variance is outside (0, 2**80].

    Notes
    -----
    A table leaves out less than 2**-160 of the mass; its K <= 2**15 thresholds are each off by less than 2**-191 for
    the last bit and 2**-250 for the arithmetic. So the distance of an entry is below 2**-159. With blocks, more than
    9 in 10 proposals are accepted, and the distance grows by at most the mean number of proposals.
    """
    _checked(variance)
    return float(count) * 2.0**TV_EXPONENT


def sample(variance: int | Fraction, count: int, source: Csprng) -> NDArray[np.int64]:
    """Draw from the discrete Gaussian N_Z(0, variance).

    Parameters
    ----------
    variance : int or fractions.Fraction
        The parameter sigma^2, in (0, 2**80]; for sigma above 1 it is the variance to many digits.
    count : int
    source : quire.privacy.csprng.Csprng
        Used up by about 8 bytes a sample for sigma below 1,024, 16 from there on.

    Returns
    -------
    numpy.ndarray of int64
        At distance at most ``tv_bound(variance, count)`` from ``count`` independent exact samples.

    Raises
    ------
    NoiseError
        If the variance or the count is outside its range.

    Notes
    -----
    The first draw of a variance builds its table (about 30 ms); the last 16 tables are kept, about a megabyte each.
    """
    sigma2 = _checked(variance)
    if count < 0:
        raise NoiseError(f"cannot draw {count} numbers")
    table = _table(sigma2)
    result = np.empty(count, dtype=np.int64)
    for start in range(0, count, _CHUNK):
        part = result[start : start + _CHUNK]
        if table.width_bits:
            _sample_blocks(table, sigma2, part, source)
        else:
            words = source.uint64(len(part)).view(np.int64)
            part[:] = table.find((words >> 1) & ((1 << _HIGH) - 1), source)
            _apply_sign(part, words)
    return result


def _apply_sign(magnitudes: NDArray[np.int64], words: NDArray[np.int64]) -> None:
    """Negate, in place, where the word is odd: with m = -(word & 1), (x ^ m) - m is x or -x."""
    mask = words & 1
    np.negative(mask, out=mask)
    np.bitwise_xor(magnitudes, mask, out=magnitudes)
    np.subtract(magnitudes, mask, out=magnitudes)


def _sample_blocks(table: Table, sigma2: Fraction, out: NDArray[np.int64], source: Csprng) -> None:
    """Fill ``out`` by proposing a block and a place in it until the pair is accepted."""
    missing: NDArray[np.int64] | None = None  # all
    while missing is None or len(missing):
        count = len(out) if missing is None else len(missing)
        words = source.uint64(2 * count).view(np.int64).reshape(2, count)
        values = table.find((words[0] >> 1) & ((1 << _HIGH) - 1), source)
        values <<= table.width_bits
        place = words[1] & ((1 << table.width_bits) - 1)
        refused = _refused(values, place, words[1].view(np.uint64), table.width_bits, sigma2, source)
        values += place
        zeros = np.flatnonzero(values == 0)
        zeros = zeros[words[0, zeros] & 1 == 1]  # zero has one sign only
        _apply_sign(values, words[0])
        if len(zeros):
            refused = np.union1d(refused, zeros)
        if missing is None:
            out[:] = values
            missing = refused
        else:
            out[missing] = values
            missing = missing[refused]


def _refused(
    near: NDArray[np.int64],
    place: NDArray[np.int64],
    words: NDArray[np.uint64],
    width_bits: int,
    sigma2: Fraction,
    source: Csprng,
) -> NDArray[np.int64]:
    """Return which pairs are not accepted, by the words' first 32 bits and more where those do not decide.

    Nearly all words lie above the largest exponent that any of the pairs could have: those pairs are not looked at.
    """
    last = (1 << width_bits) - 1
    largest = last * (2.0 * float(near.max(initial=0)) + last) * (0.5 / float(sigma2)) * (1 + 2.0**-30)
    if largest >= 0.5:
        unsure = np.arange(len(near))
    else:
        unsure = np.flatnonzero(words < np.uint64((int(largest * 2.0**32) + 1) << 32))
    accepted = _accepted(near[unsure], place[unsure], words[unsure] >> np.uint64(32), sigma2, source)
    return unsure[~accepted]


def _accepted(
    near: NDArray[np.int64], place: NDArray[np.int64], words: NDArray[np.uint64], sigma2: Fraction, source: Csprng
) -> NDArray[np.bool_]:
    """Draw events of probability exp(-place (2 near + place) / (2 sigma2)), exactly; exponents are below 1.

    The first inner trial of Algorithm 1 succeeds if a uniform number, whose first 32 bits are the word, is below the
    exponent. For nearly all it is far above: those are accepted at once.
    """
    exponent = place.astype(np.float64) * (2 * near + place).astype(np.float64) * (0.5 / float(sigma2))
    uniform = words.astype(np.float64) * 2.0**-32
    accepted = uniform > exponent * (1 + 2.0**-40)
    for position in np.flatnonzero(~accepted).tolist():
        far = int(place[position]) * (2 * int(near[position]) + int(place[position]))
        ratio = Fraction(far * sigma2.denominator, 2 * sigma2.numerator)
        if _below(int(words[position]), 32, ratio, source):
            accepted[position] = continue_bernoulli_exp(ratio.numerator, ratio.denominator, 2, source)
        else:
            accepted[position] = True
    return accepted


def _below(word: int, bits: int, ratio: Fraction, source: Csprng) -> bool:
    """Say whether a uniform number with these first bits is below a ratio, drawing more bits until that is certain."""
    numerator, denominator = ratio.numerator, ratio.denominator
    while True:
        scaled = numerator << bits
        if (word + 1) * denominator <= scaled:
            return True
        if word * denominator >= scaled:
            return False
        word = word << 64 | int.from_bytes(source.bytes(8), "little")
        bits += 64


def _checked(variance: int | Fraction) -> Fraction:
    sigma2 = Fraction(variance)
    if not 0 < sigma2 <= MAX_VARIANCE:
        raise NoiseError("the variance of discrete Gaussian noise must be above 0 and at most 2**80")
    return sigma2


@lru_cache(maxsize=16)
def _table(sigma2: Fraction) -> Table:
    """Build the table: of magnitudes (0 once, the others twice) or of blocks (each once; zero is halved later)."""
    width_bits = max(0, (isqrt(int(sigma2)) // _FINEST).bit_length())
    variance = sigma2 / (1 << 2 * width_bits)
    masses = _masses(variance)
    if width_bits == 0:
        masses = [masses[0], *(2 * mass for mass in masses[1:])]
    total, running, thresholds = sum(masses), 0, []
    for mass in masses[:-1]:
        running += mass
        thresholds.append(((running << (_HIGH + _LOW + 1)) // total + 1) >> 1)
    high = np.array([threshold >> _LOW for threshold in thresholds], dtype=np.int64)
    low = tuple(threshold & ((1 << _LOW) - 1) for threshold in thresholds)
    guide = np.searchsorted(high, np.arange(1 << _GUIDE) << (_HIGH - _GUIDE), side="right").astype(np.int16)
    guide[np.unique(high >> (_HIGH - _GUIDE))] = -1
    return Table(width_bits=width_bits, high=high, low=low, guide=guide)


def _masses(variance: Fraction) -> list[int]:
    """Return exp(-k^2/(2 variance)) for k = 0, 1, ... in fixed point, until less than 2**-160 is left out.

    Each mass is the one before times a ratio, and each ratio the one before times exp(-1/variance): with the two
    exponentials right to the last bit, the k-th is off by less than (k + 1)^2 units of 2**-320.
    """
    one = 1 << _FIXED
    ratio, step = _exp_fixed(1 / (2 * variance)), _exp_fixed(1 / variance)
    mass = one
    masses: list[int] = []
    # What is left out from k on is a sum that falls faster than a geometric one; doubled because it has two sides.
    while not masses or 2 * mass * one >= (one - ratio) << (_FIXED - _CUT):
        masses.append(mass)
        mass = mass * ratio >> _FIXED
        ratio = ratio * step >> _FIXED
    return masses


def _exp_fixed(exponent: Fraction) -> int:
    """Return exp(-exponent) in fixed point: decimal's exponential is correctly rounded."""
    with localcontext(Context(prec=_DIGITS)):
        return int((-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp() * (1 << _FIXED))
