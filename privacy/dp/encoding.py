"""How a party's vector becomes integers whose sum can be aggregated modulo 2**bits, with noise inside.

Clip, (rotate,) scale, round stochastically, clamp, append probes, add this party's share of discrete Gaussian noise,
reduce modulo 2**bits; and back, for the sum. All numbers are public and fixed in advance: every party computes them
for itself from the settings and refuses an encoding whose derived numbers differ. Rounding and the sensitivity are
those of :mod:`quire.privacy.dp.rounding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import KEY_BYTES, Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.discrete_gaussian import MIN_SHARED_VARIANCE, sample
from quire.privacy.dp.probes import PROBES
from quire.privacy.dp.rotation import padded_length, rotate, unrotate
from quire.privacy.dp.rounding import (
    KAPPA,
    ROUNDING_FAILURE,
    EncodingError,
    clip_to,
    delta2_squared,
    round_within,
    scaled_clip,
    share_variance,
    stochastic_round,
)
from quire.privacy.dp.wire import WIDTHS, bits_needed, centred

#: After a rotation a coordinate of a vector at the clip is about normal with standard deviation kappa; this many of
#: them are kept, what lies beyond is clamped.
ROTATED_TAIL = 6.5
_DERIVED = ("delta2_squared", "noise_variance")


@dataclass(frozen=True)
class Encoded:
    """A party's integers before noise; they never leave it.

    Attributes
    ----------
    integers : numpy.ndarray of int64
        ``Encoding.length`` of them; the last ones are the probes, zero.
    finite : bool
        False if the vector held a NaN or an infinity and was replaced by zero.
    redrawn : int
        How often the rounding was drawn anew (silo unit).
    clamped : int
        How many coordinates the bound cut.
    """

    integers: NDArray[np.int64]
    finite: bool
    redrawn: int
    clamped: int


@dataclass(frozen=True)
class Encoding:
    """The public numbers of one encoding; :meth:`plan` chooses those that follow from others.

    Attributes
    ----------
    unit : Unit
        ``SILO``: a party's vector is one unit, clipped here. ``RECORD``: it is a sum of clipped gradients.
    dimension : int
        Coordinates of a party's vector.
    clip : float
        L2 norm that one unit is clipped to.
    parties : int
        How many vectors are added at most.
    noise_multiplier : float
        z: noise on the sum over the sensitivity; 0 for none.
    noise_shares : int
        How many shares of the noise suffice for z (U_min - c_dp); any further ones are surplus.
    bound : int
        Largest magnitude of a coordinate before noise; beyond, it is clamped, which lengthens no difference.
    bits : int
        Width on the wire: 16, 24 or 32.
    kappa : float
        Integer units per root mean square coordinate of a vector at the clip.
    rotation : str or None
        Hexadecimal public key of the random rotation, if there is one.
    probes : int
        All-zero coordinates appended: what is released of them is noise alone.

    Raises
    ------
    EncodingError
        If the numbers do not go together: the sum could wrap around, or a share of the noise is too small.
    """

    unit: Unit
    dimension: int
    clip: float
    parties: int
    noise_multiplier: float
    noise_shares: int
    bound: int
    bits: int
    kappa: float = KAPPA
    rotation: str | None = None
    probes: int = PROBES

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise EncodingError(f"the clip has to be a number above 0, not {self.clip}")
        if not 1 <= self.noise_shares <= self.parties or self.probes < 0 or self.bound < 1:
            raise EncodingError(
                f"an encoding needs 1 <= noise_shares <= parties, probes of at least 0 and a bound of at least 1, "
                f"not {self.noise_shares}, {self.parties}, {self.probes}, {self.bound}"
            )
        if self.rotation is not None:
            _key(self.rotation)
        if self.parties > 1 and 0 < self.noise_variance < MIN_SHARED_VARIANCE:
            raise EncodingError(
                f"a share of the noise has sigma^2={self.noise_variance}, below {MIN_SHARED_VARIANCE}, where sums of "
                "shares stop being as good as one discrete Gaussian: raise kappa or the noise multiplier"
            )
        needed = bits_needed(self.parties, self.bound, self.noise_variance)
        if self.bits not in WIDTHS or self.bits < needed:
            raise EncodingError(
                f"{self.parties} vectors with coordinates up to {self.bound} and their noise need {needed} bits, and "
                f"travel in 16, 24 or 32: {self.bits} do not hold them; lower kappa or the bound, or rotate"
            )

    @classmethod
    def plan(
        cls,
        unit: Unit,
        dimension: int,
        clip: float,
        *,
        parties: int,
        noise_multiplier: float,
        noise_shares: int | None = None,
        batch: int = 1,
        bound: int | None = None,
        bits: int | None = None,
        kappa: float = KAPPA,
        rotation: str | None = None,
        probes: int = PROBES,
    ) -> Encoding:
        """Choose the bound and the narrowest width for them, where they are not given.

        Parameters
        ----------
        unit, dimension, clip, parties, noise_multiplier, kappa, rotation, probes
            As in the class.
        noise_shares : int, optional
            By default all parties'.
        batch : int
            Record unit: the largest public expected number of records in a party's sum. The bound is by default what
            that many aligned gradients at the clip reach in one coordinate, so that nothing is clamped in practice.
        bound, bits : int, optional

        Raises
        ------
        EncodingError
            If 32 bits do not suffice, or the numbers do not go together.
        """
        if batch < 1:
            raise EncodingError(f"a batch has at least one record, not {batch}")
        length = dimension if rotation is None else padded_length(dimension)
        delta2 = delta2_squared(length, unit, kappa)
        if bound is None:
            bound = batch * (math.isqrt(delta2) if rotation is None else math.ceil(ROTATED_TAIL * kappa))
        shares = parties if noise_shares is None else noise_shares
        if bits is None:
            needed = bits_needed(parties, bound, share_variance(noise_multiplier, delta2, shares))
            bits = next((width for width in WIDTHS if width >= needed), WIDTHS[-1])
        return cls(unit, dimension, clip, parties, noise_multiplier, shares, bound, bits, kappa, rotation, probes)

    @property
    def rounded(self) -> int:
        """Number of coordinates that are rounded: the dimension, or the power of two it is rotated into."""
        return self.dimension if self.rotation is None else padded_length(self.dimension)

    @property
    def length(self) -> int:
        """Number of integers that travel."""
        return self.rounded + self.probes

    @property
    def scale(self) -> float:
        """Integer units per unit of the vector."""
        return scaled_clip(self.rounded, self.kappa) / self.clip

    @property
    def delta2_squared(self) -> int:
        """Squared L2 sensitivity of the sum of the integers."""
        return delta2_squared(self.rounded, self.unit, self.kappa)

    @property
    def noise_variance(self) -> int:
        """sigma^2 of one party's share of the noise; 0 for none."""
        return share_variance(self.noise_multiplier, self.delta2_squared, self.noise_shares)

    @property
    def failure(self) -> float:
        """What one release adds to delta because the sensitivity's bound may fail: 0 for the silo unit."""
        return 0.0 if self.unit is Unit.SILO else ROUNDING_FAILURE

    def encode(self, vector: NDArray[np.float64], source: Csprng) -> Encoded:
        """Turn a party's vector into integers, without noise.

        Parameters
        ----------
        vector : numpy.ndarray of float64, shape (dimension,)
            Silo unit: any; it is clipped here, and zero if not finite. Record unit: a float64 sum of gradients that
            were each clipped before (:func:`quire.privacy.dp.rounding.clipped_sum`).
        source : quire.privacy.csprng.Csprng

        Raises
        ------
        EncodingError
            If the shape is wrong, or a sum of clipped gradients is not finite, which it cannot be.
        """
        if vector.shape != (self.dimension,) or vector.dtype != np.float64:
            raise EncodingError(
                f"the encoding is for {self.dimension} float64 numbers, not {vector.shape} of {vector.dtype}"
            )
        finite = True
        if self.unit is Unit.SILO:
            vector, finite = clip_to(vector, self.clip)
        elif not np.isfinite(vector).all():
            raise EncodingError("a sum of clipped gradients is not finite: clip every record's gradient first")
        if self.rotation is not None:
            vector = rotate(vector, _key(self.rotation))
        scaled, redrawn = vector * self.scale, 0
        if self.unit is Unit.SILO:
            rounded, redrawn = round_within(scaled, self.delta2_squared, source)
        else:
            rounded = stochastic_round(scaled, source)
        integers = np.zeros(self.length, dtype=np.int64)
        np.clip(rounded, -self.bound, self.bound, out=integers[: self.rounded])
        clamped = int(np.count_nonzero(integers[: self.rounded] != rounded))
        return Encoded(integers, finite, redrawn, clamped)

    def noise(self, source: Csprng) -> NDArray[np.int64]:
        """Draw this party's share of the noise, for every integer that travels; fresh for every attempt."""
        if self.noise_variance == 0:
            return np.zeros(self.length, dtype=np.int64)
        return sample(self.noise_variance, self.length, source)

    def decode(self, total: NDArray[np.uint32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Turn the sum over the parties, modulo 2**32 or 2**bits, into the sum of their vectors.

        Returns
        -------
        vector : numpy.ndarray of float64, shape (dimension,)
        probes : numpy.ndarray of int64, shape (probes,)
            The noise that the probes released, in integer units.

        Raises
        ------
        EncodingError
            If the sum does not have the encoding's length.
        """
        released = self.released(total)
        vector = centred(total[: self.rounded], self.bits) / self.scale
        if self.rotation is not None:
            vector = unrotate(vector, _key(self.rotation), self.dimension)
        return vector, released

    def released(self, total: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the probes alone, as :meth:`decode` does.

        Raises
        ------
        EncodingError
            If the sum does not have the encoding's length.
        """
        if total.shape != (self.length,):
            raise EncodingError(f"the encoding is for {self.length} integers, not {total.shape}")
        return centred(total[self.rounded :], self.bits)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object, with those that follow from them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)} | {"unit": str(self.unit)}
        return values | {name: getattr(self, name) for name in _DERIVED}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Encoding:
        """Read an encoding, strictly: all fields, no other, of the right types, derived numbers that agree.

        Raises
        ------
        EncodingError
            Naming what is wrong.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(value, Mapping) or set(value) != names | set(_DERIVED):
            raise EncodingError("an encoding is an object with exactly its own fields")
        for name in names - {"unit", "rotation"}:
            real = name in ("clip", "noise_multiplier", "kappa")
            if isinstance(value[name], bool) or not isinstance(value[name], float | int if real else int):
                raise EncodingError(f"the encoding's {name} is not a number of the right kind: {value[name]!r}")
        if value["unit"] not in list(Unit) or not isinstance(value["rotation"], str | None):
            raise EncodingError("the encoding's unit or rotation is not one that exists")
        encoding = cls(**{name: value[name] for name in names - {"unit"}}, unit=Unit(value["unit"]))
        for name in _DERIVED:
            if value[name] != getattr(encoding, name):
                raise EncodingError(f"the encoding says {name}={value[name]!r} where {getattr(encoding, name)} follows")
        return encoding


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or key.hex() != text:
        raise EncodingError("the rotation's key has to be 64 lower-case hexadecimal digits")
    return key
