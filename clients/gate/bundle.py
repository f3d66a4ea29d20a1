"""A bundle (Flower's FAB, a zip archive) as what it is at first: untrusted bytes.

A bundle has two names. ``fab`` is the SHA-256 of the archive, the hash that Flower shows; it changes when the same
files are packed by another build of zlib. ``content`` is the SHA-256 of what is in it, however it was packed, and is
what an operator who reviewed a source tree approves. With ``len64`` a length as eight bytes, big-endian, and files in
the order of their names' bytes::

    content = SHA-256("quire-bundle-v1\\0" || len64(name) || name || len64(bytes) || bytes || ... for every file)

The two cannot be confused: a FAB begins with ``PK``. Flower's own manifest (``.info/CONTENT``) is a list of the same
hashes and counts for nothing here: what is written to disk comes from the very bytes that were hashed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from functools import cached_property
from io import BytesIO
from pathlib import Path

from quire.errors import QuireError

#: The largest archive, in bytes: Flower's own limit.
MAX_BYTES = 10 * 1024 * 1024
#: The most that all files may take together, in bytes.
MAX_UNPACKED = 64 * 1024 * 1024
MAX_FILES = 4096
MAX_NAME = 240
_MANIFEST = ".info/CONTENT"
_TAG = b"quire-bundle-v1\0"
_START, _ENTRY = b"PK\x03\x04", b"PK\x01\x02"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40
# No separator but "/", no control character, no drive, no name that some file system reads as another one.
_PART = re.compile(r"[A-Za-z0-9_.+@=~ -]{1,120}", re.ASCII)


class BundleError(QuireError):
    """A bundle is not one that can be read safely."""

    exit_code = 2


class Bundle:
    """A bundle in memory. Nothing of it is read before it is asked for.

    Parameters
    ----------
    raw : bytes
        The archive, as it came.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @cached_property
    def fab(self) -> str:
        """The SHA-256 (hex) of the archive.

        Raises
        ------
        BundleError
            If it is too large, or does not begin as an archive does.
        """
        if len(self.raw) > MAX_BYTES:
            raise BundleError(f"The bundle has {len(self.raw)} bytes, more than the {MAX_BYTES} that Flower allows.")
        if not self.raw.startswith(_START):
            raise BundleError("The bundle is not a Flower App Bundle: it does not begin as a zip archive does.")
        return hashlib.sha256(self.raw).hexdigest()

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The files by their names, in the order of the names; Flower's manifest left out.

        Raises
        ------
        BundleError
            If the archive is damaged, exceeds a limit, or holds anything but plain files under plain names.
        """
        self.fab  # noqa: B018  # the cheap refusals come first
        return _files(self.raw)

    @cached_property
    def content(self) -> str:
        """The SHA-256 (hex) of the files, however they are packed."""
        digest = hashlib.sha256(_TAG)
        for name, content in self.files.items():
            encoded = name.encode("ascii")
            digest.update(len(encoded).to_bytes(8, "big") + encoded + len(content).to_bytes(8, "big"))
            digest.update(content)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write the files below a new folder that only this user can read.

        Raises
        ------
        FileExistsError
            If the folder, or a file in it, is already there.
        """
        folder.mkdir(mode=0o700)
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
            with open(descriptor, "wb") as file:
                file.write(content)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle from a file, or build it from an app's folder as ``flwr run`` would.

    Raises
    ------
    BundleError
        If there is neither, or Flower cannot build one from the folder.
    """
    try:
        if path.is_dir():
            return Bundle(_built(path))
        with path.open("rb") as file:
            return Bundle(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error


def _built(folder: Path) -> bytes:
    import click
    from flwr.cli.build import build_fab_from_disk

    try:
        return build_fab_from_disk(folder)
    except (ValueError, click.ClickException) as error:
        raise BundleError(f"Flower cannot build a bundle from {folder}: {str(error).rstrip('.')}.") from error


def _files(raw: bytes) -> dict[str, bytes]:
    import zipfile

    if raw.count(_ENTRY) > MAX_FILES:  # before zipfile makes an object of each
        raise BundleError(f"The bundle holds more than {MAX_FILES} files.")
    found: dict[str, bytes] = {}
    unpacked = 0
    try:
        with zipfile.ZipFile(BytesIO(raw)) as archive:
            for entry in archive.infolist():
                _check(entry.filename, entry.orig_filename, entry.external_attr >> 16)
                if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (_STORED, _DEFLATED):
                    raise BundleError(f"The bundle packs the file {entry.filename} as Flower never does.")
                if entry.filename in found:
                    raise BundleError(f"The bundle holds the file {entry.filename} twice.")
                with archive.open(entry) as file:
                    found[entry.filename] = file.read(MAX_UNPACKED - unpacked + 1)
                unpacked += len(found[entry.filename])
                if unpacked > MAX_UNPACKED:
                    raise BundleError(f"The bundle unpacks to more than {MAX_UNPACKED} bytes.")
    except BundleError:
        raise
    except Exception as error:  # of what zipfile and zlib raise on damaged input there is no list to rely on
        raise BundleError(f"The bundle is damaged ({type(error).__name__}).") from error
    found.pop(_MANIFEST, None)
    _check_together(found)
    return dict(sorted(found.items()))


def _check(name: str, as_packed: str, mode: int) -> None:
    parts = name.split("/")
    plain = all(_PART.fullmatch(part) and part.strip(". ") and part[-1] not in ". " for part in parts)
    if not plain or name != as_packed or len(name) > MAX_NAME:
        raise BundleError(f"The bundle holds a file under the name {name[:MAX_NAME]!r}, which is not a plain one.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise BundleError(f"The bundle holds {name}, which is not a plain file.")


def _check_together(files: dict[str, bytes]) -> None:
    if "pyproject.toml" not in files:
        raise BundleError("The bundle has no pyproject.toml, so that it is not a Flower app.")
    folded: dict[str, str] = {}
    for name in files:
        if folded.setdefault(name.lower(), name) != name:
            raise BundleError(f"The bundle holds two files whose names differ in case only: {name}.")
    for name in files:
        parts = name.lower().split("/")
        if any("/".join(parts[:depth]) in folded for depth in range(1, len(parts))):
            raise BundleError(f"The bundle holds {name} below a file.")
