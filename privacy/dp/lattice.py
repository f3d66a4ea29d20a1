"""The noise of one release made in one place: a step of a silo's own DP-SGD, or a sum at a trusted server.

``discrete``: the sum is rounded stochastically to a lattice and discrete Gaussian noise is added; what comes out is a
lattice point, drawn from exactly the distribution that is accounted for, and decoding and all that follows is
post-processing. ``gaussian``: floating-point noise on a floating-point sum, for comparison with other libraries; what
is proved of it is proved of real numbers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.discrete_gaussian import sample, tv_bound
from quire.privacy.dp.events import SampledDiscreteGaussian, SampledGaussian
from quire.privacy.dp.rounding import (
    KAPPA,
    ROUNDING_FAILURE,
    EncodingError,
    delta2_squared,
    scaled_clip,
    share_variance,
    stochastic_round,
)

#: The largest epsilon that may be claimed of noise drawn here: the sampler's distance from exact counts (1 + e^epsilon)
#: times, and is accounted for 2^64 times.
MAX_EPSILON = 44.0
_DISTANCE_FACTOR = 2.0**64


class NoiseKind(StrEnum):
    """How the noise of a release is made."""

    DISCRETE = "discrete"
    GAUSSIAN = "gaussian"


@dataclass(frozen=True)
class Release:
    """One release in public numbers: they follow from settings alone and can be charged before data is touched.

    Attributes
    ----------
    kind : NoiseKind
    dimension : int
    clip : float
        L2 norm that each term of the sum is clipped to.
    noise_multiplier : float
        z as asked for, above 0.
    kappa : float
        Lattice points per root mean square coordinate at the clip.

    Raises
    ------
    EncodingError
        If a number is out of range.
    """

    kind: NoiseKind
    dimension: int
    clip: float
    noise_multiplier: float
    kappa: float = KAPPA

    def __post_init__(self) -> None:
        scaled_clip(self.dimension, self.kappa)
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise EncodingError(f"the clip has to be a number above 0, not {self.clip}")
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise EncodingError(f"a noisy sum needs a noise multiplier above 0, not {self.noise_multiplier}")

    @property
    def scale(self) -> float:
        """Lattice points per unit of the sum."""
        return scaled_clip(self.dimension, self.kappa) / self.clip

    @property
    def delta2_squared(self) -> int:
        """Squared L2 sensitivity in lattice units (discrete noise)."""
        return _exact_numbers(self.dimension, self.noise_multiplier, self.kappa)[0]

    @property
    def sigma_squared(self) -> int:
        """Parameter of the discrete Gaussian in squared lattice units: ``ceil(z^2 * delta2_squared)``."""
        return _exact_numbers(self.dimension, self.noise_multiplier, self.kappa)[1]

    @property
    def standard_deviation(self) -> float:
        """Of the noise on a coordinate of the sum, in the sum's own units (without the rounding's share)."""
        if self.kind is NoiseKind.GAUSSIAN:
            return self.noise_multiplier * self.clip
        return math.sqrt(self.sigma_squared) / self.scale

    @property
    def failure(self) -> float:
        """What this one release adds to delta: the rounding's bound failing, and the sampler's distance from exact.

        A distance t adds (1 + e^epsilon) t; it is counted 2**64 times, which covers every epsilon up to
        :data:`MAX_EPSILON`; what claims more is refused. For
        ``gaussian`` it is 0, and what floating point does is not accounted for at all.
        """
        if self.kind is NoiseKind.GAUSSIAN:
            return 0.0
        return ROUNDING_FAILURE + _DISTANCE_FACTOR * tv_bound(self.sigma_squared, self.dimension)

    def event(self, sampling_rate: float, steps: int) -> SampledGaussian | SampledDiscreteGaussian:
        """Return what ``steps`` such releases over Poisson samples are accounted as."""
        if self.kind is NoiseKind.GAUSSIAN:
            return SampledGaussian(self.noise_multiplier, sampling_rate, steps)
        return SampledDiscreteGaussian(
            self.sigma_squared, self.delta2_squared, sampling_rate, steps, failure=steps * self.failure
        )


def noisy_sum(
    clipped_sum: NDArray[np.float64], clip: float, noise_multiplier: float, source: Csprng, kappa: float = KAPPA
) -> tuple[NDArray[np.float64], Release]:
    """Release a sum of clipped vectors with discrete Gaussian noise.

    Parameters
    ----------
    clipped_sum : numpy.ndarray of float64, shape (d,)
        The sum of at most 32,768 vectors, each of an L2 norm of at most ``clip``, added up in float64: adding or
        removing one must move it by no more than ``clip * (1 + 2**-20)``. Sums made in float32 do not fulfil this.
    clip : float
        Above 0.
    noise_multiplier : float
        z: the noise has z times the sensitivity as its standard deviation.
    source : quire.privacy.csprng.Csprng
    kappa : float
        At the default 16 the noise is 1.002 times that of the Gaussian mechanism at most, for d of at least 10,000.

    Returns
    -------
    released : numpy.ndarray of float64, shape (d,)
        A lattice point divided by the lattice's scale; all that is done with it is post-processing.
    release : Release
        The numbers to account for it.

    Raises
    ------
    EncodingError
        If the sum is not a finite float64 vector, or a number is out of range.
    """
    release = Release(NoiseKind.DISCRETE, _dimension(clipped_sum), clip, noise_multiplier, kappa)
    released = clipped_sum * release.scale
    integers = stochastic_round(released, source)
    integers += sample(release.sigma_squared, release.dimension, source)
    return np.divide(integers, release.scale, out=released), release


def noisy_sum_gaussian(
    clipped_sum: NDArray[np.float64], clip: float, noise_multiplier: float, source: Csprng
) -> tuple[NDArray[np.float64], Release]:
    """Release a sum of clipped vectors with floating-point Gaussian noise; see :func:`noisy_sum`.

    The noise is unpredictable, but that floats are not real numbers is not accounted for: use it to compare.
    """
    release = Release(NoiseKind.GAUSSIAN, _dimension(clipped_sum), clip, noise_multiplier)
    return clipped_sum + source.normals(release.dimension) * release.standard_deviation, release


@lru_cache(maxsize=64)
def _exact_numbers(dimension: int, noise_multiplier: float, kappa: float) -> tuple[int, int]:
    """Return Delta2^2 and sigma^2, kept because a small model's step takes no longer than reckoning them anew."""
    delta2 = delta2_squared(dimension, Unit.RECORD, kappa)
    return delta2, share_variance(noise_multiplier, delta2)


def _dimension(clipped_sum: NDArray[np.float64]) -> int:
    if clipped_sum.ndim != 1 or clipped_sum.dtype != np.float64:
        raise EncodingError(f"a noisy sum is a float64 vector, not {clipped_sum.shape} of {clipped_sum.dtype}")
    if not np.isfinite(clipped_sum).all():
        raise EncodingError("a sum of clipped gradients is not finite: clip every record's gradient first")
    return len(clipped_sum)
