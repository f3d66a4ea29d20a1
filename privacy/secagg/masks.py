"""Masks: AES-256-CTR keystreams, read as little-endian words and added to a vector modulo 2**32.

The counter starts at zero, and a seed is used once. A block of the vector stays in the cache while all keystreams
pass over it: the additions then cost little beside the cipher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from quire.privacy.secagg.errors import BadVector

Words = NDArray[np.uint32]

SEED_SIZE = 32

_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)
_STREAMS = 256  # ciphers open at once: bounds memory when thousands of masks are to be taken off


def add_masks(vector: Words, plus: Sequence[bytes], minus: Sequence[bytes] = ()) -> None:
    """Add and subtract the masks of some seeds, in place, modulo 2**32.

    Parameters
    ----------
    vector : ndarray of uint32
        Changed in place; contiguous.
    plus, minus : sequence of bytes
        Seeds of 32 bytes.
    """
    signed = [(seed, np.add) for seed in plus] + [(seed, np.subtract) for seed in minus]
    out = bytearray(_BLOCK + 16)  # the cipher asks for one block of room to spare
    words = np.frombuffer(out, dtype="<u4")
    for first in range(0, len(signed), _STREAMS):
        streams = [(_keystream(seed), change) for seed, change in signed[first : first + _STREAMS]]
        for start in range(0, vector.size, _BLOCK // 4):
            block = vector[start : start + _BLOCK // 4]
            size = block.size
            zeros, mask = memoryview(_ZEROS)[: 4 * size], words[:size]
            for stream, change in streams:
                stream.update_into(zeros, out)
                change(block, mask, out=block)


def _keystream(seed: bytes) -> Any:
    if len(seed) != SEED_SIZE:
        raise ValueError(f"The seed of a mask has {SEED_SIZE} bytes.")
    return Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()


def packed_size(length: int, bits: int) -> int:
    """Return the bytes that a vector takes on the wire."""
    return length * bits // 8


def add_packed(total: Words, data: bytes | memoryview, bits: int) -> None:
    """Add a packed vector to a total, in place, modulo 2**32; block by block, so that nothing large is unpacked.

    Raises
    ------
    BadVector
        If the packed vector has not the length of the total.
    """
    if bits not in (16, 24, 32) or len(data) != packed_size(total.size, bits):
        raise BadVector(f"A vector of {total.size} coordinates of {bits} bits does not have {len(data)} bytes.")
    if bits == 32:
        total += np.frombuffer(data, dtype="<u4")
        return
    if bits == 16:
        total += np.frombuffer(data, dtype="<u2")
        return
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
    size = _BLOCK // 4
    wide = np.zeros((size, 4), dtype=np.uint8)
    for start in range(0, total.size, size):
        block = total[start : start + size]
        wide[: block.size, :3] = rows[start : start + size]
        block += wide.view("<u4").reshape(-1)[: block.size]
