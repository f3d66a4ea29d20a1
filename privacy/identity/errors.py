"""What identity code refuses, in sentences. No text holds a secret, and none quotes more than names and numbers."""

from __future__ import annotations


class IdentityError(ValueError):
    """Base of what this package refuses; its text is one sentence."""


class BadEncoding(IdentityError):
    """Bytes are not the one encoding of anything that this package writes."""


class BadSignature(IdentityError):
    """A signature was not made by this identity over these parts under this tag."""


class RosterError(IdentityError):
    """A roster contradicts itself, its signatures, its pin or the roster before it."""
