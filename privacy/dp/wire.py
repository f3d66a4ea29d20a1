"""Integers modulo 2**bits, and the bytes they travel as: little-endian, two, three or four of them.

Arithmetic is that of unsigned 32-bit integers, which wraps around by itself. Because 2**16 and 2**24 divide 2**32,
cutting to the low bits before or after a sum comes to the same.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quire.privacy.dp.rounding import EncodingError

WIDTHS = (16, 24, 32)
#: The sum's noise may reach this many standard deviations before it wraps around.
TAIL = 12


def bits_needed(parties: int, bound: int, noise_variance: int) -> int:
    """Return the least width in which the sum does not wrap around, up to 12 standard deviations of its noise.

    ``ceil(log2(2 (n bound + 12 sigma_sum) + 1))``. A sum that wraps is useless, but as private as any.
    """
    largest = parties * bound + math.isqrt(TAIL**2 * noise_variance * parties) + 1
    return (2 * largest).bit_length()


def to_ring(integers: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Reduce integers modulo 2**32."""
    return integers.astype(np.uint32)  # from int64, a conversion keeps the low 32 bits


def centred(ring: NDArray[np.uint32], bits: int) -> NDArray[np.int64]:
    """Return the representatives in [-2**(bits - 1), 2**(bits - 1)) of integers modulo 2**bits."""
    _check(bits)
    shift = np.uint32(32 - bits)
    signed: NDArray[np.int32] = (ring << shift).view(np.int32) >> np.int32(32 - bits)
    return signed.astype(np.int64)


def pack(ring: NDArray[np.uint32], bits: int) -> bytes:
    """Return the low ``bits`` of every integer, ``bits / 8`` bytes each."""
    _check(bits)
    words = np.ascontiguousarray(ring, dtype="<u4")
    if bits == 32:
        return words.tobytes()
    if bits == 16:
        return words.astype("<u2").tobytes()
    return words.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def unpack(data: bytes, bits: int, count: int) -> NDArray[np.uint32]:
    """Read what :func:`pack` wrote.

    Parameters
    ----------
    data : bytes
    bits : int
        16, 24 or 32.
    count : int
        How many integers there have to be.

    Raises
    ------
    EncodingError
        If the number of bytes is not that of ``count`` integers.
    """
    _check(bits)
    if len(data) != count * bits // 8:
        raise EncodingError(f"{count} integers of {bits} bits are {count * bits // 8} bytes, not {len(data)}")
    if bits == 32:
        return np.frombuffer(data, dtype="<u4").astype(np.uint32)
    if bits == 16:
        return np.frombuffer(data, dtype="<u2").astype(np.uint32)
    words = np.zeros((count, 4), dtype=np.uint8)
    words[:, :3] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
    return words.reshape(-1).view("<u4").astype(np.uint32, copy=False)


def _check(bits: int) -> None:
    if bits not in WIDTHS:
        raise EncodingError(f"integers travel in 16, 24 or 32 bits, not {bits}")
