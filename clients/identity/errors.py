"""What can be wrong with files of keys and rosters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quire.errors import QuireError
from quire.privacy.identity.errors import IdentityError


class IdentityFileError(QuireError):
    """A file of keys, a roster or a passphrase cannot be used; no text holds anything secret."""

    exit_code = 2


class PassphraseNeeded(IdentityFileError):
    """A key file is encrypted, and no passphrase was given."""


@contextmanager
def sentences(what: object) -> Iterator[None]:
    """Turn what identity code refuses into a sentence that begins with where it was found."""
    try:
        yield
    except IdentityError as error:
        raise IdentityFileError(f"{what}: {error}") from error
