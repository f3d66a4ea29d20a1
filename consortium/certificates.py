"""Certificates, requests for them and lists of revoked ones: what may be certified, and what is good.

Whatever the bytes are, what comes out is a value or one sentence.

References
----------
RFC 5280 (certificates and lists of revoked ones), RFC 2986 (PKCS#10). Chains are checked by the verifier of
`cryptography`, which holds them to the CA/Browser Forum's profile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID

from quire.consortium.about import Server
from quire.consortium.errors import ConsortiumError

DAY = 86_400
#: What may be certified.
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}
# What parsers of foreign certificates, requests and lists raise, whatever the bytes are.
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh key for TLS: P-256, which every proxy and browser takes."""
    return ec.generate_private_key(ec.SECP256R1())


def check_key(key: object, what: str) -> ec.EllipticCurvePublicKey:
    """Return a public key of a kind that may be certified.

    Raises
    ------
    ConsortiumError
        If it is none: only ECDSA over P-256 and P-384 is.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ConsortiumError(f"{what} must be an ECDSA key over {' or '.join(CURVES.values())}.")
    return key


def key_id(key: object) -> str:
    """Return what stands for a public key wherever keys are compared: 64 hexadecimal digits.

    Raises
    ------
    ConsortiumError
        If it is no key that may be certified.
    """
    data = check_key(key, "The key").public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(data).hexdigest()


def make_csr(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a PKCS#10 request (DER) for a key, signed with it; its subject is for people alone."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def key_of_csr(data: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key that a PKCS#10 request (DER) asks a certificate for; nothing else in it is looked at.

    Raises
    ------
    ConsortiumError
        If it is no such request, its key is of another kind, or it was not signed with that key.
    """
    try:
        found = x509.load_der_x509_csr(data)
        key, good = found.public_key(), found.is_signature_valid
    except (*_UNREADABLE, InvalidSignature):
        raise ConsortiumError("The request for a certificate in it cannot be read.") from None
    if not good:
        raise ConsortiumError("The request for a certificate in it was not signed with its own key.")
    return check_key(key, "The key in it")


def load_certificate(data: bytes, what: str) -> x509.Certificate:
    """Read a certificate (DER) that came from elsewhere.

    Raises
    ------
    ConsortiumError
        If it is none.
    """
    try:
        found = x509.load_der_x509_certificate(data)
        check_key(found.public_key(), f"The key of {what}")
    except _UNREADABLE:
        raise ConsortiumError(f"{what} cannot be read.") from None
    return found


def load_crl(data: bytes, authority: x509.Certificate) -> x509.CertificateRevocationList:
    """Read a list of revoked certificates (DER) that came from elsewhere, and check who signed it.

    Raises
    ------
    ConsortiumError
        If it is none, or not this authority's.
    """
    try:
        found = x509.load_der_x509_crl(data)
        key = check_key(authority.public_key(), "The authority's key")
        good = found.issuer == authority.subject and found.is_signature_valid(key)
        crl_number(found)
    except (*_UNREADABLE, x509.ExtensionNotFound):
        raise ConsortiumError("The list of revoked certificates cannot be read.") from None
    if not good:
        raise ConsortiumError("The list of revoked certificates was not signed by the consortium's authority.")
    return found


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """Return a list's number, which goes up with every list."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def check_client(certificate: x509.Certificate, authority: x509.Certificate, now: int) -> None:
    """Check that an authority certified a client, now.

    Raises
    ------
    ConsortiumError
        If it did not: another authority, another purpose, expired, not valid yet.
    """
    builder = verification.PolicyBuilder().store(verification.Store([authority])).time(moment(now))
    _verify(lambda: builder.build_client_verifier().verify(certificate, []), "The certificate")


def check_server(certificate: x509.Certificate, authority: x509.Certificate, server: Server, now: int) -> None:
    """Check that an authority certified a server under its host name or address, now.

    Raises
    ------
    ConsortiumError
        If it did not.
    """
    builder = verification.PolicyBuilder().store(verification.Store([authority])).time(moment(now))
    name = x509.DNSName(server.host) if server.address is None else x509.IPAddress(server.address)
    _verify(lambda: builder.build_server_verifier(name).verify(certificate, []), "The server's certificate")


def moment(seconds: int) -> datetime:
    """Return a time as a date, UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def day(seconds: int) -> str:
    """Return the day of a time, UTC, as in 2026-11-21."""
    return moment(seconds).date().isoformat()


def ends(certificate: x509.Certificate) -> int:
    """Return the last second of a certificate, since 1970 UTC."""
    return int(certificate.not_valid_after_utc.timestamp())


def _verify(check: Callable[[], object], what: str) -> None:
    try:
        check()
    except verification.VerificationError as error:
        # What follows in brackets quotes the certificate, and may be anything.
        reason = str(error).removeprefix("validation failed: ").split(" (")[0].rstrip(".")
        raise ConsortiumError(f"{what} is not good under the consortium's authority: {reason}.") from None
    except _UNREADABLE:
        raise ConsortiumError(f"{what} cannot be read.") from None
