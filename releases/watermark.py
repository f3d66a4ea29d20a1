"""A watermark in a model's weights, read with a secret key, and how sure one can be that it is there.

White box: who verifies needs the weights themselves. As Uchida et al. (2017, arXiv 1701.04082, section 3.3) a message
of n bits is read as the signs of n pseudo-random projections of the weights. Theirs is put in by a regulariser during
training; here the finished model is changed, and as little as the projections allow, so that training and its privacy
are over before: post-processing costs no epsilon. Projections run over all matrices and kernels at once, each divided
by the root mean square that it had, so that every layer is changed in the same proportion.

Both message and projections follow from one secret seed. For a model that was fixed before the seed was drawn, each bit
matches with probability 1/2 whatever the model is, since the message is uniform and independent of it: the p-value is
binomial, and exact. It says nothing where somebody chose the seed after seeing the model: against that an envelope
commits to the seed (:func:`commitment`), signed and with its date.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import SEED_SIZE, derive
from quire.releases.errors import WatermarkError
from quire.text import visible

#: Bits of the message, and weights that there must be for each: fewer, and the mark would cost too much.
BITS = 64
WEIGHTS_PER_BIT = 32
#: A model is said to hold a mark if fewer than this share of unmarked ones would match as well. Fixed before measuring.
THRESHOLD = 1e-9
#: How far each projection is pushed, in the standard deviations that it has in an unmarked model.
MARGIN = 1.0

_SWEEPS = 200
_COMMIT_TAG = "quire/release/watermark/1"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """A tensor that carries the mark: its name, shape, and root mean square before it was marked."""

    name: str
    shape: tuple[int, ...]
    scale: float

    @property
    def size(self) -> int:
        """Weights in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Found:
    """What a key reads in a model.

    Attributes
    ----------
    matching, bits : int
        Bits that are as in the key's message, out of how many.
    """

    matching: int
    bits: int

    @property
    def p_value(self) -> float:
        """Probability that a model without the mark matches in as many bits or more."""
        ways = sum(math.comb(self.bits, count) for count in range(self.matching, self.bits + 1))
        return float(Fraction(ways, 2**self.bits))

    @property
    def holds(self) -> bool:
        """Whether that is below :data:`THRESHOLD`."""
        return self.p_value < THRESHOLD


def commitment(seed: bytes) -> str:
    """Return the hash by which an envelope commits to a seed; it tells nothing of it."""
    return tagged_hash(_COMMIT_TAG, seed).hex()


def layers_of(arrays: Arrays) -> tuple[Layer, ...]:
    """Return the tensors of a model that can carry a mark: matrices and kernels of floats, by name.

    Raises
    ------
    WatermarkError
        If they have too few weights, or some that are not finite.
    """
    layers = []
    for name in sorted(arrays):
        array = arrays[name]
        if array.ndim >= 2 and array.size and array.dtype.kind == "f":
            scale = float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
            if not math.isfinite(scale):
                raise WatermarkError(f"The model's '{visible(name)}' has weights that are not finite numbers.")
            if scale > 0.0:
                layers.append(Layer(name, array.shape, scale))
    size = sum(layer.size for layer in layers)
    if size < BITS * WEIGHTS_PER_BIT:
        raise WatermarkError(
            f"The model is too small for a watermark: it has {size} weights in matrices and kernels, and {BITS} bits "
            f"need {BITS * WEIGHTS_PER_BIT}."
        )
    return tuple(layers)


def embed(arrays: Arrays, seed: bytes) -> tuple[dict[str, np.ndarray], tuple[Layer, ...]]:
    """Put the mark of a seed into a model.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        The model; left as it is.
    seed : bytes
        32 secret random bytes.

    Returns
    -------
    dict of str to numpy.ndarray
        The same names, shapes and dtypes.
    tuple of Layer
        What is needed to read the mark again, with the seed.

    Raises
    ------
    WatermarkError
        If the model cannot carry it.

    Notes
    -----
    Each bit asks for a half-space: the sign of a projection, by a margin. Projecting onto the violated ones in turn
    (Kaczmarz) ends near the closest point of their intersection, for random projections are nearly orthogonal.
    """
    layers = layers_of(arrays)
    message = _message(seed)
    weights = _flat(arrays, layers)
    for _ in range(_SWEEPS):
        moved = False
        for bit, sign in enumerate(message):
            row = _row(seed, bit, weights.size)
            lacking = MARGIN - sign * float(row @ weights)
            if lacking > 1e-3:
                weights += row * (sign * lacking)
                moved = True
        if not moved:
            break
    marked, at = {name: np.array(array) for name, array in arrays.items()}, 0
    for layer in layers:
        part = weights[at : at + layer.size] * layer.scale
        marked[layer.name] = part.reshape(layer.shape).astype(arrays[layer.name].dtype)
        at += layer.size
    if read_mark(marked, seed, layers).matching < BITS:
        raise WatermarkError("The model does not take the watermark: its weights are too coarse, or too few.")
    return marked, layers


def read_mark(arrays: Arrays, seed: bytes, layers: tuple[Layer, ...]) -> Found:
    """Count the bits of a seed's message that a model holds.

    Raises
    ------
    WatermarkError
        If the model lacks a layer, or has it in another shape: then there is nothing to read.
    """
    weights, message = _flat(arrays, layers), _message(seed)
    matching = sum(sign * float(_row(seed, bit, weights.size) @ weights) > 0.0 for bit, sign in enumerate(message))
    return Found(matching, BITS)


def _flat(arrays: Arrays, layers: tuple[Layer, ...]) -> NDArray[np.float64]:
    parts = []
    for layer in layers:
        array = arrays.get(layer.name)
        if array is None or array.shape != layer.shape or array.dtype.kind not in "fiu":
            raise WatermarkError(
                f"The model has no '{visible(layer.name)}' of the shape {layer.shape}, in which the key's mark would "
                "be: it is another kind of model, and nothing can be read in it."
            )
        part = array.astype(np.float64).reshape(-1) / layer.scale
        if not np.isfinite(part).all():
            raise WatermarkError(f"The model's '{visible(layer.name)}' has weights that are not finite numbers.")
        parts.append(part)
    return np.concatenate(parts)


def _message(seed: bytes) -> tuple[int, ...]:
    if len(seed) != SEED_SIZE:
        raise WatermarkError(f"A watermark's seed has {SEED_SIZE} bytes.")
    number = int.from_bytes(derive(seed, b"quire/watermark/message/1")[: BITS // 8], "big")
    return tuple(1 if number >> bit & 1 else -1 for bit in range(BITS))


def _row(seed: bytes, bit: int, size: int) -> NDArray[np.float64]:
    """Return a pseudo-random direction of length one: signs from AES-256-CTR under a key of this bit."""
    key = derive(seed, b"quire/watermark/row/1/" + str(bit).encode())
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(-(-size // 8)))
    signs = np.unpackbits(np.frombuffer(stream, np.uint8), count=size).astype(np.float64)
    return (2.0 * signs - 1.0) / math.sqrt(size)
