"""What can be wrong with a charter, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quire.errors import QuireError
from quire.privacy.identity.errors import IdentityError


class CharterError(QuireError):
    """A document is no charter, contradicts itself, or cannot be used as asked."""

    exit_code = 2


class CharterRefused(CharterError):
    """A charter is well formed and does not hold: signatures, order of versions, or time speak against it."""

    exit_code = 1


class CharterForked(CharterRefused):
    """Two charters claim the same place in the order of versions."""


@contextmanager
def sentences(what: str = "The charter cannot be used") -> Iterator[None]:
    """Turn what identity code refuses into an error of this room."""
    try:
        yield
    except IdentityError as error:
        raise CharterError(f"{what}: {error}") from error
