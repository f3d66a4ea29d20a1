"""Named arrays on their way through Flower: encoded once, decoded without a copy, and never trusted.

Flower carries arrays as the bytes of a ``.npy`` file inside an ``ArrayRecord``. Those bytes are immutable, so any
number of messages may share them. The decoder here reads the header strictly (closed list of dtypes, shape and
length must agree, no pickles) and returns a read-only view of the bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord

Arrays = dict[str, np.ndarray]

_STYPE = "numpy.ndarray"
_MAGIC = b"\x93NUMPY\x01\x00"
_MAX_HEADER = 4096
_DTYPES = frozenset(np.dtype(kind) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"))


class MalformedArray(ValueError):
    """Bytes that are not an array of an allowed kind."""


def encode(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Encode named arrays as a Flower record, in the order given.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        Any shapes; dtypes are floats, integers or bool of at most 64 bits.

    Returns
    -------
    flwr.app.ArrayRecord
    """
    return ArrayRecord({name: _encode_one(array) for name, array in arrays.items()})


def decode(record: ArrayRecord) -> Arrays:
    """Decode a Flower record into named, read-only arrays that share the record's bytes.

    Raises
    ------
    MalformedArray
        If an entry is not a plain array: another serialisation, an unknown dtype, a header that does not parse,
        or a length that does not fit the shape.
    """
    return {name: _decode_one(name, array) for name, array in record.items()}


def byte_size(record: ArrayRecord) -> int:
    """Return the number of bytes that the arrays of a record take on the wire, without framing."""
    return sum(len(array.data) for array in record.values())


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 (hex) of named arrays: names, dtypes, shapes and bytes, in sorted order of names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _encode_one(array: np.ndarray) -> Array:
    if array.dtype not in _DTYPES:
        raise MalformedArray(f"arrays of dtype {array.dtype} cannot be sent")
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(contiguous))
    data = b"".join((header.getvalue(), contiguous.data if contiguous.size else b""))
    return Array(str(array.dtype), tuple(array.shape), _STYPE, data)


def _decode_one(name: str, array: Array) -> np.ndarray:
    data = array.data
    if array.stype != _STYPE or not isinstance(data, bytes) or data[:8] != _MAGIC:
        raise MalformedArray(f"'{name}' is not a plain array")
    start = 10 + int.from_bytes(data[8:10], "little")
    if start > min(len(data), _MAX_HEADER):
        raise MalformedArray(f"'{name}' has a header of an impossible length")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(data[8:start]), max_header_size=_MAX_HEADER)
    except Exception as error:  # NumPy raises whatever the literal parser stumbles upon
        raise MalformedArray(f"'{name}' has a header that cannot be read") from error
    if dtype not in _DTYPES:
        raise MalformedArray(f"'{name}' has the dtype {dtype}, which is not allowed")
    if any(side < 0 for side in shape) or len(data) - start != _size(shape) * dtype.itemsize:
        raise MalformedArray(f"'{name}' has a shape that does not fit its bytes")
    view = np.frombuffer(data, dtype=dtype, offset=start)
    return view.reshape(shape, order="F" if fortran else "C")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
