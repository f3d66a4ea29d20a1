"""Secrets between two stages: encrypted where they lie, under a key that does not lie there, wiped on demand.

AES-256-GCM with a random nonce of 96 bits; the store's id and the secret's name are authenticated with it, so that no
ciphertext can stand in for another. What it protects against: a stolen disk, a backup or a copy of the store without
the key. What not: whoever can read the silo's key file as well, or the memory of its processes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quire.clients.store.blobs import Blobs, check_name
from quire.clients.store.errors import StoreDamaged, StoreError
from quire.clients.store.files import explained, sync_folder, write_all
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, derive

KEY_SIZE, _NONCE = 32, 12
MAX_BYTES = 64 * 1024 * 1024


def secret_key(identity: PrivateIdentity) -> bytes:
    """Return the key of a silo's secrets: HKDF-SHA256 of its identity's secret, for this purpose alone."""
    return derive(identity.encode_secret(), b"quire/store/secrets/1")


class Secrets:
    """Named secrets of a silo. Made by the store.

    Parameters
    ----------
    folder : pathlib.Path
    key : bytes
        32 bytes; by default :func:`secret_key` of the silo's identity.
    store : str
        The store's id.
    """

    def __init__(self, folder: Path, key: bytes, store: str) -> None:
        if len(key) != KEY_SIZE:
            raise StoreError(f"The key of a store's secrets has {KEY_SIZE} bytes, not {len(key)}.")
        self._folder, self._store = folder, store
        self._cipher = AESGCM(key)
        self._files = Blobs(folder, MAX_BYTES + 64)

    def put(self, name: str, secret: bytes) -> None:
        """Encrypt and store a secret, durably; one of that name is wiped first.

        Raises
        ------
        StoreError
            If the name cannot be one, the secret is too large, or it cannot be written.
        """
        if len(secret) > MAX_BYTES:
            raise StoreError(f"The secret {name[:60]} has {len(secret)} bytes; at most {MAX_BYTES} are kept.")
        self.wipe(name)
        nonce = os.urandom(_NONCE)
        self._files.put(name, nonce + self._cipher.encrypt(nonce, secret, self._about(name)))

    def get(self, name: str) -> bytes | None:
        """Return a secret, or None if there is none of that name.

        Raises
        ------
        StoreDamaged
            If it is not what was stored under this name in this store, or was stored under another key.
        """
        data = self._files.get(name)
        if data is None:
            return None
        try:
            return self._cipher.decrypt(data[:_NONCE], data[_NONCE:], self._about(name))
        except (InvalidTag, ValueError):
            raise StoreDamaged(
                f"The secret {name} in {self._folder} cannot be decrypted: it was changed, or the silo's key was; the "
                "session it belongs to has to begin anew."
            ) from None

    def wipe(self, name: str) -> None:
        """Overwrite a secret's ciphertext and remove it; nothing there is no error.

        Best effort: a journal, a snapshot, a copy-on-write file system or a flash disk may keep the old blocks. They
        hold ciphertext only.
        """
        path = self._folder / f"{check_name(name)}.bin"
        with explained(path, "wiped"), contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                write_all(descriptor, os.urandom(os.fstat(descriptor).st_size))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.unlink()
            sync_folder(path.parent)

    def wipe_all(self, prefix: str = "") -> int:
        """Wipe every secret, or those whose names begin with the parts of ``prefix``; return how many there were."""
        found = [name for name in self._files.names() if not prefix or f"{name}/".startswith(f"{prefix}/")]
        for name in found:
            self.wipe(name)
        return len(found)

    def names(self) -> list[str]:
        """Return the names of all secrets."""
        return list(self._files.names())

    def _about(self, name: str) -> bytes:
        return tagged_hash("quire/store/secret/1", self._store.encode(), name.encode())
