"""Key pairs that envelopes are encrypted to: X25519 and ML-KEM-768 together, in files of their own.

A secret is sealed with HPKE over the hybrid KEM, as secure aggregation seals its halves: whoever wants to read what was
recorded today has to break both. The public file may carry the signature of its owner's identity, so that a releaser
with the consortium's roster can tell whose it is; without one people compare its id.

References
----------
HPKE: RFC 9180, single shot, base mode. ML-KEM-768: FIPS 203; how it is joined with X25519 is the ``cryptography``
package's ``MLKEM768_X25519``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from quire.clients.identity import files
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity, verify
from quire.privacy.identity.roster import NAME_WORDS, Roster, fields, hexadecimal, is_name
from quire.releases.disk import shown
from quire.releases.errors import Refused, ReleaseError

SUFFIX, PUBLIC_SUFFIX = ".recipient", ".pub"
#: Bytes of a content key.
SECRET_SIZE = 32
#: Bytes of a sealed one: both encapsulations, the key, the AEAD's tag.
SEALED_SIZE = 1088 + 32 + SECRET_SIZE + 16
PUBLIC_SIZE, SEED_SIZE = 1184 + 32, 64 + 32
MAX_BYTES = 32 * 1024

_PUBLIC_FORMAT, _SECRET_FORMAT = "quire-recipient-1", "quire-recipient-secret-1"
_ID_TAG, _SIGNED_TAG = "quire/release/recipient-id/1", "quire/release/recipient/1"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True)
class Recipient:
    """Who an envelope can be encrypted to.

    Attributes
    ----------
    name : str
        What its owner calls it; a proposal, unless a roster's member has signed it.
    key : bytes
        1216 bytes.
    signer : PublicIdentity or None
        Who has signed name and key; None: nobody.
    signature : bytes or None
    """

    name: str
    key: bytes
    signer: PublicIdentity | None = None
    signature: bytes | None = None

    @property
    def id(self) -> str:
        """64 hexadecimal digits that stand for the key: what people compare."""
        return key_id(self.key)

    def encode(self) -> bytes:
        """Return the bytes of the public file."""
        signer = None if self.signer is None else self.signer.encode().hex()
        signature = None if self.signature is None else self.signature.hex()
        found = {"format": _PUBLIC_FORMAT, "key": self.key.hex(), "name": self.name}
        return dumps({**found, "signature": signature, "signer": signer})

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Seal 32 bytes to this recipient, bound to ``info``.

        Raises
        ------
        ReleaseError
            If the key is none.
        """
        try:
            public = MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.key[:-32]), X25519PublicKey.from_public_bytes(self.key[-32:])
            )
            return _SUITE.encrypt(secret, public, info)
        except ValueError:
            raise ReleaseError(f"The public key of the recipient '{self.name}' is none.") from None

    def owner(self, roster: Roster, now: int) -> str | None:
        """Return the name of the roster's member who has signed this key; None if nobody has signed it.

        Raises
        ------
        ReleaseError
            If it was signed by somebody else, or by a member whose signatures do not count now.
        """
        if self.signer is None:
            return None
        for member in roster.active(now):
            if member.identity == self.signer:
                return member.name
        raise ReleaseError(
            f"The key of the recipient '{self.name}' is signed by {self.signer.fingerprint[:16]}, who is no member of "
            f"the roster {roster.roster_id} now."
        )


def key_id(key: bytes) -> str:
    """Return what stands for a recipient's public key."""
    return tagged_hash(_ID_TAG, key).hex()


class RecipientKey:
    """A recipient's own keys. Shows no secret.

    Parameters
    ----------
    name : str
    seed : bytes
        96 secret bytes.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_SIZE:
            raise ReleaseError(f"A recipient's secret has {SEED_SIZE} bytes.")
        self.name = name
        first, second = MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])
        self._private = MLKEM768X25519PrivateKey(first, second)
        self.key = first.public_key().public_bytes_raw() + second.public_key().public_bytes_raw()
        self.id = key_id(self.key)

    def __repr__(self) -> str:
        return f"RecipientKey({self.id[:16]})"

    def unseal(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to this key.

        Raises
        ------
        Refused
            If it does not open.
        """
        try:
            secret = _SUITE.decrypt(sealed, self._private, info)
        except (InvalidTag, ValueError):
            raise Refused("The envelope's content key does not open: it was sealed to another key.") from None
        if len(secret) != SECRET_SIZE:
            raise Refused("The envelope's content key has another size.")
        return secret


