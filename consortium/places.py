"""Folders for their owner alone, one command at a time in each, keys in files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)

from quire.clients.identity import IdentityFileError, files
from quire.consortium.certificates import check_key
from quire.consortium.errors import ConsortiumError, FolderBusy

_WAIT, _PAUSE = 10.0, 0.05  # seconds
_MAX_KEY = 16 * 1024
_PART = ".part-"


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, or check that an existing one is.

    Raises
    ------
    ConsortiumError
        If it cannot be made, is no folder, or lets others in.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConsortiumError(f"The folder {path} cannot be made: {error.strerror}.") from error
    if status.st_uid != os.geteuid():
        raise ConsortiumError(f"The folder {path} belongs to another user: run this as its owner.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConsortiumError(f"The folder {path} is to hold keys and lets other users in: run chmod 700 {path} first.")


@contextmanager
def locked(path: Path, wait: float = _WAIT) -> Iterator[None]:
    """Hold the lock on a folder; the kernel gives it back when a process dies.

    Raises
    ------
    FolderBusy
        If another command has held it for ``wait`` seconds.
    ConsortiumError
        If the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConsortiumError(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise FolderBusy(
                        f"Another command is changing {path.parent}: try again when it has ended."
                    ) from None
                time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)


def whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder with everything in it, or not at all; one that exists is left as it is.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    fill : callable
        Writes what is to be in it into the folder that it is given.

    Raises
    ------
    ConsortiumError
        If it cannot be made.
    """
    for left in path.parent.glob(f".{path.name}{_PART}*"):  # of a command that was killed; nothing of it was ever used
        shutil.rmtree(left, ignore_errors=True)
    if path.is_dir():
        return
    beside = path.with_name(f".{path.name}{_PART}{secrets.token_hex(4)}")
    private_folder(beside)
    try:
        fill(beside)
        os.replace(beside, path)
        sync(path.parent)
    except OSError as error:
        raise ConsortiumError(f"The folder {path} cannot be made: {error.strerror}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name, at once and durably.

    Raises
    ------
    ConsortiumError
        If it cannot be done.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        raise ConsortiumError(f"{source} cannot be moved to {target}: {error.strerror}.") from error
    sync(target.parent)


def sync(folder: Path) -> None:
    """Bring new names in a folder to the disk; some network file systems cannot, and say so only by failing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put(path: Path, data: bytes) -> bool:
    """Write a file that is no secret, at once, unless it says that already; return whether it was written.

    Raises
    ------
    ConsortiumError
        If the one that is there cannot be read.
    IdentityFileError
        If it cannot be written.
    """
    try:
        if path.exists() and path.read_bytes() == data:
            return False
    except OSError as error:
        raise ConsortiumError(f"{path} cannot be read: {error.strerror}.") from error
    files.replace(path, data)
    return True


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> None:
    """Write a secret key into a new file for its owner alone, PEM; unencrypted, because a service reads it."""
    files.create(path, key.private_bytes(Encoding.PEM, form, NoEncryption()), files.OWNER_ONLY)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a secret TLS key.

    Raises
    ------
    ConsortiumError
        If it is none.
    IdentityFileError
        If it cannot be read, or others can read it.
    """
    data = files.read(path, _MAX_KEY, secret=True)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConsortiumError(f"{path} is not a key in PEM without a passphrase.") from None
    check_key(key.public_key(), f"The key in {path}")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConsortiumError(f"{path} is not a key in PEM without a passphrase.")
    return key


def read_next_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    """Read a fresh key that waits for its certificate; None if there is none, or a killed command left half of one."""
    try:
        return read_key(path) if path.exists() else None
    except (ConsortiumError, IdentityFileError):
        return None


def node_text(key: ec.EllipticCurvePublicKey) -> str:
    """Return the public key of a node in OpenSSH's form, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def check_node(text: str) -> str:
    """Return a node's public key that came from elsewhere if it is ECDSA over P-384, in its one spelling.

    Raises
    ------
    ConsortiumError
        If it is not.
    """
    try:
        key = load_ssh_public_key(text.encode())
        good = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1" and node_text(key) == text
    except (ValueError, UnsupportedAlgorithm):
        good = False
    if not good:
        raise ConsortiumError("The node's public key in it must be ECDSA over P-384 in OpenSSH's form.")
    return text
