"""Whether an answer of an enclave proves that a key was made in an enclave that is allowed, now, for this policy.

The order is: form, age of the challenge, report data, allow-list, chain, state of the platform. Cheap checks come
first; the chain is what makes any of them mean something, and nothing is believed before it has held.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from quire.enclave.chain import Chain, Platform
from quire.enclave.errors import EnclaveError, QuoteRefused
from quire.enclave.policy import Allowed
from quire.enclave.quotes import MAX_BYTES, NONCE_SIZE, POLICY_SIZE, Quote, report_data
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PublicIdentity

MAX_FILE = 4 * MAX_BYTES
_EARLY = 60  # seconds by which the clock of whoever asked may be ahead


@dataclass(frozen=True)
class Challenge:
    """What an enclave has to answer to.

    Attributes
    ----------
    nonce : bytes
        32 random bytes.
    policy : bytes
        32 bytes: the hash of what was agreed on.
    issued : int
        Unix time.
    """

    nonce: bytes
    policy: bytes
    issued: int

    @classmethod
    def new(cls, policy: bytes, now: int) -> Challenge:
        """Draw a challenge."""
        return cls(secrets.token_bytes(NONCE_SIZE), policy, now)

    def encode(self) -> bytes:
        """Return the JSON form."""
        body = {"nonce": self.nonce.hex(), "policy": self.policy.hex(), "issued": self.issued}
        return (json.dumps(body) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Challenge:
        """Read the JSON form.

        Raises
        ------
        EnclaveError
            If it is none.
        """
        body = _object(data, {"nonce", "policy", "issued"}, "challenge")
        issued = body["issued"]
        if isinstance(issued, bool) or not isinstance(issued, int) or not 0 <= issued < 2**40:
            raise EnclaveError("A challenge says when it was issued, in seconds since 1970.")
        return cls(_hex(body["nonce"], NONCE_SIZE), _hex(body["policy"], POLICY_SIZE), issued)


@dataclass(frozen=True)
class Answer:
    """What an enclave says: its key, and a quote that names the key; no quote where there is no enclave."""

    identity: PublicIdentity
    quote: bytes | None

    def encode(self) -> bytes:
        """Return the JSON form, one line."""
        quote = None if self.quote is None else base64.b64encode(self.quote).decode()
        return (json.dumps({"identity": self.identity.encode().hex(), "quote": quote}) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Read the JSON form.

        Raises
        ------
        EnclaveError
            If it is none.
        """
        body = _object(data, {"identity", "quote"}, "answer of an enclave")
        try:
            identity = PublicIdentity.decode(bytes.fromhex(body["identity"]))
            quote = None if body["quote"] is None else base64.b64decode(body["quote"], validate=True)
        except (TypeError, ValueError, binascii.Error, IdentityError):
            raise EnclaveError("The key or the quote in this answer of an enclave cannot be read.") from None
        return cls(identity, quote)


@dataclass
class Challenges:
    """The challenges that a server has given out: each is answered once, and not for long.

    Parameters
    ----------
    max_age : int
        Seconds after which a challenge is forgotten.
    limit : int
        How many may be open at once; the oldest makes room.
    """

    max_age: int
    limit: int = 10_000
    _open: dict[bytes, Challenge] = field(default_factory=dict)

    def give(self, policy: bytes, now: int) -> Challenge:
        """Draw a challenge and remember it."""
        while len(self._open) >= self.limit:
            del self._open[next(iter(self._open))]
        made = Challenge.new(policy, now)
        self._open[made.nonce] = made
        return made

    def take(self, nonce: bytes, now: int) -> Challenge:
        """Return an open challenge and strike it off.

        Raises
        ------
        QuoteRefused
            If it was never given, was answered already, or is too old.
        """
        found = self._open.pop(nonce, None)
        if found is None:
            raise QuoteRefused("stale", "This challenge was never given, was answered already, or is forgotten.")
        check_age(found, now, self.max_age)
        return found


def check_age(challenge: Challenge, now: int, max_age: int) -> None:
    """Refuse a challenge that is too old, or from the future."""
    age = now - challenge.issued
    if age > max_age:
        raise QuoteRefused("stale", f"The challenge is {age} seconds old; {max_age} are allowed.")
    if age < -_EARLY:
        raise QuoteRefused("stale", f"The challenge was issued {-age} seconds in the future.")


def verify(
    raw: bytes,
    identity: PublicIdentity,
    challenge: Challenge,
    allowed: Allowed,
    collateral: str,
    now: int,
    chain: Chain,
) -> tuple[Quote, Platform]:
    """Check that a quote proves this identity to be an allowed enclave's.

    Parameters
    ----------
    raw : bytes
        The quote.
    identity : PublicIdentity
        The key that the enclave says is its own.
    challenge : Challenge
    allowed : Allowed
    collateral : str
        As :func:`quire.enclave.chain.collateral_of` returns it.
    now : int
        Unix time.
    chain : callable
        The lowest layer, :func:`quire.enclave.chain.dcap_chain`.

    Returns
    -------
    tuple of Quote and Platform

    Raises
    ------
    QuoteRefused
        With its reason.
    """
    quote = Quote.decode(raw)
    check_age(challenge, now, allowed.max_age)
    if not secrets.compare_digest(quote.data, report_data(identity, challenge.nonce, challenge.policy)):
        raise QuoteRefused(
            "report-data", "The quote is not for this key, this challenge and this policy: its report data are others."
        )
    allowed.check_report(quote)
    platform = chain(raw, collateral, now)
    allowed.check_platform(platform)
    return quote, platform


def _object(data: bytes, keys: set[str], what: str) -> dict[str, Any]:
    if len(data) > MAX_FILE:
        raise EnclaveError(f"This is no {what}: it has more than {MAX_FILE} bytes.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or set(found) != keys:
        raise EnclaveError(f"This is no {what}: it is JSON with {', '.join(sorted(keys))}.")
    return found


def _hex(value: object, size: int) -> bytes:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        found = b""
    if len(found) != size:
        raise EnclaveError(f"A nonce and the hash of a policy have {2 * size} hexadecimal digits each.")
    return found
