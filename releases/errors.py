"""What can be wrong with envelopes, registries, keys of recipients and watermarks: each is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quire.errors import QuireError
from quire.privacy.identity.errors import IdentityError


class ReleaseError(QuireError):
    """Something cannot be released, read or written as asked."""

    exit_code = 2


class Refused(ReleaseError):
    """An envelope is not opened, or a registry not believed."""

    exit_code = 1


class RegistryDamaged(Refused):
    """Something in a registry is not what was written there, or is missing."""


class RegistryBusy(ReleaseError):
    """Another process writes to the registry."""

    exit_code = 1


class WatermarkError(ReleaseError):
    """A model cannot carry a watermark, or a key of one cannot be used."""


@contextmanager
def refusing(what: object) -> Iterator[None]:
    """Turn what identity code refuses into a refusal that begins with where it was found."""
    try:
        yield
    except IdentityError as error:
        raise Refused(f"{what}: {error}") from error
