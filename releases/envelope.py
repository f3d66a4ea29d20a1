"""An envelope's bytes: a header in clear, the content key sealed to each recipient, the parts encrypted, a signature.

::

    "quire-envelope-1\\n"
    length of the header, 4 bytes, big-endian
    header                canonical JSON (:mod:`quire.releases.header`)
    sealed content keys   1168 bytes for each recipient, in the header's order
    payload               the parts one after the other, AES-256-GCM, 16 bytes longer than they
    signature             the releaser's, over all of the above

Sizes follow from the header, so that the total is exact: nothing can be left out or put behind. The content key is
drawn for one envelope and encrypts one payload, with the header as associated data; each sealed copy of it is bound to
the header and its recipient by HPKE's ``info``. Whoever can open an envelope knows the content key and could encrypt
something else under it: against that stand the releaser's signature over the ciphertext and the hashes in the header.
The same hashes settle that all recipients read the same bytes, which AES-GCM alone does not (it commits to no key).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import ED25519_SIGNATURE, MLDSA65_SIGNATURE, PrivateIdentity, verify
from quire.releases.errors import Refused, ReleaseError
from quire.releases.header import MAX_HEADER, MAX_PAYLOAD, MAX_RECIPIENTS, Header
from quire.releases.recipients import SEALED_SIZE, SECRET_SIZE, Recipient, RecipientKey

MAGIC = b"quire-envelope-1\n"
TAG_SIZE = 16
MAX_BYTES = len(MAGIC) + 4 + MAX_HEADER + MAX_RECIPIENTS * SEALED_SIZE + MAX_PAYLOAD + TAG_SIZE + 4096

_SIGNATURE_TAG, _HASH_TAG, _SEAL_TAG = "quire/release/signed/1", "quire/release/envelope/1", "quire/release/seal/1"
_NONCE = bytes(12)  # every content key encrypts one payload


@dataclass(frozen=True)
class Envelope:
    """An envelope, taken apart. Having one says nothing yet; :meth:`check` does.

    Attributes
    ----------
    header : Header
    sealed : tuple of bytes
        The content key for each recipient, in the header's order.
    payload : bytes
        Encrypted.
    signature : bytes
    """

    header: Header
    sealed: tuple[bytes, ...]
    payload: bytes
    signature: bytes

    @cached_property
    def hash(self) -> str:
        """64 hexadecimal digits that stand for every byte of it."""
        return tagged_hash(_HASH_TAG, *self._signed, self.signature).hex()

    @property
    def _signed(self) -> tuple[bytes, bytes, bytes]:
        return self.header.data, b"".join(self.sealed), hashlib.sha256(self.payload).digest()

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        header = self.header.data
        return b"".join((MAGIC, len(header).to_bytes(4, "big"), header, *self.sealed, self.payload, self.signature))

    @classmethod
    def decode(cls, data: bytes) -> Envelope:
        """Take an envelope apart, strictly; no signature is checked.

        Raises
        ------
        Refused
            If the bytes are anything but an envelope of exactly the size that it says.
        """
        if not data.startswith(MAGIC) or len(data) > MAX_BYTES:
            raise Refused("These bytes are no envelope of this version.")
        at = len(MAGIC) + 4
        size = int.from_bytes(data[at - 4 : at], "big")
        if not 0 < size <= MAX_HEADER or len(data) < at + size:
            raise Refused("The envelope's header is not all there: it was cut off or altered.")
        header = Header.read(data[at : at + size])
        at += size
        keys = len(header.recipients) * SEALED_SIZE
        payload = header.payload + TAG_SIZE
        signature = 2 + ED25519_SIGNATURE + (MLDSA65_SIGNATURE if header.releaser.post_quantum else 0)
        if len(data) != at + keys + payload + signature:
            raise Refused("The envelope has another size than its header says: it was cut off or altered.")
        sealed = tuple(data[start : start + SEALED_SIZE] for start in range(at, at + keys, SEALED_SIZE))
        at += keys
        return cls(header, sealed, data[at : at + payload], data[at + payload :])

    def check(self) -> None:
        """Check that the releaser whom the header names has signed all of it; who that is, is for others to say.

        Raises
        ------
        Refused
            If not.
        """
        try:
            verify(self.header.releaser, _SIGNATURE_TAG, self._signed, self.signature)
        except IdentityError:
            raise Refused(
                "The envelope's signature does not verify: it was altered after it was signed, or signed by another."
            ) from None

    def open(self, key: RecipientKey) -> dict[str, bytes]:
        """Return the parts by name, each as the header says it is.

        Raises
        ------
        Refused
            If the key belongs to none of the recipients, or what is inside is not what the header says.
        """
        header = self.header
        if key.id not in header.recipients:
            raise Refused(f"The envelope is not for this key: {key.id[:16]} is not among its recipients.")
        secret = key.unseal(self.sealed[header.recipients.index(key.id)], _info(header, key.id))
        try:
            opened = AESGCM(secret).decrypt(_NONCE, self.payload, header.data)
        except (InvalidTag, ValueError):
            raise Refused("The envelope's payload does not open: it was altered.") from None
        parts, at = {}, 0
        for part in header.parts:
            parts[part.name] = opened[at : at + part.size]
            at += part.size
            if hashlib.sha256(parts[part.name]).hexdigest() != part.sha256:
                raise Refused(f"{part.name} in the envelope is not what its header says.")
        return parts


def seal(
    header: Header, parts: Mapping[str, bytes], recipients: Sequence[Recipient], identity: PrivateIdentity
) -> Envelope:
    """Encrypt parts to recipients, and sign.

    Parameters
    ----------
    header : Header
        Says parts, recipients and releaser, which have to be those given.
    parts : mapping of str to bytes
    recipients : sequence of Recipient
    identity : PrivateIdentity
        The releaser's.

    Raises
    ------
    ReleaseError
        If the header says otherwise than what is given, or a recipient's key is none.
    """
    told = [(part.name, part.sha256, part.size) for part in header.parts]
    if told != [(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in parts.items()]:
        raise ReleaseError("The header names other parts than those to be sealed.")
    if header.recipients != tuple(one.id for one in recipients) or header.releaser != identity.public:
        raise ReleaseError("The header names other recipients, or another releaser, than those given.")
    secret = os.urandom(SECRET_SIZE)
    sealed = tuple(one.seal(secret, _info(header, one.id)) for one in recipients)
    payload = AESGCM(secret).encrypt(_NONCE, b"".join(parts.values()), header.data)
    unsigned = Envelope(header, sealed, payload, b"")
    return Envelope(header, sealed, payload, identity.sign(_SIGNATURE_TAG, *unsigned._signed))


def _info(header: Header, recipient: str) -> bytes:
    return tagged_hash(_SEAL_TAG, header.data, recipient.encode())
