"""A random rotation that spreads a vector's length evenly over its coordinates, so that narrow integers suffice.

Signs flipped at random, then the Walsh-Hadamard transform (Ailon and Chazelle 2009). The signs are public: the
rotation serves the bit width, not privacy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng

_SLAB = 32  # columns worked on at a time


def padded_length(dimension: int) -> int:
    """Return the power of two that a vector is filled up to with zeros."""
    return 1 << max(0, dimension - 1).bit_length()


def walsh_hadamard(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return H x / sqrt(n), its own inverse; n is the length, a power of two.

    Only additions, subtractions and one factor, always in the same order: the same bits on every machine.
    """
    length = len(vector)
    rows = 1 << (length.bit_length() // 2)
    columns = length // rows
    # H_length = H_rows (x) H_columns: transform the columns of the matrix, then its rows.
    first = _transform_columns(vector.reshape(rows, columns))
    second = _transform_columns(np.ascontiguousarray(first.T))
    return np.ascontiguousarray(second.T).reshape(-1) * (1.0 / math.sqrt(length))


def _transform_columns(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = matrix.shape
    result = np.empty_like(matrix)
    for start in range(0, columns, _SLAB):
        slab = matrix[:, start : start + _SLAB].copy()  # also where it is all of the caller's matrix
        width, half = slab.shape[1], 1
        while half < rows:
            pairs = slab.reshape(rows // (2 * half), 2, half * width)
            difference = pairs[:, 0] - pairs[:, 1]
            pairs[:, 0] += pairs[:, 1]
            pairs[:, 1] = difference
            half *= 2
        result[:, start : start + _SLAB] = slab
    return result


def rotate(vector: NDArray[np.float64], key: bytes) -> NDArray[np.float64]:
    """Rotate a vector into ``padded_length(len(vector))`` coordinates; norms stay.

    Parameters
    ----------
    vector : numpy.ndarray of float64
    key : bytes
        32 public bytes, the same for all parties of a sum.
    """
    padded = np.zeros(padded_length(len(vector)))
    padded[: len(vector)] = vector
    return walsh_hadamard(padded * Csprng(key).signs(len(padded)))


def unrotate(vector: NDArray[np.float64], key: bytes, dimension: int) -> NDArray[np.float64]:
    """Undo :func:`rotate`, up to floating-point rounding, and drop what was filled up."""
    return (walsh_hadamard(vector) * Csprng(key).signs(len(vector)))[:dimension]
