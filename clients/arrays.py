"""Named arrays on their way through Flower: encoded once, decoded without a copy, and never trusted.

Flower carries arrays as the bytes of a ``.npy`` file inside an ``ArrayRecord``. Those bytes are immutable, so any
number of messages may share them. The decoder here reads the header strictly (closed list of dtypes, shape and
length must agree, no pickles) and returns a read-only view of the bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from flwr.app import Array, ArrayRecord

Arrays = dict[str, np.ndarray]

_STYPE = "numpy.ndarray"
# A version 1.0 header as NumPy writes it for a plain array, and nothing else that its parser would accept.
_MAX_DIMENSIONS, _MAX_SIDE = 32, 2**40
_LONGEST_HEADER = 2048  # bytes; 32 sides of 18 digits fit
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[<|][a-z][1-8])', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\), \} {0,63}\n",
    re.DOTALL,
)
_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
_DTYPES = {np.dtype(kind).str.encode(): np.dtype(kind) for kind in _KINDS}


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
    encoded = {name: _encode_one(array) for name, array in arrays.items()}
    record = ArrayRecord()
    if all(type(name) is str for name in encoded):  # all that Flower's own check of each entry could find wrong
        record.__dict__["_data"].update(encoded)
    else:
        for name, one in encoded.items():
            record[name] = one
    return record


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
    if array.dtype.str.encode() not in _DTYPES:
        raise MalformedArray(f"arrays of dtype {array.dtype} cannot be sent")
    contiguous = array if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(array.shape)
    dtype, header = _header(array.dtype, array.shape)
    data = b"".join((header, contiguous.data if contiguous.size else b""))
    made: Array = object.__new__(Array)  # what its own constructor takes 10 microseconds for: to find these four apart
    made.__dict__.update(dtype=dtype, shape=array.shape, stype=_STYPE, data=data)
    return made


@lru_cache(maxsize=256)  # writing a header takes as long as copying 100,000 numbers, and a model has few different ones
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> tuple[str, bytes]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return str(dtype), header.getvalue()


def _decode_one(name: str, array: Array) -> np.ndarray:
    data = array.data
    if array.stype != _STYPE or not isinstance(data, bytes):
        raise MalformedArray(f"'{name}' is not a plain array")
    end = 10 + int.from_bytes(data[8:10], "little")
    header = _parsed(data[:end]) if end <= _LONGEST_HEADER else None
    if header is None:
        raise MalformedArray(f"'{name}' is not a plain array")
    dtype, shape, order, size = header
    if dtype is None:
        raise MalformedArray(f"'{name}' has a dtype that is not allowed")
    if len(data) - end != size:
        raise MalformedArray(f"'{name}' has a shape that does not fit its bytes")
    if len(shape) > _MAX_DIMENSIONS or max(shape, default=0) > _MAX_SIDE:
        raise MalformedArray(f"'{name}' has a shape that no array has")
    return np.frombuffer(data, dtype=dtype, offset=end).reshape(shape, order=order)


_Header = tuple[np.dtype | None, tuple[int, ...], Literal["C", "F"], int]


@lru_cache(maxsize=256)  # as above; the bytes are what counts, whoever sent them
def _parsed(header: bytes) -> _Header | None:
    """Parse a header to dtype, shape, order and the bytes that must follow; None if it is not one."""
    found = _HEADER.fullmatch(header)
    if found is None:
        return None
    dtype = _DTYPES.get(found["dtype"])
    shape = tuple(int(side) for side in found["shape"].split(b",") if side.strip())
    size = math.prod(shape) * dtype.itemsize if dtype is not None else 0
    return dtype, shape, "F" if found["fortran"] == b"True" else "C", size
