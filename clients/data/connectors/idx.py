"""``connector: idx``: the format of MNIST, a file of images and a file of labels, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from quire.clients.data.connectors.base import Connector, Raw, Source
from quire.errors import DataError

_UNSIGNED_BYTE = 8
_PIECE = 1 << 24


def read(source: Source) -> Raw:
    """Read images of unsigned bytes, (n, height, width) or (n, channels, height, width), and n labels."""
    image = source.schema.image
    if image is None:
        source.entry.fail("idx files hold images, but the schema has columns")
    images, labels = source.path("images"), source.path("labels")
    pixels = read_idx(images)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.shape[1:] != (image.channels, image.height, image.width):
        sides = " x ".join(map(str, pixels.shape[1:]))
        raise DataError(
            f"{images} holds images of {sides}, the schema says {image.channels} x {image.height} x {image.width}."
        )
    y = read_idx(labels)
    if y.shape != (len(pixels),):
        raise DataError(f"{labels} does not hold one label for each of the {len(pixels)} images of {images}.")
    return Raw({source.schema.target.name: y}, pixels)


def files(source: Source) -> tuple[Path, ...]:
    """Name both files."""
    return (source.path("images"), source.path("labels"))


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes.

    Returns
    -------
    numpy.ndarray of uint8, of the shape that the file's header gives

    Raises
    ------
    DataError
        If the file is not of this format, or shorter or longer than its header says.
    """
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            content_stream = cast(BinaryIO, stream)
            shape = _shape(content_stream, path)
            size = math.prod(shape)
            content = _at_most(content_stream, size + 1)  # what lies behind is not unpacked
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if len(content) != size:
        raise DataError(f"{path} is damaged: its header speaks of {size} bytes, it holds {_amount(content, size)}.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes of any shape as an idx file."""
    header = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(header + np.ascontiguousarray(array, np.uint8).tobytes())


def _shape(stream: BinaryIO, path: Path) -> tuple[int, ...]:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != _UNSIGNED_BYTE or not 1 <= start[3] <= 4:
        raise DataError(f"{path} is not an idx file of unsigned bytes.")
    sides = stream.read(4 * start[3])
    if len(sides) != 4 * start[3]:
        raise DataError(f"{path} is damaged: it ends within its header.")
    return tuple(int.from_bytes(sides[place : place + 4], "big") for place in range(0, len(sides), 4))


def _at_most(stream: BinaryIO, size: int) -> bytes:
    """Read in pieces: the header may lie about a size that no memory holds."""
    pieces, left = [], size
    while left and (piece := stream.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _amount(content: bytes, size: int) -> str:
    return "more" if len(content) > size else str(len(content))


CONNECTOR = Connector("idx", frozenset({"images", "labels"}), read, files)
