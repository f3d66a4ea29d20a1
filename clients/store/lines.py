"""Chained lines: an append-only file in which no byte can change unseen.

Every line is a JSON object that ends in its own seal (a signature, or a digest) and names the hash of the line before
it. A line counts once it ends in a newline and has been fsynced: what a crash leaves behind without one was never
acknowledged, and is cut off.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from quire.clients.store.appended import Appended
from quire.clients.store.errors import StoreError
from quire.clients.store.files import PRIVATE_FILE, explained, sync_folder
from quire.privacy.identity.errors import BadSignature
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity, verify_ed25519

#: What the first line of a chain names as the one before it.
START = "0" * 64
MAX_LINE = 64 * 1024 * 1024
_SEAL = re.compile(rb',"seal":"((?:[0-9a-f]{2})+)"\}')
_SEAL_SIZE = 200  # bytes at the end of a line in which its seal is found


class BadLine(ValueError):
    """A line is not what was written; the text says in what respect, to follow "line 7 of FILE"."""


class Seal(Protocol):
    """Makes a line out of an object, and the object out of a line that nobody has touched."""

    def close(self, body: Mapping[str, Any]) -> bytes:
        """Return the line, without a newline."""
        ...

    def open(self, line: bytes) -> dict[str, Any]:
        """Return the object.

        Raises
        ------
        BadLine
            If the line was not made by :meth:`close`.
        """
        ...


@dataclass(frozen=True)
class Digested:
    """Sealed by a digest: shows damage, not forgery."""

    tag: str

    def close(self, body: Mapping[str, Any]) -> bytes:
        """Return the line, without a newline."""
        text = _encode(body)
        return _closed(text, tagged_hash(self.tag, text))

    def open(self, line: bytes) -> dict[str, Any]:
        """Return the object, or raise :class:`BadLine`."""
        text, seal = _opened(line)
        if seal != tagged_hash(self.tag, text):
            raise BadLine("is not what was written")
        return _decode(text)


@dataclass(frozen=True)
class Signed:
    """Sealed by the silo's identity (Ed25519): shows damage, and forgery by anyone without its key.

    Attributes
    ----------
    tag : str
        What is signed.
    public : PublicIdentity
        Who has to have signed.
    private : PrivateIdentity or None
        Only needed to sign.
    """

    tag: str
    public: PublicIdentity
    private: PrivateIdentity | None = None

    def close(self, body: Mapping[str, Any]) -> bytes:
        """Return the line, without a newline."""
        if self.private is None:
            raise StoreError("The silo's private key is needed to write here; only its public key is at hand.")
        text = _encode(body)
        return _closed(text, self.private.sign_ed25519(self.tag, text))

    def open(self, line: bytes) -> dict[str, Any]:
        """Return the object, or raise :class:`BadLine`."""
        text, seal = _opened(line)
        try:
            verify_ed25519(self.public, self.tag, (text,), seal)
        except BadSignature:
            raise BadLine(f"does not carry the signature of {self.public.fingerprint[:16]}") from None
        return _decode(text)


def line_hash(line: bytes) -> str:
    """Return the hash, 64 hexadecimal digits, by which the next line names this one (without its newline)."""
    return tagged_hash("quire/store/line/1", line).hex()


def read_lines(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line without its newline, and whether it had one: only the last can lack it."""
    while line := stream.readline(MAX_LINE):
        whole = line.endswith(b"\n")
        yield line[:-1] if whole else line, whole


def create(path: Path) -> None:
    """Make an empty file for lines, durably; one that is there already stays as it is."""
    with explained(path, "written"):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE))
        sync_folder(path.parent)


class Writer:
    """Appends lines to a file that has been read and found good.

    Parameters
    ----------
    path : pathlib.Path
    size : int
        Bytes of good lines. Anything after them is the torn line of a crash, and is cut off.
    head : str
        The hash of the last good line.
    """

    def __init__(self, path: Path, size: int, head: str) -> None:
        self.head = head
        words = f"{path} could not be written before; open the store anew, which checks it."
        self._file = Appended(path, size, explained, lambda: StoreError(words))

    def append(self, line: bytes) -> None:
        """Write a line and make it durable.

        Raises
        ------
        StoreError
            If it could not be written; see :meth:`quire.clients.store.appended.Appended.append`.
        """
        self._file.append(line + b"\n")
        self.head = line_hash(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _decode(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise BadLine("is not JSON") from None
    if not isinstance(found, dict):
        raise BadLine("is not a JSON object")
    return found


def _closed(text: bytes, seal: bytes) -> bytes:
    return text[:-1] + b',"seal":"' + seal.hex().encode() + b'"}'


def _opened(line: bytes) -> tuple[bytes, bytes]:
    start = line.rfind(b',"seal":"', max(0, len(line) - _SEAL_SIZE))
    found = _SEAL.fullmatch(line, start) if start > 0 else None
    if found is None:
        raise BadLine("does not end in a seal")
    return line[:start] + b"}", bytes.fromhex(found.group(1).decode())
