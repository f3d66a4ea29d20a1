"""The one way a sum of clipped vectors leaves: with the noise of a plan, on a lattice fine enough to cost nothing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.calibration import calibrate
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.lattice import NoiseKind, Release, noisy_sum, noisy_sum_gaussian
from quire.privacy.dp.rounding import KAPPA

#: At most what one release with discrete noise adds to delta: the bound on the rounding fails with probability 2^-60,
#: and the sampler's distance from exact, for any model that fits into memory, is far less.
FAILURE = 2.0**-59
#: The clip in lattice points. Rounding lengthens the sensitivity by about sqrt(2 ln 2**60) / (2 * this), a thousandth.
_POINTS = 4096.0
_FINEST = 1024.0


def release_of(dimension: int, clip: float, noise_multiplier: float, kind: NoiseKind | str) -> Release:
    """Return the public numbers of one release.

    Parameters
    ----------
    dimension : int
    clip : float
        L2 norm of each term of the sum, above 0.
    noise_multiplier : float
        Above 0, in units of the sensitivity.
    kind : NoiseKind or str
        ``discrete`` or ``gaussian``.

    Raises
    ------
    EncodingError
        If a number is out of range.
    """
    kappa = min(max(_POINTS / math.sqrt(max(dimension, 1)), KAPPA), _FINEST)
    return Release(NoiseKind(kind), dimension, clip, noise_multiplier, kappa)


def silo_noise(epsilon: float, delta: float | None, rounds: int) -> float:
    """Return the noise multiplier of the silo unit: every silo may be in every round, and nothing is amplified.

    Parameters
    ----------
    epsilon : float
        Above 0; infinite for no noise, which needs no ``delta``.
    delta : float or None
    rounds : int

    Raises
    ------
    CalibrationError
        If no noise reaches the target.
    """
    if math.isinf(epsilon):
        return 0.0
    return calibrate(epsilon, delta or 0.0, rounds, 1.0, Unit.SILO, failure=rounds * FAILURE)


def add_noise(total: NDArray[np.float64], release: Release, source: Csprng) -> NDArray[np.float64]:
    """Return a sum of clipped vectors with the release's noise added.

    Parameters
    ----------
    total : numpy.ndarray of float64, shape (d,)
        Added up in float64; see :func:`quire.privacy.dp.lattice.noisy_sum`.
    release : Release
        For this dimension.
    source : Csprng
    """
    if release.kind is NoiseKind.GAUSSIAN:
        return noisy_sum_gaussian(total, release.clip, release.noise_multiplier, source)[0]
    return noisy_sum(total, release.clip, release.noise_multiplier, source, release.kappa)[0]
