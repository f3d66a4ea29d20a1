"""A weighted mean through a sum of integers, without noise: what a silo's arrays become before they are masked.

A vector holds, one after the other: the arrays, each in C order and in the order given, every coordinate multiplied by
the silo's weight; the weight; the metrics, multiplied by the weight. Coordinates are fixed-point numbers with
stochastic rounding, no larger than ``(2**(bits-1) - 1) // parties``, so that the sum of all parties cannot wrap
whatever their data are. The weight and the metrics would be too coarse for that and are spread over several
coordinates, as the digits of larger integers: the sum of the weights is exact.

The server learns sum(w x), sum(w) and sum(w m), and divides. Under differential privacy another encoding is used,
:mod:`quire.privacy.dp.encoding`: weights and metrics then stay home.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import KEY_BYTES, Csprng
from quire.privacy.dp.rotation import rotate, unrotate
from quire.privacy.dp.rounding import EncodingError, stochastic_round
from quire.privacy.dp.wire import WIDTHS, centred, to_ring
from quire.privacy.identity.hashing import tagged_hash

#: A rotation works on blocks of so many coordinates; only the last one is filled up.
BLOCK = 4096
#: Resolution of a metric between its bounds, in bits.
METRIC_BITS = 40
_MAX_WEIGHT = 2**40


@dataclass(frozen=True)
class Layout:
    """Shapes and types of the arrays of an update, in their order.

    Attributes
    ----------
    entries : tuple of (tuple of int, str)
        Shape and name of the numpy type of each: float16, float32 or float64.
    """

    entries: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, arrays: Sequence[NDArray[np.floating]]) -> Layout:
        """Return the layout of some arrays.

        Raises
        ------
        EncodingError
            If one of them does not hold floating-point numbers of at most 64 bits.
        """
        for array in arrays:
            if array.dtype.kind != "f" or array.dtype.itemsize > 8:
                raise EncodingError(f"an array of the type {array.dtype} has no mean: only float16 to float64 have")
        return cls(tuple((array.shape, array.dtype.name) for array in arrays))

    @property
    def size(self) -> int:
        """Return the number of coordinates of all arrays."""
        return sum(math.prod(shape) for shape, _ in self.entries)

    def flatten(self, arrays: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
        """Return all coordinates in one vector: array by array, each in C order.

        Raises
        ------
        EncodingError
            If the arrays are not of this layout.
        """
        if Layout.of(arrays) != self:
            raise EncodingError("the arrays do not have the shapes and types that were agreed on")
        if not arrays:
            return np.zeros(0)
        return np.concatenate([np.ravel(array, order="C").astype(np.float64) for array in arrays])

    def split(self, vector: NDArray[np.float64]) -> list[NDArray[np.floating]]:
        """Return the arrays of a vector, rounded to their types."""
        arrays: list[NDArray[np.floating]] = []
        at = 0
        for shape, name in self.entries:
            size = math.prod(shape)
            arrays.append(vector[at : at + size].reshape(shape).astype(name))
            at += size
        return arrays


@dataclass(frozen=True)
class Encoded:
    """A silo's words, to be masked.

    Attributes
    ----------
    words : ndarray of uint32
    clamped : int
        Coordinates that lay beyond the bound and were cut to it.
    """

    words: NDArray[np.uint32]
    clamped: int


@dataclass(frozen=True)
class Mean:
    """What the sum says.

    Attributes
    ----------
    vector : ndarray of float64
        The weighted mean of the silos' vectors.
    weight : int
        The sum of the weights, exact.
    metrics : dict of str to float
        The weighted mean of each metric, within ``parties * bound * 2**-40 * max_weight / weight``.
    """

    vector: NDArray[np.float64]
    weight: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class FixedPoint:
    """The public numbers of an encoding; :meth:`plan` chooses the width.

    Attributes
    ----------
    size : int
        Coordinates of a silo's vector.
    parties : int
        How many vectors are added at most.
    bits : int
        16, 24 or 32.
    bound : float
        The largest magnitude of a coordinate, after the rotation if there is one; what lies beyond is clamped.
    max_weight : int
        The largest weight; weights are whole numbers from 0 on, rows as a rule.
    metrics : tuple of (str, float)
        Name and largest magnitude of each metric.
    rotation : str or None
        64 hexadecimal digits: the public key of a random rotation, which spreads a vector evenly for 16 bits.

    Raises
    ------
    EncodingError
        If a number is out of its range.
    """

    size: int
    parties: int
    bits: int
    bound: float
    max_weight: int
    metrics: tuple[tuple[str, float], ...] = ()
    rotation: str | None = None

    def __post_init__(self) -> None:
        finite = all(math.isfinite(bound) and bound > 0 for bound in (self.bound, *(b for _, b in self.metrics)))
        if self.bits not in WIDTHS or not finite:
            raise EncodingError(f"a width is 16, 24 or 32 bits and a bound is above 0, not {self.bits}, {self.bound}")
        if self.size < 1 or self.parties < 1 or self.limit < 1 or not 1 <= self.max_weight <= _MAX_WEIGHT:
            raise EncodingError(
                f"{self.size} coordinates of {self.parties} parties with weights up to {self.max_weight} "
                f"do not fit into {self.bits} bits"
            )
        if self.rotation is not None and len(bytes.fromhex(self.rotation)) != KEY_BYTES:
            raise EncodingError(f"the key of a rotation has {KEY_BYTES} bytes")

    @classmethod
    def plan(
        cls,
        size: int,
        parties: int,
        bound: float,
        step: float,
        max_weight: int,
        metrics: tuple[tuple[str, float], ...] = (),
        rotation: str | None = None,
    ) -> FixedPoint:
        """Choose the fewest bits in which a coordinate at full weight is kept in steps of at most ``step``.

        Raises
        ------
        EncodingError
            If 32 bits do not suffice.
        """
        for bits in WIDTHS:
            limit = (2 ** (bits - 1) - 1) // parties
            if limit >= 1 and bound / limit <= step:
                return cls(size, parties, bits, bound, max_weight, metrics, rotation)
        raise EncodingError(f"{parties} parties cannot keep numbers up to {bound} in steps of {step} within 32 bits")

    @property
    def limit(self) -> int:
        """Return the largest magnitude of one silo's integer: ``parties`` of them stay below ``2**(bits-1)``."""
        return int((2 ** (self.bits - 1) - 1) // self.parties)

    @property
    def scale(self) -> float:
        """Return integers per unit of a coordinate at full weight."""
        return self.limit / self.bound

    @property
    def body(self) -> int:
        """Return how many coordinates the vector takes."""
        return self.size if self.rotation is None else -(-self.size // BLOCK) * BLOCK

    @property
    def length(self) -> int:
        """Return how many words are masked."""
        return (
            self.body + self._digits(self.max_weight.bit_length()) + len(self.metrics) * self._digits(METRIC_BITS + 1)
        )

    def _digits(self, bits: int) -> int:
        return -(-bits // self._digit_bits)

    @property
    def _digit_bits(self) -> int:
        return (self.limit + 1).bit_length() - 1

    def error(self, weight: int, silos: int) -> float:
        """Return how far a coordinate of the mean may be from the plain weighted mean, if nothing was clamped.

        Each silo's rounding moves its integer by less than one, so that the sum is off by less than ``silos``:

            error < silos * max_weight / (scale * weight) + 2**-50 bound

        Parameters
        ----------
        weight : int
            The sum of the weights, above 0.
        silos : int
            How many vectors the sum has.

        Returns
        -------
        float
            A bound on every coordinate; with a rotation, on the L2 norm of the error of each block instead.
        """
        largest = silos * self.max_weight / (self.scale * weight) + 2.0**-50 * self.bound
        return largest if self.rotation is None else largest * math.sqrt(BLOCK)

    def encode(
        self,
        vector: NDArray[np.float64],
        weight: int,
        metrics: Mapping[str, float],
        source: Csprng,
        counted: str | None = None,
    ) -> Encoded:
        """Turn a silo's vector, weight and metrics into words.

        Parameters
        ----------
        vector : ndarray of float64
            Finite; what exceeds the bound is clamped, and counted.
        weight : int
            From 0 to ``max_weight``.
        metrics : mapping of str to float
            A number for each metric; clamped to its bound.
        source : Csprng
            Where the rounding's randomness comes from.
        counted : str, optional
            A metric that is not given: the share of coordinates that are clamped.

        Raises
        ------
        EncodingError
            If something is missing, not finite or out of its range.
        """
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise EncodingError(f"a vector has {self.size} coordinates, all of them finite")
        if not 0 <= weight <= self.max_weight:
            raise EncodingError(f"a weight is a whole number from 0 to {self.max_weight}")
        with np.errstate(over="ignore", invalid="ignore"):
            turned = vector if self.rotation is None else self._rotated(vector)
        if not np.isfinite(turned).all():
            raise EncodingError("a vector overflows when it is rotated")
        cut = np.clip(turned, -self.bound, self.bound)
        clamped = int(np.count_nonzero(cut != turned))
        if counted is not None:
            metrics = {**metrics, counted: clamped / self.body}
        if set(metrics) != {name for name, _ in self.metrics} or not all(map(math.isfinite, metrics.values())):
            raise EncodingError("there has to be one finite number for each of the metrics that were agreed on")
        share = weight / self.max_weight
        scaled = np.clip(cut * (self.scale * share), -self.limit, self.limit)
        integers = [stochastic_round(scaled, source), self._spread(weight, self.max_weight.bit_length())]
        for name, bound in self.metrics:
            # From 0 to 2 * 2**39 at full weight, as digits have no sign.
            level = (min(max(metrics[name] / bound, -1.0), 1.0) + 1.0) * share
            integers.append(self._spread(round(level * 2 ** (METRIC_BITS - 1)), METRIC_BITS + 1))
        return Encoded(to_ring(np.concatenate(integers)), clamped)

    def decode(self, total: NDArray[np.uint32]) -> Mean:
        """Turn the sum over the survivors into weighted means.

        Raises
        ------
        EncodingError
            If the sum has another length, or nobody had any weight.
        """
        if total.shape != (self.length,):
            raise EncodingError(f"a sum has {self.length} words")
        integers = centred(total, self.bits)
        at = self.body + self._digits(self.max_weight.bit_length())
        weight = self._gathered(integers[self.body : at])
        if weight <= 0:
            raise EncodingError("the weights of the survivors sum to nothing, as where all fail to train: no mean")
        share = weight / self.max_weight
        vector = integers[: self.body] / (self.scale * share)
        means = {}
        for name, bound in self.metrics:
            end = at + self._digits(METRIC_BITS + 1)
            level = self._gathered(integers[at:end]) / 2 ** (METRIC_BITS - 1)
            means[name] = (level / share - 1.0) * bound
            at = end
        return Mean(vector if self.rotation is None else self._unrotated(vector), weight, means)

    def _spread(self, value: int, bits: int) -> NDArray[np.int64]:
        """Return the digits of a number, the lowest first, each small enough for the sum not to wrap."""
        mask = 2**self._digit_bits - 1
        return np.array([(value >> at * self._digit_bits) & mask for at in range(self._digits(bits))], dtype=np.int64)

    def _gathered(self, digits: NDArray[np.int64]) -> int:
        return sum(int(digit) << at * self._digit_bits for at, digit in enumerate(digits))

    def _keys(self) -> list[bytes]:
        key = bytes.fromhex(self.rotation or "")
        return [tagged_hash("quire/rotation/1", key, at.to_bytes(8, "big")) for at in range(self.body // BLOCK)]

    def _rotated(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        padded = np.zeros(self.body)
        padded[: self.size] = vector
        blocks = padded.reshape(-1, BLOCK)
        return np.concatenate([rotate(block, key) for block, key in zip(blocks, self._keys(), strict=True)])

    def _unrotated(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        blocks = vector.reshape(-1, BLOCK)
        keys = self._keys()
        return np.concatenate([unrotate(block, key, BLOCK) for block, key in zip(blocks, keys, strict=True)])[
            : self.size
        ]
