"""The file of a watermark's key: it stays with the releaser, and nobody else may have rights to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from quire.clients.identity import files
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import SEED_SIZE
from quire.privacy.identity.roster import fields, hexadecimal, is_hash
from quire.releases.disk import shown
from quire.releases.errors import Refused, WatermarkError
from quire.releases.watermark import BITS, Layer, commitment

FORMAT = "quire-watermark-secret-1"
MAX_BYTES = 4 * 2**20
_MAX_LAYERS, _MAX_SIDES, _MAX_SIDE = 20_000, 32, 2**40


@dataclass(frozen=True)
class MarkKey:
    """A watermark's key.

    Attributes
    ----------
    layers : tuple of Layer
        Where the mark is.
    model : str
        Fingerprint of the model that was marked with it.
    """

    seed: bytes = field(repr=False)
    layers: tuple[Layer, ...]
    model: str

    @property
    def commitment(self) -> str:
        """What envelopes say of it."""
        return commitment(self.seed)

    def write(self, path: Path) -> None:
        """Write it to a new file for its owner alone.

        Raises
        ------
        IdentityFileError
            If the file exists already or cannot be written.
        WatermarkError
            If a layer's name cannot be written down.
        """
        layers = [{"name": one.name, "scale": one.scale.hex(), "shape": list(one.shape)} for one in self.layers]
        body = {"bits": BITS, "format": FORMAT, "layers": layers, "model": self.model, "seed": self.seed.hex()}
        try:
            data = dumps(body)
        except IdentityError:
            raise WatermarkError("A layer of the model has a name that is not printable ASCII.") from None
        files.create(path, data, files.OWNER_ONLY)

    @classmethod
    def read(cls, path: Path) -> MarkKey:
        """Read a key's file.

        Raises
        ------
        WatermarkError
            If it is something else.
        IdentityFileError
            If it cannot be read, or others could.
        """
        data = files.read(path, MAX_BYTES, secret=True)
        try:
            keys: dict[str, type | None] = {"bits": int, "format": str, "layers": None, "model": str, "seed": str}
            found = fields(loads(data, MAX_BYTES), "watermark's key", keys)
            seed, listed = hexadecimal(found["seed"], "'seed'"), found["layers"]
            good = isinstance(listed, list) and 0 < len(listed) <= _MAX_LAYERS and is_hash(found["model"])
            if not good or found["format"] != FORMAT or found["bits"] != BITS or len(seed) != SEED_SIZE:
                raise ValueError
            return cls(seed, tuple(_layer(item) for item in listed), found["model"])
        except (IdentityError, ValueError, OverflowError):
            raise WatermarkError(f"{shown(path)} is not the key of a watermark.") from None


def _layer(item: object) -> Layer:
    found = fields(item, "layer", {"name": str, "scale": str, "shape": None})
    scale, shape = float.fromhex(found["scale"]), found["shape"]
    good = (
        math.isfinite(scale) and scale > 0.0 and scale.hex() == found["scale"],
        isinstance(shape, list) and 2 <= len(shape) <= _MAX_SIDES,
    )
    if not all(good) or not all(type(side) is int and 0 < side <= _MAX_SIDE for side in shape):
        raise ValueError
    return Layer(found["name"], tuple(shape), scale)


def committed(path: Path, key: MarkKey) -> str:
    """Say in words when, and by whom, an envelope committed to a key.

    Raises
    ------
    Refused
        If it is no envelope, was altered, or committed to another key or none.
    """
    from quire.releases.opening import moment, read_envelope

    header = read_envelope(path).header
    if header.watermark is None or header.watermark.commitment != key.commitment:
        raise Refused(f"{shown(path)} commits to no watermark, or to another key: it says nothing of this one.")
    return (
        f"Committed to by {header.releaser.fingerprint[:16]} with {header.label}, dated {moment(header.issued)} by the "
        "releaser."
    )
