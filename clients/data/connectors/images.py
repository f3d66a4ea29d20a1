"""``connector: images``: a folder for each class, named as the class is, with image files in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quire.clients.data.connectors.base import Connector, Raw, Source
from quire.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def read(source: Source) -> Raw:
    """Read all images, turned grey or coloured and resized (bilinear) to what the schema says."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    image = source.schema.image
    if image is None:
        source.entry.fail("folders hold images, but the schema has columns")
    found = files(source)
    pixels = np.empty((len(found), image.channels, image.height, image.width), np.uint8)
    labels = np.empty(len(found), dtype=object)
    for place, path in enumerate(found):
        try:
            with Pillow.open(path) as picture:
                sized = picture.convert("L" if image.channels == 1 else "RGB").resize(
                    (image.width, image.height), Pillow.Resampling.BILINEAR
                )
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read as an image ({type(error).__name__}).") from error
        values = np.asarray(sized)
        pixels[place] = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        labels[place] = path.parent.name
    return Raw({source.schema.target.name: labels}, pixels)


def files(source: Source) -> tuple[Path, ...]:
    """Name all image files, in sorted order: files of other kinds, and hidden ones, are passed over."""
    root = source.path()
    if not root.is_dir():
        source.options["path"].fail(f"{root} is not a folder")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return tuple(
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


CONNECTOR = Connector("images", frozenset({"path"}), read, files)
