"""Identities: an Ed25519 key and, if wanted, an ML-DSA-65 key that a quantum computer would have to break as well.

What is signed is never a message as such but

    H("quire/signature/1", identity, H(tag, p1, ..., pm))

with H of :mod:`quire.privacy.identity.hashing` and ``identity`` the whole encoding of the signer's public keys. The tag
keeps uses apart. The identity keeps keys together: the Ed25519 half of a hybrid signature verifies under no other
identity, not even one that lists the same Ed25519 key alone, so that nothing is gained by stripping the other half.

References
----------
Ed25519: RFC 8032. ML-DSA-65: FIPS 204. Keys from one seed: HKDF-SHA256, RFC 5869. Why both halves have to verify, and
why the signed message names both keys: draft-ietf-lamps-pq-composite-sigs, security considerations on
non-separability.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quire.privacy.identity.errors import BadEncoding, BadSignature
from quire.privacy.identity.hashing import tagged_hash

SEED_SIZE = 32
ED25519_KEY, ED25519_SIGNATURE = 32, 64
MLDSA65_KEY, MLDSA65_SIGNATURE = 1952, 3309

# The first two bytes of every encoding: the version, and which algorithms follow.
_CLASSICAL, _HYBRID = b"\x01\x01", b"\x01\x03"
_SIGNATURE_TAG, _ED25519_TAG, _FINGERPRINT_TAG = "quire/signature/1", "quire/signature/ed25519/1", "quire/identity/1"

# Public keys of small order (RFC 8032 and its errata leave them in): under these *anyone's* signature verifies.
_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


@dataclass(frozen=True)
class PublicIdentity:
    """The public keys of one party.

    Attributes
    ----------
    ed25519 : bytes
        32 bytes.
    mldsa65 : bytes or None
        1952 bytes; if there is one, every signature of this party holds two, and both must verify.
    """

    ed25519: bytes
    mldsa65: bytes | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ed25519, bytes) or len(self.ed25519) != ED25519_KEY:
            raise BadEncoding(f"An Ed25519 public key has {ED25519_KEY} bytes.")
        y = int.from_bytes(self.ed25519, "little") & (2**255 - 1)
        if y >= _P or y in _SMALL_ORDER:
            raise BadEncoding("This Ed25519 public key is of small order or not canonical: it would prove nothing.")
        if self.mldsa65 is not None and (not isinstance(self.mldsa65, bytes) or len(self.mldsa65) != MLDSA65_KEY):
            raise BadEncoding(f"An ML-DSA-65 public key has {MLDSA65_KEY} bytes.")

    @property
    def post_quantum(self) -> bool:
        """Whether a signature also needs the ML-DSA-65 key."""
        return self.mldsa65 is not None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The names of the algorithms that all have to verify."""
        return ("Ed25519", "ML-DSA-65") if self.post_quantum else ("Ed25519",)

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that stand for all keys of this identity: what people compare."""
        return tagged_hash(_FINGERPRINT_TAG, self.encode()).hex()

    def encode(self) -> bytes:
        """Return the one encoding of this identity: a version byte, a byte for the algorithms, the keys."""
        return _CLASSICAL + self.ed25519 if self.mldsa65 is None else _HYBRID + self.ed25519 + self.mldsa65

    @classmethod
    def decode(cls, data: bytes) -> PublicIdentity:
        """Read the encoding of an identity.

        Raises
        ------
        BadEncoding
            If these bytes are not the encoding of an identity.
        """
        first, second = _split(data, "a public identity", ED25519_KEY, MLDSA65_KEY)
        return cls(first, second)

    def __str__(self) -> str:
        return f"{'+'.join(self.algorithms)} {self.fingerprint}"


@dataclass(frozen=True, eq=False, repr=False)
class PrivateIdentity:
    """The private keys of one party. Shows no secret, and can be neither pickled nor copied.

    Attributes
    ----------
    public : PublicIdentity
        The keys that others know.
    """

    _ed25519: Ed25519PrivateKey
    _mldsa65: MLDSA65PrivateKey | None = None
    public: PublicIdentity = field(init=False)

    def __post_init__(self) -> None:
        second = None if self._mldsa65 is None else self._mldsa65.public_key().public_bytes_raw()
        object.__setattr__(self, "public", PublicIdentity(self._ed25519.public_key().public_bytes_raw(), second))

    @classmethod
    def from_seed(cls, seed: bytes, post_quantum: bool = False) -> PrivateIdentity:
        """Derive an identity from a seed: the same seed, the same keys.

        Parameters
        ----------
        seed : bytes
            32 secret bytes, uniformly random. In a deployment from the operating system, once, and forgotten.
        post_quantum : bool
            Whether to have an ML-DSA-65 key beside the Ed25519 key.

        Raises
        ------
        ValueError
            If the seed has another length.
        """
        if len(seed) != SEED_SIZE:
            raise ValueError(f"A seed has {SEED_SIZE} bytes.")
        first = Ed25519PrivateKey.from_private_bytes(derive(seed, b"quire/identity/ed25519/1"))
        if not post_quantum:
            return cls(first)
        return cls(first, MLDSA65PrivateKey.from_seed_bytes(derive(seed, b"quire/identity/mldsa65/1")))

    def sign(self, tag: str, *parts: bytes) -> bytes:
        """Sign parts under a tag, with every key of this identity.

        Parameters
        ----------
        tag : str
            What the signature is for, as in ``"quire/roster/1"``.
        parts : bytes
            What is signed; where one part ends and the next begins is signed too.

        Returns
        -------
        bytes
            66 bytes, or 3375 with ML-DSA-65. Ed25519 is deterministic; ML-DSA-65 is hedged with randomness of the
            operating system (FIPS 204, 3.4), so two hybrid signatures over the same parts differ.
        """
        message = _message(_SIGNATURE_TAG, self.public, tag, parts)
        first = self._ed25519.sign(message)
        return _CLASSICAL + first if self._mldsa65 is None else _HYBRID + first + self._mldsa65.sign(message)

    def sign_ed25519(self, tag: str, *parts: bytes) -> bytes:
        """Sign with the Ed25519 key alone: 64 bytes, for many short-lived messages that nobody forges years later.

        It is a kind of its own: it can never stand for what :meth:`sign` returns, nor the other way round.
        """
        return self._ed25519.sign(_message(_ED25519_TAG, self.public, tag, parts))

    def encode_secret(self) -> bytes:
        """Return the secret keys as bytes, to be written into a key file and nowhere else."""
        first = self._ed25519.private_bytes_raw()
        return _CLASSICAL + first if self._mldsa65 is None else _HYBRID + first + self._mldsa65.private_bytes_raw()

    @classmethod
    def decode_secret(cls, data: bytes) -> PrivateIdentity:
        """Read what :meth:`encode_secret` returned.

        Raises
        ------
        BadEncoding
            If these bytes are not the encoding of a private identity.
        """
        first, second = _split(data, "a private identity", SEED_SIZE, SEED_SIZE)
        return cls(
            Ed25519PrivateKey.from_private_bytes(first),
            None if second is None else MLDSA65PrivateKey.from_seed_bytes(second),
        )

    def __repr__(self) -> str:
        return f"PrivateIdentity({self.public.fingerprint[:16]})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A private identity is neither pickled nor copied.")


def verify(public: PublicIdentity, tag: str, parts: tuple[bytes, ...], signature: bytes) -> None:
    """Check a signature of :meth:`PrivateIdentity.sign`; return nothing if it is good.

    Parameters
    ----------
    public : PublicIdentity
        Who is said to have signed. With an ML-DSA-65 key in it, both signatures have to be there and to verify.
    tag : str
        What the signature has to be for.
    parts : tuple of bytes
        What has to have been signed.
    signature : bytes
        What :meth:`PrivateIdentity.sign` returned.

    Raises
    ------
    BadSignature
        In every other case, whatever the bytes are.
    """
    try:
        first, second = _split(signature, "a signature", ED25519_SIGNATURE, MLDSA65_SIGNATURE)
    except BadEncoding as error:
        raise BadSignature(str(error)) from None
    if (second is None) != (public.mldsa65 is None):
        raise BadSignature(
            f"The signature is not made with {' and '.join(public.algorithms)}, which this party signs with."
        )
    message = _message(_SIGNATURE_TAG, public, tag, parts)
    _verify_ed25519(public, first, message)
    if second is not None and public.mldsa65 is not None:
        try:
            MLDSA65PublicKey.from_public_bytes(public.mldsa65).verify(second, message)
        except (InvalidSignature, ValueError):
            raise BadSignature("The ML-DSA-65 signature does not verify.") from None


def verify_ed25519(public: PublicIdentity, tag: str, parts: tuple[bytes, ...], signature: bytes) -> None:
    """Check a signature of :meth:`PrivateIdentity.sign_ed25519`; return nothing if it is good.

    Raises
    ------
    BadSignature
        In every other case, whatever the bytes are.
    """
    if len(signature) != ED25519_SIGNATURE:
        raise BadSignature(f"An Ed25519 signature has {ED25519_SIGNATURE} bytes.")
    _verify_ed25519(public, signature, _message(_ED25519_TAG, public, tag, parts))


def derive(secret: bytes, label: bytes) -> bytes:
    """Return 32 bytes derived from a secret for one purpose: HKDF-SHA256 without salt."""
    return HKDF(algorithm=SHA256(), length=SEED_SIZE, salt=None, info=label).derive(secret)


def _message(kind: str, public: PublicIdentity, tag: str, parts: tuple[bytes, ...]) -> bytes:
    return tagged_hash(kind, public.encode(), tagged_hash(tag, *parts))


def _verify_ed25519(public: PublicIdentity, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public.ed25519).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise BadSignature("The Ed25519 signature does not verify.") from None


def _split(data: bytes, what: str, first: int, second: int) -> tuple[bytes, bytes | None]:
    """Take apart a version, a byte for the algorithms, and one or two fields of fixed sizes."""
    head, body = data[:2], data[2:]
    if head == _CLASSICAL and len(body) == first:
        return body, None
    if head == _HYBRID and len(body) == first + second:
        return body[:first], body[first:]
    raise BadEncoding(f"{len(data)} bytes are not the encoding of {what}.")
