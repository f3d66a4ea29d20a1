"""The keys under which a silo's columns are hashed: from a file of its own, or from its identity; one for each column.

A hash without a key hides nothing: whoever knows what values there can be (names, numbers of patients) hashes them
all and compares. Two columns have two keys, so that equal values in them are not equal afterwards.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from quire.clients.data.rules.columns import Columns
from quire.errors import DataError, QuireError
from quire.privacy.identity.keys import derive

FEWEST_BYTES, MOST_BYTES = 32, 4096
_IDENTITY = b"quire/columns/hash/identity/1"
_FILE = b"quire/columns/hash/file/1"
_COLUMN = b"quire/columns/hash/column/1/"


def secret_of(columns: Columns) -> bytes:
    """Return the 32 bytes from which the keys of the columns are derived.

    Raises
    ------
    DataError
        If the file of the key, or the silo's own key file, is missing, open to others, or not what it should be.
    """
    if columns.key is not None:
        return derive(_content(columns.key), _FILE)
    from quire.clients.identity import load_identity
    from quire.clients.identity.passphrase import from_variable
    from quire.clients.policy.books import PASSPHRASE_VARIABLE

    try:
        words = from_variable(PASSPHRASE_VARIABLE) if PASSPHRASE_VARIABLE in os.environ else None
        return derive(load_identity(columns.identity, words).encode_secret(), _IDENTITY)
    except QuireError as error:
        raise DataError(
            f"The rule 'hash' needs a secret key, and {str(error).rstrip('.')}: name a file with one in 'columns' as "
            "'key', or make the silo's own."
        ) from error


def column_key(secret: bytes, name: str) -> bytes:
    """Return the key of one column: 32 bytes, HKDF-SHA256."""
    return derive(secret, _COLUMN + name.encode("utf-8", "surrogatepass"))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"The key of the columns, {path}, cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise DataError(f"The key of the columns, {path}, must be a file that its owner alone may read: chmod 600.")
    if not FEWEST_BYTES <= len(content) <= MOST_BYTES:
        raise DataError(
            f"The key of the columns, {path}, has {len(content)} bytes: write {FEWEST_BYTES} random ones there, as "
            f"`head -c {FEWEST_BYTES} /dev/urandom` gives them."
        )
    return content
