"""Updates made small: rounded to one byte a number, or their largest numbers alone; the rest goes with the next one.

A silo keeps what a message left out and adds it to its next update before that is compressed, so that nothing is lost
but only late (error feedback: Seide et al. 2014, Interspeech; Stich et al. 2018, arXiv 1809.07599; Karimireddy et al.
2019, arXiv 1901.09847). An update travels as one vector of the model's parameters in its order:

``packed/levels``
    int8, one for each number that is sent: its share of the scale, in 127ths.
``packed/scales``
    float32, the largest magnitude in each block of 1,024 levels.
``packed/gaps``
    uint8, if not all numbers are sent: how many are left out before each, 255 for 255 of them and more to come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.conf.schema import EightBitCompression, NoCompression, TopKCompression

LEVELS, SCALES, GAPS = "packed/levels", "packed/scales", "packed/gaps"
#: What a silo remembers: the part of its updates that has not been sent.
UNSENT = "unsent"

_BLOCK, _TOP, _ESCAPE = 1024, 127, 255

Compression = NoCompression | EightBitCompression | TopKCompression


class NotPacked(ValueError):
    """Arrays that are no compressed update of this form; the text says what is wrong, for the server's log."""


def is_packed(arrays: Mapping[str, np.ndarray]) -> bool:
    """Tell whether an update says that it is compressed."""
    return LEVELS in arrays


def compressed(update: Arrays, memory: Mapping[str, np.ndarray], how: Compression) -> tuple[Arrays, Arrays]:
    """Compress an update.

    Parameters
    ----------
    update : dict of str to numpy.ndarray
        Of floating-point numbers, at least one.
    memory : mapping of str to numpy.ndarray
        What the silo kept from its last update; empty before its first.
    how : EightBitCompression or TopKCompression

    Returns
    -------
    packed : dict of str to numpy.ndarray
        What is sent; with scales that are not finite if the update is not.
    memory : dict of str to numpy.ndarray
        What is kept, float32 of shape (parameters,).
    """
    vector = np.concatenate([part.reshape(-1).astype(np.float32, copy=False) for part in update.values()])
    if UNSENT in memory and memory[UNSENT].shape == vector.shape:
        vector = vector + memory[UNSENT]
    places = None
    if isinstance(how, TopKCompression):
        places = largest(vector, max(1, math.ceil(how.kept * len(vector))))
    levels, scales = _rounded(vector if places is None else vector[places])
    packed: Arrays = {LEVELS: levels, SCALES: scales}
    if places is None:
        vector -= _restored(levels, scales)  # the vector is a copy, so what is left of it can be kept
    else:
        packed[GAPS] = gaps_of(places)
        vector[places] -= _restored(levels, scales)
    return packed, {UNSENT: vector}


def expanded(packed: Mapping[str, np.ndarray], form: Mapping[str, np.ndarray]) -> Arrays:
    """Return the update that was compressed.

    Parameters
    ----------
    packed : mapping of str to numpy.ndarray
        As received: any arrays at all.
    form : mapping of str to numpy.ndarray
        Names, shapes and dtypes of the update, all of floating-point numbers.

    Returns
    -------
    dict of str to numpy.ndarray
        Of that form; zero where nothing was sent.

    Raises
    ------
    NotPacked
        If the arrays are not a compressed update of that form.
    """
    size = sum(part.size for part in form.values())
    if any(part.dtype.kind != "f" for part in form.values()):
        raise NotPacked("the model holds arrays that are no floating-point numbers")
    if not {LEVELS, SCALES} <= set(packed) <= {LEVELS, SCALES, GAPS}:
        raise NotPacked("its arrays have other names than a compressed update's")
    levels = _vector(packed, LEVELS, np.int8)
    scales = _vector(packed, SCALES, np.float32)
    if not 0 < len(levels) <= size or len(scales) != -(-len(levels) // _BLOCK):
        raise NotPacked("its compressed update has another length than the model")
    if not np.isfinite(scales).all() or (scales < 0.0).any():
        raise NotPacked("its compressed update has scales that are not positive, finite numbers")
    values = _restored(levels, scales)
    if GAPS in packed:
        places = _places(_vector(packed, GAPS, np.uint8), len(levels), size)
        whole = np.zeros(size, dtype=np.float32)
        whole[places] = values
    elif len(levels) != size:
        raise NotPacked("its compressed update has another length than the model")
    else:
        whole = values
    update, at = {}, 0
    for name, part in form.items():
        update[name] = whole[at : at + part.size].reshape(part.shape).astype(part.dtype, copy=False)
        at += part.size
    return update


def largest(vector: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the numbers largest in magnitude, ascending; of equal ones the first."""
    magnitudes = np.abs(vector)
    if count >= len(vector):
        return np.arange(len(vector))
    least = np.partition(magnitudes, len(vector) - count)[len(vector) - count]
    sure = np.flatnonzero(~(magnitudes <= least))  # NaN included: it is found out by its scale
    level = np.flatnonzero(magnitudes == least)[: max(0, count - len(sure))]
    return np.sort(np.concatenate([sure[:count], level]))


def gaps_of(places: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how many numbers are left out before each of the places, which ascend."""
    gaps = np.diff(places, prepend=-1) - 1
    escapes = gaps // _ESCAPE
    written = np.full(len(gaps) + int(escapes.sum()), _ESCAPE, dtype=np.uint8)
    written[np.cumsum(escapes + 1) - 1] = gaps % _ESCAPE
    return written


def _places(gaps: NDArray[np.uint8], count: int, size: int) -> NDArray[np.int64]:
    """Return the places that gaps stand for; every one lies behind the one before."""
    ends = np.flatnonzero(gaps != _ESCAPE)
    if len(ends) != count or ends[-1] != len(gaps) - 1 or len(gaps) > count + size // _ESCAPE:
        raise NotPacked("its compressed update says of another number of values where they are")
    places: NDArray[np.int64] = np.cumsum(gaps, dtype=np.int64)[ends] + np.arange(count)
    if places[-1] >= size:
        raise NotPacked("its compressed update has values beyond the model's end")
    return places


def _rounded(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    blocks = -(-len(values) // _BLOCK)
    padded = np.zeros(blocks * _BLOCK, dtype=np.float32)
    padded[: len(values)] = values
    table = padded.reshape(blocks, _BLOCK)
    scales = np.abs(table).max(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shares = np.where(scales[:, None] > 0.0, table / scales[:, None], 0.0) * _TOP
    levels = np.nan_to_num(np.rint(shares), nan=0.0, posinf=0.0, neginf=0.0).astype(np.int8)
    return levels.reshape(-1)[: len(values)], scales


def _restored(levels: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", over="ignore"):  # who reads a message looks for what is not finite
        values = np.repeat(scales / np.float32(_TOP), _BLOCK)[: len(levels)] * levels
    return values.astype(np.float32, copy=False)


def _vector(packed: Mapping[str, np.ndarray], name: str, dtype: type) -> np.ndarray:
    array = packed[name]
    if array.ndim != 1 or array.dtype != np.dtype(dtype) or not len(array):
        raise NotPacked(f"'{name}' of its compressed update is no list of {np.dtype(dtype).name}")
    return array
