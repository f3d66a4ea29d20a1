"""A certificate for the hops within one machine: Flower's node authentication and its secrets go over TLS only.

Made anew at every start; its key never leaves the ``run`` folder, and nobody but the services there trusts it.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: The address of every service but the proxy's fleet port, and the name in the certificate for it.
LOOPBACK, LOOPBACK_NAME = "127.0.0.1", "localhost"
# A supervisor may stay up for long, and the services read the certificate only when they start.
_DAYS = 5 * 366


@dataclass(frozen=True)
class Loopback:
    """Where the certificate is.

    Attributes
    ----------
    certificate, key : pathlib.Path
        PEM, apart.
    both : pathlib.Path
        PEM, as HAProxy wants it.
    """

    certificate: Path
    key: Path
    both: Path

    @classmethod
    def within(cls, folder: Path) -> Loopback:
        """Return where it is in a folder, whether it was made or not."""
        return cls(folder / "loopback.pem", folder / "loopback.key", folder / "loopback-both.pem")


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only this user can read, in the place of an old one, and return its path."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    return path


def make_secret(path: Path) -> Path:
    """Write a fresh secret between a SuperLink or SuperNode and its SuperExec, and return its path."""
    return write_private(path, secrets.token_hex(32).encode())


def make_loopback(folder: Path) -> Loopback:
    """Make a key and a self-signed certificate for 127.0.0.1 and localhost.

    Parameters
    ----------
    folder : pathlib.Path
        Only this user's.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Quire, on this machine only")])
    now = datetime.now(UTC)
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    names = [x509.DNSName(LOOPBACK_NAME), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(public, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(public), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = Loopback.within(folder)
    write_private(made.certificate, certificate)
    write_private(made.key, secret)
    write_private(made.both, certificate + secret)
    return made
