"""Files of keys and rosters on the disk: made whole or not at all, secrets for their owner's eyes alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from quire.clients.identity.errors import IdentityFileError

OWNER_ONLY, EVERYBODY = 0o600, 0o644


def create(path: Path, data: bytes, mode: int) -> None:
    """Make a new file with exactly this mode, whatever the umask, and see it on the disk before returning.

    Raises
    ------
    IdentityFileError
        If something of that name exists, or it cannot be written; then nothing is left behind.
    """
    try:
        # The mode given to open() is cut by the umask, never widened: nobody else can read it even for an instant.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise IdentityFileError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise IdentityFileError(f"{path} cannot be written: {error.strerror}.") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def check_absent(path: Path) -> None:
    """Refuse a name that is taken, before work is done for it; :func:`create` is what makes sure.

    Raises
    ------
    IdentityFileError
        If something has this name.
    """
    if os.path.lexists(path):
        raise _exists(path)


def replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another, at once: whoever reads finds the old one or the new one.

    Raises
    ------
    IdentityFileError
        If it cannot be written; then the old one is still there.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    create(beside, data, EVERYBODY)
    try:
        os.replace(beside, path)
        _sync_folder(path)
    except OSError as error:
        raise IdentityFileError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path, limit: int, secret: bool = False) -> bytes:
    """Read a whole file of at most so many bytes.

    Parameters
    ----------
    path : pathlib.Path
        A regular file, or a link to one.
    limit : int
        The most bytes it may have.
    secret : bool
        Refuse it if its group or others may do anything with it.

    Raises
    ------
    IdentityFileError
        If there is none, it cannot be read, it is too large, or it is a secret that others can read.
    """
    data, mode = read_with_mode(path, limit)
    if secret:
        check_private(path, mode)
    return data


def read_with_mode(path: Path, limit: int) -> tuple[bytes, int]:
    """Read a whole file of at most so many bytes; return them and the permissions of that very file.

    Raises
    ------
    IdentityFileError
        If there is none, it cannot be read, or it is too large.
    """
    try:
        # Not blocking: a named pipe would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise IdentityFileError(f"{path} is not a file.")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise IdentityFileError(f"There is no file {path}.") from None
    except OSError as error:
        raise IdentityFileError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise IdentityFileError(f"{path} has more than {limit} bytes: it is another kind of file.")
    return data, stat.S_IMODE(status.st_mode)


def check_private(path: Path, mode: int) -> None:
    """Refuse permissions that let anybody but the owner do anything with a file.

    Raises
    ------
    IdentityFileError
        With the command that mends it.
    """
    if mode & 0o077:
        raise IdentityFileError(
            f"{path} holds a secret, and others than its owner have rights to it (mode {mode:03o}): if nobody can have "
            f"read it, run: chmod 600 {path}; otherwise replace it."
        )


def _exists(path: Path) -> IdentityFileError:
    return IdentityFileError(f"{path} exists already, and is not overwritten: choose another name or move it away.")


def _sync_folder(path: Path) -> None:
    """Bring a new name to the disk; some network file systems cannot, and say so only by failing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
