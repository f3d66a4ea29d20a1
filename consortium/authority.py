"""The certificate authority of one consortium: what it signs.

Of a silo's request for a certificate only the public key is used. Subject, extensions, serial and validity are the
authority's own, so that nothing that a request asks for can end up in a certificate. There is one level: no
intermediate authority.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quire.consortium.about import Server
from quire.consortium.certificates import DAY, day, ends, moment
from quire.consortium.errors import ConsortiumError

#: How long a certificate is good for, in days, unless the operator says otherwise.
AUTHORITY_DAYS, SERVER_DAYS, CLIENT_DAYS = 3650, 365, 90
#: A certificate begins so many seconds before it is made: clocks differ.
BACKDATED = 600

_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key in hand; shows no secret.

    Attributes
    ----------
    certificate : cryptography.x509.Certificate
        Its own, self-signed.
    consortium : str
        What it certifies for: the organisation in every subject.
    """

    certificate: x509.Certificate
    consortium: str
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def new(cls, consortium: str, now: int, days: int = AUTHORITY_DAYS) -> Authority:
        """Make an authority: a P-384 key and a certificate that signs certificates of one level, and lists.

        Parameters
        ----------
        consortium : str
            Its name.
        now : int
            Seconds since 1970 UTC.
        days : int
            How long it is good for.
        """
        key = ec.generate_private_key(ec.SECP384R1())
        subject = _subject(consortium, f"{consortium} CA")
        builder = _builder(subject, subject, key.public_key(), now, now + days * DAY)
        usage = _usage(key_cert_sign=True, crl_sign=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        return cls(builder.sign(key, hashes.SHA384()), consortium, key)

    def encode_secret(self) -> bytes:
        """Return its key (DER, PKCS#8), to be written into its file and nowhere else."""
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def client(self, name: str, key: ec.EllipticCurvePublicKey, now: int, days: int) -> x509.Certificate:
        """Certify a silo's TLS key: CN is its name.

        The URI in it, ``quire:CONSORTIUM/NAME``, names silo and consortium together.
        """
        names = [x509.UniformResourceIdentifier(f"quire:{self.consortium}/{name}")]
        return self._leaf(name, key, names, _CLIENT, now, days)

    def for_server(self, server: Server, key: ec.EllipticCurvePublicKey, now: int, days: int) -> x509.Certificate:
        """Certify the server's TLS key for its host name or IP address, and for a server and nothing else."""
        name: x509.GeneralName = x509.DNSName(server.host)
        if server.address is not None:
            name = x509.IPAddress(server.address)
        return self._leaf("server", key, [name], _SERVER, now, days)

    def crl(self, revoked: Mapping[int, int], number: int, now: int) -> x509.CertificateRevocationList:
        """Sign the list of certificates that are refused.

        Its next update is the authority's own end: TLS libraries refuse everybody once that date has passed, and the
        list is fetched from nowhere: the server has the operator's own, a silo the latest that it was sent.

        Parameters
        ----------
        revoked : mapping of int to int
            Serial number to time of revocation.
        number : int
            Higher than that of any list before.
        now : int
            Seconds since 1970 UTC.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(moment(now - BACKDATED))
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._issuer(), critical=False)
        )
        for serial, at in sorted(revoked.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(at)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA384())

    def _leaf(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: int,
        days: int,
    ) -> x509.Certificate:
        end = ends(self.certificate)
        if now + days * DAY > end:
            raise ConsortiumError(
                f"A certificate of {days} days would outlast the authority, which ends on {day(end)}: ask for "
                "fewer, or begin a new consortium."
            )
        builder = _builder(_subject(self.consortium, name), self.certificate.subject, key, now, now + days * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.add_extension(self._issuer(), critical=False).sign(self._key, hashes.SHA384())

    def _issuer(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _subject(consortium: str, name: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, consortium), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: int, end: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now - BACKDATED))
        .not_valid_after(moment(end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
