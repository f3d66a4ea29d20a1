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


def largest_norm(noise: SharedNoise, encoding: Encoding) -> float:
    """Return the L2 norm, in integer units, that the sum of all parties' vectors and shares of noise can have.

    Signal: under the silo unit the sensitivity for each party, to which every honest silo keeps by construction. Under
    the record unit ``clip`` for every record that is drawn, of which there are no more than :func:`records_at_most`
    where every party expects as many as the largest; and less than one for each party and coordinate, by rounding.
    Noise: :func:`noise_at_most`, of all parties' shares.

    Parameters
    ----------
    noise : SharedNoise
    encoding : Encoding
        For these numbers, see :func:`quire.privacy.dp.shares.encoding_of`.
    """
    parties, dimension = noise.parties, encoding.rounded
    if noise.unit is Unit.SILO:
        signal = parties * math.sqrt(encoding.delta2_squared)
    else:
        drawn = records_at_most(float(parties * noise.batch))
        signal = drawn * encoding.clip * encoding.scale + parties * math.sqrt(dimension)
    return signal + noise_at_most(float(parties * encoding.noise_variance), dimension)


def check_shared_sum(noise: SharedNoise, encoding: Encoding, total: NDArray[np.uint32]) -> None:
    """Refuse a sum that honest parties cannot have come to.

    Parameters
    ----------
    noise : SharedNoise
    encoding : Encoding
    total : numpy.ndarray of uint32, shape (encoding.length,)
        Modulo 2**32 or 2**bits. The probes at its end are not looked at.

    Raises
    ------
    EncodingError
        If it is longer than :func:`largest_norm`, or has another number of words.
    """
    if total.shape != (encoding.length,):
        raise EncodingError(f"the encoding is for {encoding.length} integers, not {total.shape}")
    norm = math.sqrt(float(np.square(centred(total, encoding.bits)[: encoding.rounded].astype(np.float64)).sum()))
    if norm > (most := largest_norm(noise, encoding)):
        raise EncodingError(
            f"the sum is {norm / most:.3g} times as long as the clipped vectors of {noise.parties} silos with their "
            "noise can be: somebody adds what no honest silo adds, or has many more records than were declared"
        )
