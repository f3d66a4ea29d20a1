"""The list of files that an enclave may open: what was traced, checked on reading, hashed for a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from quire.clients.store.errors import StoreError
from quire.clients.store.files import replace
from quire.enclave.errors import EnclaveError
from quire.enclave.settings import PLAIN
from quire.text import visible

#: Gramine reads the whole manifest in every process, in a time that grows with the square of the list.
MAX_FILES = 20_000
MAX_BYTES = 16 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Listing:
    """What a silo was seen to open.

    Attributes
    ----------
    python : str
        The real file of the interpreter.
    path : tuple of str
        Where modules are looked for, besides the standard library.
    libraries : tuple of str
        Folders of shared libraries.
    bytecode : str
        The folder of compiled modules.
    files : tuple of str
        Absolute paths, sorted, none twice.
    """

    python: str
    path: tuple[str, ...]
    libraries: tuple[str, ...]
    bytecode: str
    files: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write the list to a file, all of it or nothing."""
        write_whole(path, (json.dumps({"format": 1, **asdict(self)}, indent=0) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Listing:
        """Read a list.

        Raises
        ------
        EnclaveError
            If it cannot be read, or is none.
        """
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise EnclaveError(f"There is no list of files {path}; `quire enclave trace` makes it.") from None
        except OSError as error:
            raise EnclaveError(f"{path} cannot be read: {error.strerror}.") from error
        try:
            body = json.loads(data) if len(data) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            body = None
        keys = {"format", "python", "path", "libraries", "bytecode", "files"}
        if not isinstance(body, dict) or set(body) != keys or body["format"] != 1:
            raise EnclaveError(f"{path} is no list of files as `quire enclave trace` makes it; run it again.")
        for key in ("python", "bytecode"):
            _check(path, body[key])
        for key in ("path", "libraries", "files"):
            if not isinstance(body[key], list):
                raise EnclaveError(f"{path}: '{key}' is not a list.")
            for name in body[key]:
                _check(path, name)
        files = body["files"]
        if not files or len(set(files)) != len(files) or len(files) > MAX_FILES:
            raise EnclaveError(f"{path}: it must name 1 to {MAX_FILES} files, none twice; it names {len(files)}.")
        return cls(body["python"], tuple(body["path"]), tuple(body["libraries"]), body["bytecode"], tuple(files))


def _check(path: Path, name: object) -> None:
    if not isinstance(name, str) or not PLAIN.fullmatch(name) or {".", ".."} & set(name.split("/")):
        shown = visible(name) if isinstance(name, str) else type(name).__name__
        raise EnclaveError(f"{path}: '{shown}' is not an absolute path of plain characters.")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, all of it or nothing.

    Raises
    ------
    EnclaveError
        If it cannot be written; what was there stays.
    """
    try:
        replace(path, data)
    except StoreError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else "unknown"
        raise EnclaveError(f"{path} cannot be written: {reason}.") from error


def is_digest(text: object) -> bool:
    """Say whether this is a SHA-256 in small hexadecimal digits."""
    return isinstance(text, str) and bool(_SHA256.fullmatch(text))


def hashed(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return each path with the SHA-256 of the file's bytes.

    Raises
    ------
    EnclaveError
        If one is not there, is no file, or cannot be read.
    """
    found = []
    for name in paths:
        try:
            # Not waiting: a pipe of that name would keep us until somebody writes into it.
            with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise EnclaveError(f"{visible(name, 400)} is in the list of files, and is no file with content.")
                found.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
        except OSError as error:
            raise EnclaveError(
                f"{visible(name, 400)} is in the list of files and cannot be read: {error.strerror}; "
                "run `quire enclave trace` again."
            ) from error
    return found


def regular(path: Path) -> bool:
    """Say whether this is a file with content of its own, at the end of any links."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
