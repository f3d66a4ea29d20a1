"""Files that are there whole or not at all, and the lock on a registry."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from quire.clients.store.files import sync_folder, write_all
from quire.releases.errors import RegistryBusy, ReleaseError
from quire.text import visible

_PAUSE = 0.02  # seconds between two attempts to take a lock


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn an operating system's error into a :class:`ReleaseError` that names the path and what was being done."""
    try:
        yield
    except OSError as error:
        raise ReleaseError(f"{shown(path)} cannot be {doing}: {error.strerror or type(error).__name__}.") from error


def shown(path: Path) -> str:
    """Return a path as it is shown to a person: others may have named it."""
    return visible(str(path), 400)


def put(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put content in a file, durably; after a crash it is all of the new, or what was there before.

    Raises
    ------
    ReleaseError
        If it cannot be written.
    """
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    with explained(path, "written"):
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            try:
                os.fchmod(descriptor, mode)
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(beside, path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise


def check_absent(path: Path) -> None:
    """Refuse a folder's name that is taken, before work is done for it.

    Raises
    ------
    ReleaseError
        If something has this name.
    """
    if os.path.lexists(path):
        raise ReleaseError(f"{shown(path)} exists already, and is not overwritten: choose another folder.")


def put_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder with files in it, durably: it has all of them, or is not there.

    Raises
    ------
    ReleaseError
        If something of that name exists, or it cannot be written.
    """
    check_absent(path)
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    with explained(path, "written"):
        beside.mkdir(mode=0o700)
        try:
            for name, data in contents.items():
                descriptor = os.open(beside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    write_all(descriptor, data)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            sync_folder(beside)
            os.rename(beside, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


@contextmanager
def locked(path: Path, what: object, wait: float = 10.0) -> Iterator[None]:
    """Hold a lock, which the kernel takes back when a process dies.

    Parameters
    ----------
    path : pathlib.Path
        A file for nothing else; made if it is missing.
    what : object
        What it guards, for the error.
    wait : float
        Seconds until it is given up.

    Raises
    ------
    RegistryBusy
        If another process has held it all the while.
    ReleaseError
        If the file cannot be made.
    """
    with explained(path, "locked"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while True:
            with explained(path, "locked"):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise RegistryBusy(
                            f"{what} is being written by another process and was not free within {wait:g} seconds: "
                            "try again."
                        ) from None
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)
