"""What can be wrong with envelopes, registries, keys of recipients and watermarks: each is one sentence."""

from __future__ import annotations

from quire.errors import QuireError


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
