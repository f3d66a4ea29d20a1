"""SGX quotes: what an enclave said about itself, read from its bytes, and what it has to have said.

The identity key of a silo is made inside its enclave. The enclave asks the processor for a quote whose report data
name that key, the challenge of whoever asks, and the policy that was agreed on:

    report_data = SHA-256("quire/enclave/attestation/1", identity, nonce, policy hash) || 32 zero bytes

with the hash of :mod:`quire.privacy.identity.hashing`, which precedes each part with its length. A quote for one
challenge, key or policy can so never stand for another.

References
----------
Intel SGX ECDSA QuoteLibReference: "Quote Format", version 3: a header of 48 bytes, the report of 384 bytes
(Intel SDM volume 3D, "REPORT"), the length of the signature data, the signature data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from quire.enclave.errors import QuoteRefused
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity

TAG = "quire/enclave/attestation/1"
NONCE_SIZE = POLICY_SIZE = 32
#: No quote is longer: three certificates and a little more.
MAX_BYTES = 64 * 1024
DEBUG, INITIALISED = 0x2, 0x1  # of ATTRIBUTES

_HEADER, _REPORT = 48, 384
_AT_LENGTH = _HEADER + _REPORT
_ECDSA_P256 = 2


def report_data(identity: PublicIdentity, nonce: bytes, policy: bytes) -> bytes:
    """Return the 64 bytes that a quote has to carry.

    Parameters
    ----------
    identity : PublicIdentity
        The silo's key, made inside the enclave.
    nonce : bytes
        The challenge, 32 bytes.
    policy : bytes
        The hash of what was agreed on, 32 bytes.

    Raises
    ------
    ValueError
        If nonce or policy have another length.
    """
    if len(nonce) != NONCE_SIZE or len(policy) != POLICY_SIZE:
        raise ValueError(f"A nonce has {NONCE_SIZE} bytes, and the hash of a policy {POLICY_SIZE}.")
    return tagged_hash(TAG, identity.encode(), nonce, policy).ljust(64, b"\0")


@dataclass(frozen=True)
class Quote:
    """The report within a quote. Reading it proves nothing: see :func:`quire.enclave.verify.verify`.

    Attributes
    ----------
    measurement, signer : str
        MRENCLAVE and MRSIGNER, 64 hexadecimal digits each.
    product, version : int
        ISVPRODID and ISVSVN.
    flags : int
        The first 64 bits of ATTRIBUTES.
    data : bytes
        The 64 bytes of report data.
    """

    measurement: str
    signer: str
    product: int
    version: int
    flags: int
    data: bytes

    @property
    def debug(self) -> bool:
        """Whether the enclave can be read from outside."""
        return bool(self.flags & DEBUG)

    @classmethod
    def decode(cls, raw: bytes) -> Quote:
        """Read a quote of version 3 with an ECDSA P-256 key, as Gramine gives it.

        Raises
        ------
        QuoteRefused
            If these bytes are no such quote, or there are too few or too many.
        """
        if len(raw) > MAX_BYTES:
            raise QuoteRefused("malformed", f"A quote has at most {MAX_BYTES} bytes, this has {len(raw)}.")
        if len(raw) < _AT_LENGTH + 4:
            raise QuoteRefused("malformed", f"The quote is cut short: {len(raw)} bytes, fewer than its header has.")
        version, kind, tee = struct.unpack_from("<HHI", raw)
        if (version, kind, tee) != (3, _ECDSA_P256, 0):
            raise QuoteRefused(
                "malformed",
                f"This is no SGX quote of version 3 with an ECDSA P-256 key (version {version}, key type {kind}, "
                f"TEE type {tee}).",
            )
        (length,) = struct.unpack_from("<I", raw, _AT_LENGTH)
        if len(raw) != _AT_LENGTH + 4 + length:
            raise QuoteRefused(
                "malformed",
                f"The quote says that it has {_AT_LENGTH + 4 + length} bytes and has {len(raw)}: it was cut or "
                "something was added.",
            )
        report = raw[_HEADER:_AT_LENGTH]
        (flags,) = struct.unpack_from("<Q", report, 48)
        product, level = struct.unpack_from("<HH", report, 256)
        return cls(report[64:96].hex(), report[128:160].hex(), product, level, flags, report[320:384])
