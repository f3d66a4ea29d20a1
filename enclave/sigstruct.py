"""The signature of an enclave, SIGSTRUCT, read from its bytes: which measurement was signed, and by whom.

References
----------
Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3D, "Enclave Signature Structure (SIGSTRUCT)":
1,808 bytes, offsets as below; RSA-3072 with exponent 3, PKCS#1 v1.5, SHA-256 over bytes 0 to 127 and 900 to 1,027.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from quire.enclave.errors import EnclaveError

SIZE = 1808
#: ATTRIBUTES.DEBUG: an enclave that may be read from outside.
DEBUG = 0x2

_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_DATE, _AT_HEADER2, _MODULUS, _EXPONENT, _SIGNATURE = 20, 24, 128, 512, 516
_BODY, _ATTRIBUTES, _MASK, _HASH, _PRODUCT, _END = 900, 928, 944, 960, 1024, 1028
_KEY = 384  # bytes of RSA-3072
# DigestInfo of SHA-256 (RFC 8017, section 9.2, note 1).
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


@dataclass(frozen=True)
class Sigstruct:
    """What a signature of an enclave says.

    Attributes
    ----------
    measurement : str
        MRENCLAVE, 64 hexadecimal digits.
    signer : str
        MRSIGNER, 64 hexadecimal digits: the SHA-256 of the signer's modulus.
    product, version : int
        ISVPRODID and ISVSVN.
    debug : bool
        Whether the signature lets the enclave be started in debug mode: DEBUG is set, or its mask leaves it open.
    date : str
        As YYYY-MM-DD, as the signer says.
    """

    measurement: str
    signer: str
    product: int
    version: int
    debug: bool
    date: str

    @classmethod
    def decode(cls, data: bytes) -> Sigstruct:
        """Read a SIGSTRUCT and check its signature.

        Raises
        ------
        EnclaveError
            If these bytes are none, or the signature is not of the key within.
        """
        if len(data) != SIZE:
            raise EnclaveError(f"A signature of an enclave has {SIZE} bytes, this file has {len(data)}.")
        if data[: len(_HEADER)] != _HEADER or data[_AT_HEADER2 : _AT_HEADER2 + len(_HEADER2)] != _HEADER2:
            raise EnclaveError("These bytes do not begin as a signature of an enclave (SIGSTRUCT) does.")
        _check_signature(data)
        day, month, year = data[_DATE], data[_DATE + 1], int.from_bytes(data[_DATE + 2 : _DATE + 4], "little")
        (flags,) = struct.unpack_from("<Q", data, _ATTRIBUTES)
        (mask,) = struct.unpack_from("<Q", data, _MASK)
        product, version = struct.unpack_from("<HH", data, _PRODUCT)
        return cls(
            data[_HASH : _HASH + 32].hex(),
            hashlib.sha256(data[_MODULUS : _MODULUS + _KEY]).hexdigest(),
            product,
            version,
            bool(flags & DEBUG) or not mask & DEBUG,
            f"{year:04x}-{month:02x}-{day:02x}",  # the digits are those of the date, as hexadecimal
        )


def signed_part(data: bytes) -> bytes:
    """Return what the signature of a SIGSTRUCT is over."""
    return data[:_MODULUS] + data[_BODY:_END]


def padded(message: bytes) -> int:
    """Return the number whose cube root a signature is: EMSA-PKCS1-v1_5 (RFC 8017, section 9.2) with SHA-256."""
    digest = _DIGEST_INFO + hashlib.sha256(message).digest()
    return int.from_bytes(b"\x00\x01" + b"\xff" * (_KEY - len(digest) - 3) + b"\x00" + digest, "big")


def _check_signature(data: bytes) -> None:
    modulus = int.from_bytes(data[_MODULUS : _MODULUS + _KEY], "little")
    signature = int.from_bytes(data[_SIGNATURE : _SIGNATURE + _KEY], "little")
    (exponent,) = struct.unpack_from("<I", data, _EXPONENT)
    good = exponent == 3 and modulus.bit_length() == 8 * _KEY and modulus % 2 == 1 and signature < modulus
    if not good or pow(signature, 3, modulus) != padded(signed_part(data)):
        raise EnclaveError("The signature of this enclave is not valid: the file was changed, or is damaged.")
