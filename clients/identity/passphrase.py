"""Passphrases: where they come from, and how one encrypts the secret keys in a file.

The key is scrypt (RFC 7914) of the passphrase, the cipher AES-256-GCM, and everything else that the file says is
authenticated with it. One guess costs 128 MiB and some tenths of a second.
"""

from __future__ import annotations

import os
import secrets
import unicodedata
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from quire.clients.identity.errors import IdentityFileError
from quire.clients.identity.files import read
from quire.privacy.identity.errors import BadEncoding

#: scrypt's cost as a power of two; 17 is OWASP's first choice for stored passwords, with r = 8 and p = 1.
COST = 17
#: Names the file with the passphrase of a service's keys.
VARIABLE = "QUIRE_PASSPHRASE_FILE"
SHORTEST = 8
_SALT, _NONCE, _TAG = 16, 12, 16
# A file names its own cost: bounded, so that a forged one cannot take gigabytes.
_COSTS = range(12, 21)
_MAX_BYTES = 4096


def from_file(path: Path) -> str:
    """Read a passphrase from a file that only its owner can read: its first and only line.

    Raises
    ------
    IdentityFileError
        If it cannot be read, others can read it, or it holds anything but one line.
    """
    try:
        text = read(path, _MAX_BYTES, secret=True).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise IdentityFileError(f"{path} must hold a passphrase as UTF-8 text.") from None
    if not text or "\n" in text:
        raise IdentityFileError(f"{path} must hold a passphrase in one line, and nothing else.")
    return text


def from_variable(name: str) -> str:
    """Read a passphrase from an environment variable.

    Raises
    ------
    IdentityFileError
        If the variable is not set, or empty.
    """
    if not (text := os.environ.get(name, "")):
        raise IdentityFileError(f"The environment variable {name} is not set: it should hold the passphrase.")
    return text


def of_service() -> str | None:
    """Return the passphrase of a service that nobody sits at: of the file that ``QUIRE_PASSPHRASE_FILE`` names.

    Returns
    -------
    str or None
        None if the variable is not set.

    Raises
    ------
    IdentityFileError
        If the file that it names cannot be used (see :func:`from_file`).
    """
    place = os.environ.get(VARIABLE)
    return from_file(Path(place)) if place else None


def check_strength(passphrase: str) -> None:
    """Refuse a passphrase that is too short to be worth its trouble.

    Raises
    ------
    IdentityFileError
        If it has fewer than 8 characters.
    """
    if len(passphrase) < SHORTEST:
        raise IdentityFileError(f"A passphrase has at least {SHORTEST} characters: take several words.")


def encrypt(passphrase: str, secret: bytes, about: bytes, cost: int = COST) -> bytes:
    """Encrypt secret keys.

    Parameters
    ----------
    passphrase : str
        What opens them.
    secret : bytes
        What is encrypted.
    about : bytes
        What is authenticated along with it, and stays readable.
    cost : int
        scrypt's N is two to the power of this.

    Returns
    -------
    bytes
        The cost in one byte, salt, nonce, ciphertext with its tag.
    """
    head = bytes([cost]) + secrets.token_bytes(_SALT)
    nonce = secrets.token_bytes(_NONCE)
    return head + nonce + AESGCM(_key(passphrase, head)).encrypt(nonce, secret, head + about)


def decrypt(passphrase: str, data: bytes, about: bytes) -> bytes | None:
    """Open what :func:`encrypt` returned; None if the passphrase is another one, or anything was changed.

    Raises
    ------
    BadEncoding
        If these bytes cannot come from :func:`encrypt`.
    """
    if len(data) < 1 + _SALT + _NONCE + _TAG or data[0] not in _COSTS:
        raise BadEncoding("the encrypted part is damaged or incomplete.")
    head, nonce, rest = data[: 1 + _SALT], data[1 + _SALT :][:_NONCE], data[1 + _SALT + _NONCE :]
    try:
        return AESGCM(_key(passphrase, head)).decrypt(nonce, rest, head + about)
    except InvalidTag:
        return None


def _key(passphrase: str, head: bytes) -> bytes:
    # One passphrase may be typed as different code points on different keyboards.
    text = unicodedata.normalize("NFC", passphrase).encode()
    return Scrypt(salt=head[1:], length=32, n=2 ** head[0], r=8, p=1).derive(text)
