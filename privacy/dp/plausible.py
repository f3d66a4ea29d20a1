"""How large a sum under distributed noise can be at all: for whoever is shown one, and took no part in opening it.

A server that publishes sums could publish others. One that keeps to this bound moves a model no further than an honest
round could; see "The model chain" in ``docs/secure-aggregation.md``, and "aggregate alarm" in the literature on
malicious silos, of which this is the check.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.wire import centred

#: An honest sum exceeds each of the two tails below with a probability of at most two to the minus this.
TAIL_BITS = 40
_TAIL = TAIL_BITS * math.log(2.0)


class BeyondHonest(EncodingError):
    """A sum that honest silos cannot have come to: the aggregate-norm alarm. It tells nobody's name."""


def records_at_most(expected: float) -> float:
    """Return how many records independent coins, of which so many are expected to fall, come to at most.

    Bernstein's inequality for sums of independent indicators: more than ``m + x`` with a probability of at most
    ``exp(-x^2 / (2 (m + x / 3)))``, which is ``2**-40`` at the ``x`` that is added here.

    Parameters
    ----------
    expected : float
        At least 0.
    """
    return expected + _TAIL / 3.0 + math.sqrt(_TAIL**2 / 9.0 + 2.0 * _TAIL * expected)


def noise_at_most(variance: float, dimension: int) -> float:
    """Return what the L2 norm of noise comes to at most.

    A discrete Gaussian is sub-Gaussian with its own parameter (Canonne, Kamath and Steinke 2020, arXiv 2004.00010), and
    so is a sum of them with the sum of the variances: the squared norm exceeds
    ``variance (d + 2 sqrt(d t) + 2 t)`` with a probability of at most ``exp(-t)`` (Hsu, Kakade and Zhang 2012, arXiv
    1110.2842, theorem 1).

    Parameters
    ----------
    variance : float
        Of every coordinate.
    dimension : int
    """
    return math.sqrt(variance * (dimension + 2.0 * math.sqrt(dimension * _TAIL) + 2.0 * _TAIL))


def largest_norm(noise: SharedNoise, encoding: Encoding, silos: int) -> float:
    """Return the L2 norm, in integer units, that the sum of some parties' vectors and shares of noise can have.

    Signal: under the silo unit the sensitivity for each silo, to which every honest one keeps by construction. Under
    the record unit ``clip`` for every record that is drawn, and less than one for each silo and coordinate, by
    rounding. The records drawn are no more than :func:`records_at_most`, of what these silos expect if each is as large
    as the largest, or of what all members expect together, with one more for each of them, whichever is less.
    Noise: :func:`noise_at_most`, of the shares of these silos.

    Parameters
    ----------
    noise : SharedNoise
    encoding : Encoding
        For these numbers, see :func:`quire.privacy.dp.shares.encoding_of`.
    silos : int
        How many there are in the sum, at most ``noise.parties``.

    Raises
    ------
    EncodingError
        If so many cannot be in a sum.
    """
    if not 1 <= silos <= noise.parties:
        raise EncodingError(f"{silos} silos cannot be in a sum of which {noise.parties} are asked")
    dimension = encoding.rounded
    if noise.unit is Unit.SILO:
        signal = silos * math.sqrt(encoding.delta2_squared)
    else:
        # The denominator is what those who are asked expect on average: for whom the draw falls, all have no more.
        declared = noise.denominator * noise.members / noise.parties + noise.members
        drawn = records_at_most(min(float(silos * noise.batch), declared))
        signal = drawn * encoding.clip * encoding.scale + silos * math.sqrt(dimension)
    return signal + noise_at_most(float(silos * encoding.noise_variance), dimension)


def check_shared_sum(noise: SharedNoise, encoding: Encoding, total: NDArray[np.uint32], silos: int) -> float:
    """Refuse a sum that honest parties cannot have come to.

    Parameters
    ----------
    noise : SharedNoise
    encoding : Encoding
    total : numpy.ndarray of uint32, shape (encoding.length,)
        Modulo 2**32 or 2**bits. The probes at its end are not looked at.
    silos : int
        How many there are in it.

    Returns
    -------
    float
        Its length over :func:`largest_norm`: at most 1.

    Raises
    ------
    BeyondHonest
        If it is longer than that.
    EncodingError
        If it has another number of words, or so many silos cannot be in it.
    """
    if total.shape != (encoding.length,):
        raise EncodingError(f"the encoding is for {encoding.length} integers, not {total.shape}")
    norm = math.sqrt(float(np.square(centred(total, encoding.bits)[: encoding.rounded].astype(np.float64)).sum()))
    if norm > (most := largest_norm(noise, encoding, silos)):
        more = ", or has many more records than were declared" if noise.unit is Unit.RECORD else ""
        raise BeyondHonest(
            f"the sum is {norm / most:.3g} times as long as the clipped vectors of {silos} silos with their noise can "
            f"be: somebody adds what no honest silo adds{more}"
        )
    return norm / most