def new_recipient(folder: Path, name: str, identity: PrivateIdentity | None = None) -> tuple[Path, Recipient]:
    """Make a key pair: ``NAME.recipient`` for its owner alone, ``NAME.recipient.pub`` for those who release models.

    Returns
    -------
    pathlib.Path
        Of the secret file.
    Recipient

    Raises
    ------
    ReleaseError
        If the name is none or the folder is not there.
    IdentityFileError
        If a file exists already or cannot be written; nothing is left behind then.
    """
    if not is_name(name):
        raise ReleaseError(f"The name of a recipient must be {NAME_WORDS}.")
    if not folder.is_dir():
        raise ReleaseError(f"There is no folder {shown(folder)}: make it first.")
    path = folder / f"{name}{SUFFIX}"
    beside = path.with_name(path.name + PUBLIC_SUFFIX)
    files.check_absent(path)
    seed = os.urandom(SEED_SIZE)
    key = RecipientKey(name, seed).key
    signature = None if identity is None else identity.sign(_SIGNED_TAG, name.encode(), key)
    made = Recipient(name, key, None if identity is None else identity.public, signature)
    files.create(beside, made.encode(), files.EVERYBODY)  # first: should the second fail, it is worth nothing
    try:
        files.create(path, dumps({"format": _SECRET_FORMAT, "name": name, "seed": seed.hex()}), files.OWNER_ONLY)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return path, made


def read_recipient(path: Path) -> Recipient:
    """Read a public file; a signature in it is checked.

    Raises
    ------
    ReleaseError
        If it is something else, or its signature does not hold.
    IdentityFileError
        If it cannot be read.
    """
    data = files.read(path, MAX_BYTES)
    try:
        keys: dict[str, type | None] = {"format": str, "key": str, "name": str, "signature": None, "signer": None}
        found = fields(loads(data, MAX_BYTES), "recipient's key", keys)
        key = hexadecimal(found["key"], "'key'")
        if found["format"] != _PUBLIC_FORMAT or len(key) != PUBLIC_SIZE or not is_name(found["name"]):
            raise ReleaseError(f"{shown(path)} is not the public key of a recipient.")
        if (found["signer"] is None) != (found["signature"] is None):
            raise ReleaseError(f"{shown(path)} names a signer without a signature, or the other way round.")
        if found["signer"] is None:
            return Recipient(found["name"], key)
        signer = PublicIdentity.decode(hexadecimal(found["signer"], "'signer'"))
        signature = hexadecimal(found["signature"], "'signature'")
        verify(signer, _SIGNED_TAG, (found["name"].encode(), key), signature)
        return Recipient(found["name"], key, signer, signature)
    except IdentityError as error:
        raise ReleaseError(f"{shown(path)} is not the public key of a recipient: {error}") from error


def read_recipient_key(path: Path) -> RecipientKey:
    """Read a secret file, which nobody but its owner may have rights to.

    Raises
    ------
    ReleaseError
        If it is something else.
    IdentityFileError
        If it cannot be read, or others could.
    """
    data = files.read(path, MAX_BYTES, secret=True)
    try:
        found = fields(loads(data, MAX_BYTES), "recipient's secret", dict.fromkeys(("format", "name", "seed"), str))
        if found["format"] != _SECRET_FORMAT or not is_name(found["name"]):
            raise ReleaseError(f"{shown(path)} is not the secret key of a recipient.")
        return RecipientKey(found["name"], hexadecimal(found["seed"], "'seed'"))
    except IdentityError:
        raise ReleaseError(
            f"{shown(path)} is not the secret key of a recipient: name the file that `quire model key new` made."
        ) from None
