"""Files that survive a power cut: private folders, durable replacement, one lock per silo.

``flock`` rather than POSIX record locks: a record lock does not keep two threads of one process apart, and is lost as
soon as the process closes *any* descriptor of the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quire.clients.store.errors import StoreBusy, StoreDamaged, StoreError

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
_PAUSE = 0.02  # seconds between two attempts to take the lock
_TEMPORARY = ".new"


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn an operating system's error into a :class:`StoreError` that names the path and what was being done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"{path} cannot be {doing}: {reason}; nothing leaves the silo until it can be.") from error


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, or check that an existing one is.

    Raises
    ------
    StoreError
        If it is no folder, belongs to somebody else, or lets others in.
    """
    with explained(path, "used as a store"):
        try:
            path.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:
            pass
        else:
            path.chmod(PRIVATE_FOLDER)  # whatever the umask left of it
            sync_folder(path.parent)
        found = path.stat()
    check_private(path, found)


def check_private(path: Path, found: os.stat_result) -> None:
    """Refuse a folder that is not its owner's alone.

    Raises
    ------
    StoreError
        If it is no folder, belongs to somebody else, or lets others in.
    """
    if not stat.S_ISDIR(found.st_mode):
        raise StoreError(f"{path} is not a folder; a store is one, and is made if it is missing.")
    if found.st_uid != os.geteuid():
        raise StoreError(f"The store {path} belongs to another user; run Quire as its owner, or change the owner.")
    if found.st_mode & 0o077:
        raise StoreError(
            f"The store {path} lets other users in (mode {stat.S_IMODE(found.st_mode):o}); run: chmod 700 {path}"
        )


def is_unused(store: Path) -> bool:
    """Tell whether a folder holds nothing of a store yet; requests for erasure and lineage may lie there already."""
    return not store.is_dir() or all(entry.name == "consent" for entry in store.iterdir())


def sync_folder(path: Path) -> None:
    """Make what was created, renamed or removed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: ``os.write`` may write fewer, for example when the disk fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace(path: Path, data: bytes) -> None:
    """Put new content in a file, durably: after a crash it holds all of the old or all of the new.

    Raises
    ------
    StoreError
        If it cannot be written; the old content stays.
    """
    new = path.with_name(path.name + _TEMPORARY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with explained(path, "written"):
        descriptor = os.open(new, flags, PRIVATE_FILE)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        finally:
            os.close(descriptor)
        os.replace(new, path)
        sync_folder(path.parent)


def read(path: Path, limit: int) -> bytes | None:
    """Return a file's content, or None if there is no such file.

    Raises
    ------
    StoreError
        If it cannot be read.
    StoreDamaged
        If it has more than ``limit`` bytes.
    """
    with explained(path, "read"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(limit + 1)
    if len(data) > limit:
        raise StoreDamaged(f"{path} has more than the {limit} bytes that it can have; it was not written by Quire.")
    return data


class Lock:
    """The lock on one silo's store: held by one opened store at a time, released by the kernel when a process dies."""

    def __init__(self, path: Path, wait: float) -> None:
        with explained(path, "locked"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            self._take(path, wait)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self, path: Path, wait: float) -> None:
        deadline = time.monotonic() + wait
        with explained(path, "locked"):
            while True:
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise StoreBusy(self._busy(path, wait)) from None
                    time.sleep(_PAUSE)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def _busy(self, path: Path, wait: float) -> str:
        holder = os.pread(self._descriptor, 20, 0)
        who = f"process {holder.decode()}" if holder.isdigit() else "another process"
        return (
            f"The store {path.parent} is in use by {who} and was not free within {wait:g} seconds; "
            "wait until that run has ended, or stop it."
        )

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)
