"""What a silo does with its vector under distributed noise, and what is read from the sum.

Integers first, without noise: they wait in the silo. Its share of the noise comes on top when an attempt is masked,
drawn anew for every attempt. The sum is decoded by everybody who sees it, and its probes, which are noise alone, are
held against what the survivors have promised together. All of this is :class:`quire.privacy.dp.encoding.Encoding`,
with the numbers of :class:`quire.privacy.dp.distributed.SharedNoise`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.probes import PROBES, ProbeTest, detection_power
from quire.privacy.dp.rounding import KAPPA
from quire.privacy.dp.wire import to_ring

#: The clip in lattice points, where the model is so small that ``KAPPA`` would give fewer: rounding then lengthens the
#: sensitivity by about a thousandth, and shares of the noise stay large enough to be added up.
POINTS = 4096.0
_FINEST = 1024.0
#: Within so many rounds the probes find, but for one run in a thousand, that one silo adds no noise.
LOOKS, POWER = 5, 0.999
MAX_PROBES = 8192


@lru_cache(maxsize=256)
def probes_for(parties: int) -> int:
    """Return how many probes a sum of so many vectors has: 1,024, doubled until one missing share of the noise shows.

    Found is meant as in ``LOOKS`` and ``POWER``: 1,024 suffice up to 7 parties, 10 take 2,048 (1,024 find it in 87 of
    100 runs), 20 take 8,192. That is ``MAX_PROBES``; with more parties one missing share takes more rounds to be found.
    """
    probes = PROBES
    while parties > 1 and probes < MAX_PROBES and detection_power(1 - 1 / parties, probes, LOOKS) < POWER:
        probes *= 2
    return probes


@lru_cache(maxsize=64)
def encoding_of(noise: SharedNoise, dimension: int, bits: int | None = None, rotation: str | None = None) -> Encoding:
    """Return the encoding for a model of so many parameters, in the narrowest width whose sum cannot wrap.

    A coordinate of a silo's integers is clamped to what its expected batch reaches if all its gradients are at the clip
    and aligned (record unit), or to the sensitivity (silo unit); the width has room for as much from all parties and
    for twelve standard deviations of their noise.

    Parameters
    ----------
    noise : SharedNoise
    dimension : int
    bits : int, optional
        16, 24 or 32, at least those needed.
    rotation : str, optional
        Hexadecimal public key of a random rotation, for 16 bits.

    Raises
    ------
    EncodingError
        If 32 bits, or those given, do not hold the sum; or a share's sigma would be below 16.
    """
    kappa = noise.kappa
    if kappa is None:
        kappa = min(max(POINTS / math.sqrt(max(dimension, 1)), KAPPA), _FINEST)
    return Encoding.plan(
        noise.unit,
        dimension,
        noise.clip,
        parties=noise.parties,
        noise_multiplier=noise.noise_multiplier,
        noise_shares=noise.shares,
        batch=noise.batch,
        bits=bits,
        kappa=kappa,
        rotation=rotation,
        probes=noise.probes,
    )


def words(encoding: Encoding, vector: NDArray[np.float64], source: Csprng) -> tuple[NDArray[np.uint32], int]:
    """Turn a silo's sum or update into words without noise; they stay in the silo until :func:`add_share`.

    Parameters
    ----------
    encoding : Encoding
    vector : numpy.ndarray of float64, shape (dimension,)
        Record unit: the sum of clipped gradients. Silo unit: the update; it is clipped once more, and not finite, zero.
    source : Csprng
        Of the rounding.

    Returns
    -------
    words : numpy.ndarray of uint32, shape (encoding.length,)
        The probes, all zero, at the end.
    clamped : int
        Coordinates that the bound cut: the silo's own business, like all else about the vector.
    """
    encoded = encoding.encode(vector, source)
    return to_ring(encoded.integers), encoded.clamped


def add_share(encoding: Encoding, plain: NDArray[np.uint32], source: Csprng) -> NDArray[np.uint32]:
    """Return the words with this silo's share of the noise, drawn now; the sum is modulo 2**32.

    Parameters
    ----------
    encoding : Encoding
    plain : numpy.ndarray of uint32
        As :func:`words` made them.
    source : Csprng
        Of this attempt alone: the same noise beneath two vectors would come to light as their difference.
    """
    return to_ring(encoding.noise(source)) + plain


def mean_of(
    noise: SharedNoise, encoding: Encoding, total: NDArray[np.uint32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Turn an opened sum into the mean over the public denominator, and the probes.

    Parameters
    ----------
    noise : SharedNoise
    encoding : Encoding
    total : numpy.ndarray of uint32, shape (encoding.length,)
        Modulo 2**32 or 2**bits.

    Returns
    -------
    mean : numpy.ndarray of float64, shape (dimension,)
        Record unit: the mean gradient, to be stepped against. Silo unit: the mean update.
    probes : numpy.ndarray of int64, shape (probes,)
        For :func:`watch`.
    """
    vector, probes = encoding.decode(total)
    return vector / noise.denominator, probes


def watch(test: ProbeTest, encoding: Encoding, probes: NDArray[np.int64], survivors: int) -> ProbeTest:
    """Hold a round's probes against the noise that so many survivors have promised, over all rounds so far.

    Without noise there is nothing to hold them against, and ``test`` is returned as it is.
    """
    if encoding.noise_variance == 0:
        return test
    return test.observe(probes, survivors * encoding.noise_variance)
