"""Keys that two members share: agreed once in a session, moved on with every attempt, never used directly.

Either end of a pair seals 32 random bytes to the other's fresh hybrid key (HPKE over ML-KEM-768 and X25519). The root
is derived from both halves. HPKE alone does not say who sealed: a server can put a half of its own in place of one
that it forwards. It still does not know the half that the victim sealed to the other's *signed* key, so it knows no
root; the two ends then hold different ones, which the check values and the edge commitments bring to light.

References
----------
HPKE: RFC 9180, single shot, base mode. ML-KEM-768: FIPS 203; how it is joined with X25519 is the ``cryptography``
package's ``MLKEM768_X25519``, nothing of ours. HKDF: RFC 5869.
"""

from __future__ import annotations

import hmac
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.secagg.context import number, tag
from quire.privacy.secagg.errors import BadShareCiphertext, PairKeyFailure
from quire.privacy.secagg.messages import CHECK, PAIR_CIPHERTEXT, PUBLIC_KEY

#: Random bytes from which a key pair is made: 64 for ML-KEM-768, 32 for X25519.
KEY_SEED = 96
HALF_SIZE = 32

_MLKEM_PUBLIC = 1184
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_NONCE = bytes(12)  # every key below seals one text


class Sealer(Protocol):
    """Seals a half to a public key; a test may put recorded ciphertexts in its place, as HPKE draws its own coins."""

    def __call__(self, half: bytes, key: bytes, info: bytes) -> bytes:
        """Return the ciphertext."""


def _private(seed: bytes) -> MLKEM768X25519PrivateKey:
    if len(seed) != KEY_SEED:
        raise ValueError(f"A key pair is made from {KEY_SEED} bytes.")
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])
    )


def public_key(seed: bytes) -> bytes:
    """Return the public key of the pair that this seed makes: 1216 bytes."""
    mlkem = MLKEM768PrivateKey.from_seed_bytes(seed[:64]).public_key().public_bytes_raw()
    return mlkem + X25519PrivateKey.from_private_bytes(seed[64:]).public_key().public_bytes_raw()


def pair_info(session: bytes, sender: int, receiver: int) -> bytes:
    """Return what a sealed half is bound to."""
    return tagged_hash(tag("pair"), session, number(sender), number(receiver))


def seal(half: bytes, key: bytes, info: bytes) -> bytes:
    """Seal 32 bytes to a member's public key.

    Raises
    ------
    PairKeyFailure
        If the key is not one.
    """
    try:
        if len(key) != PUBLIC_KEY:
            raise ValueError("length")
        public = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(key[:_MLKEM_PUBLIC]),
            X25519PublicKey.from_public_bytes(key[_MLKEM_PUBLIC:]),
        )
        return _SUITE.encrypt(half, public, info)
    except ValueError:
        raise PairKeyFailure("What a member advertised is no public key.") from None


def unseal(ciphertexts: dict[int, bytes], seed: bytes, session: bytes, receiver: int) -> dict[int, bytes]:
    """Open what the others sealed.

    Raises
    ------
    PairKeyFailure
        Naming the first member whose half does not open.
    """
    private = _private(seed)
    halves = {}
    for sender, ciphertext in ciphertexts.items():
        try:
            if len(ciphertext) != PAIR_CIPHERTEXT:
                raise ValueError("length")
            half = _SUITE.decrypt(ciphertext, private, pair_info(session, sender, receiver))
            if len(half) != HALF_SIZE:
                raise ValueError("length")
        except (InvalidTag, ValueError):
            raise PairKeyFailure(f"What member {sender} sealed does not open.", sender) from None
        halves[sender] = half
    return halves


def root(session: bytes, one: tuple[int, bytes], other: tuple[int, bytes]) -> bytes:
    """Return the key of a pair at the start of a session.

    Parameters
    ----------
    session : bytes
        h0.
    one, other : tuple of int and bytes
        Each end with the half that it *sent*.
    """
    (low, first), (high, second) = sorted((one, other))
    extracted = hmac.digest(session, first + second, "sha256")
    return _expand(extracted, "root", number(low) + number(high))


def check_value(session: bytes, key: bytes) -> bytes:
    """Return 16 bytes by which both ends show that they hold one root; they say nothing of later keys."""
    return _expand(key, "check", session)[:CHECK]


def ratchet(key: bytes, steps: int) -> bytes:
    """Move a pair's key on by so many attempts; there is no way back."""
    for _ in range(steps):
        key = _expand(key, "ratchet", b"")
    return key


def attempt_seeds(key: bytes, context: bytes) -> tuple[bytes, bytes]:
    """Return a pair's mask seed k and its key for sealing shares e, for one attempt."""
    return _expand(key, "mask", context), _expand(key, "envelope", context)


def _expand(key: bytes, use: str, info: bytes) -> bytes:
    """Return the first 32 bytes of HKDF-SHA256's expansion (RFC 5869, 2.3)."""
    return hmac.digest(key, tag(use).encode() + b"\x00" + info + b"\x01", "sha256")


def _envelope(key: bytes, dealer: int, holder: int, salt: bytes) -> AESGCM:
    return AESGCM(_expand(key, "share", number(dealer) + number(holder) + salt))


def seal_shares(key: bytes, dealer: int, holder: int, salt: bytes, context: bytes, shares: bytes) -> bytes:
    """Encrypt a dealer's shares for one holder, under a key of that direction, attempt and salt alone."""
    return _envelope(key, dealer, holder, salt).encrypt(_NONCE, shares, context)


def open_shares(key: bytes, dealer: int, holder: int, salt: bytes, context: bytes, ciphertext: bytes) -> bytes:
    """Decrypt a dealer's shares.

    Raises
    ------
    BadShareCiphertext
        Naming the dealer, if they were tampered with or sealed in another context.
    """
    try:
        return _envelope(key, dealer, holder, salt).decrypt(_NONCE, ciphertext, context)
    except (InvalidTag, ValueError):
        raise BadShareCiphertext(f"The shares that member {dealer} dealt do not open.", dealer) from None


def seal_list(key: bytes, owner: int, context: bytes, seeds: list[bytes]) -> bytes:
    """Encrypt a member's mask seeds, in the order of the other members' indices, under a key used once."""
    return AESGCM(key).encrypt(_NONCE, b"".join(seeds), context + number(owner))


def open_list(key: bytes, owner: int, context: bytes, sealed: bytes) -> list[bytes] | None:
    """Decrypt a member's mask seeds; None if they do not open."""
    try:
        opened = AESGCM(key).decrypt(_NONCE, sealed, context + number(owner))
    except (InvalidTag, ValueError):
        return None
    return [opened[at : at + 32] for at in range(0, len(opened), 32)]
