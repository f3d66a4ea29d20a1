"""A chain of SGX certificates under a root of our own, with collateral and quotes: all that `dcap-qvl` looks at."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import struct

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID, ObjectIdentifier

NOW = 1_790_000_000
FMSPC = bytes.fromhex("00a067110000")
QE_SIGNER = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
MEASUREMENT, SIGNER = b"\x11" * 32, b"\x22" * 32
_ARC = "1.2.840.113741.1.13.1"


def der(tag: int, content: bytes) -> bytes:
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    out = bytearray([40 * first + second])
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | (number & 0x7F))
        out += bytes(reversed(digits))
    return der(6, bytes(out))


def entry(name: str, value: bytes) -> bytes:
    return der(0x30, oid(name) + value)


def sgx_extension(svn: int) -> bytes:
    tcb = b"".join(entry(f"{_ARC}.2.{n}", der(2, bytes([svn]))) for n in range(1, 17))
    tcb += entry(f"{_ARC}.2.17", der(2, bytes([svn]))) + entry(f"{_ARC}.2.18", der(4, bytes([svn] * 16)))
    return der(
        0x30,
        entry(f"{_ARC}.1", der(4, bytes(16)))
        + entry(f"{_ARC}.2", der(0x30, tcb))
        + entry(f"{_ARC}.3", der(4, bytes(2)))
        + entry(f"{_ARC}.4", der(4, FMSPC))
        + entry(f"{_ARC}.5", der(10, b"\0")),
    )


def moment(offset: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(NOW + offset, datetime.UTC)


def stamp(offset: int) -> str:
    return moment(offset).strftime("%Y-%m-%dT%H:%M:%SZ")


YEAR = 365 * 86400


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def raw_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def report(measurement=bytes(32), signer=bytes(32), data=bytes(64), flags=0x5, product=0, version=0) -> bytes:
    out = bytearray(384)
    struct.pack_into("<QQ", out, 48, flags, 0xE7)
    out[64:96], out[128:160], out[320:384] = measurement, signer, data
    struct.pack_into("<HH", out, 256, product, version)
    return bytes(out)


class Authority:
    """A root, an issuer of PCK certificates, a signer of TCB information, one platform."""

    def __init__(self, svn: int = 5) -> None:
        self.keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "ca", "tcb", "pck", "att")}
        self.serials = {"root": 1, "ca": 2, "tcb": 3, "pck": 4}
        self.root = self.certificate("root", "root", 1)
        self.ca = self.certificate("ca", "root", 0)
        self.tcb = self.certificate("tcb", "root", None)
        self.pck = self.certificate("pck", "ca", None, sgx_extension(svn))

    def name(self, who: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {who}")])

    def certificate(self, who, issuer, depth, extension: bytes | None = None) -> x509.Certificate:
        public, signer = self.keys[who].public_key(), self.keys[issuer]
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name(who))
            .issuer_name(self.name(issuer))
            .public_key(public)
            .serial_number(self.serials[who])
            .not_valid_before(moment(-YEAR))
            .not_valid_after(moment(YEAR))
            .add_extension(x509.BasicConstraints(depth is not None, depth), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=depth is None,
                    key_cert_sign=depth is not None,
                    crl_sign=depth is not None,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if extension is not None:
            other = x509.UnrecognizedExtension(ObjectIdentifier(_ARC), extension)
            builder = builder.add_extension(other, critical=False)
        return builder.sign(signer, hashes.SHA256())

    def crl(self, issuer: str, revoked: tuple[int, ...] = ()) -> str:
        key = self.keys[issuer]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name(issuer))
            .last_update(moment(-86400))
            .next_update(moment(30 * 86400))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        for serial in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(-3600)).build()
            builder = builder.add_revoked_certificate(one)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER).hex()

    def pem(self, *certificates: x509.Certificate) -> str:
        return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)

    def collateral(self, status="UpToDate", advisories=(), revoked=(), expired=False) -> bytes:
        dates = {"issueDate": stamp(-86400), "nextUpdate": stamp(-60 if expired else 30 * 86400)}

        def level(svn: int, word: str) -> dict:
            components = [{"svn": svn}] * 16
            return {
                "tcb": {"sgxtcbcomponents": components, "pcesvn": svn},
                "tcbDate": stamp(-YEAR),
                "tcbStatus": word,
                "advisoryIDs": list(advisories),
            }

        tcb = json.dumps(
            {"id": "SGX", "version": 3, **dates, "fmspc": FMSPC.hex(), "pceId": "0000", "tcbType": 0}
            | {"tcbEvaluationDataNumber": 17, "tcbLevels": [level(5, status), level(1, "OutOfDate")]}
        )
        qe = json.dumps(
            {"id": "QE", "version": 2, **dates, "tcbEvaluationDataNumber": 17}
            | {"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11" + "00" * 15}
            | {"attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8, "mrsigner": QE_SIGNER.hex(), "isvprodid": 1}
            | {"tcbLevels": [{"tcb": {"isvsvn": 8}, "tcbDate": stamp(-YEAR), "tcbStatus": "UpToDate"}]}
        )
        chain = self.pem(self.tcb, self.root)
        found = {
            "pck_crl_issuer_chain": self.pem(self.ca, self.root),
            "root_ca_crl": self.crl("root"),
            "pck_crl": self.crl("ca", tuple(revoked)),
            "tcb_info_issuer_chain": chain,
            "tcb_info": tcb,
            "tcb_info_signature": raw_signature(self.keys["tcb"], tcb.encode()).hex(),
            "qe_identity_issuer_chain": chain,
            "qe_identity": qe,
            "qe_identity_signature": raw_signature(self.keys["tcb"], qe.encode()).hex(),
        }
        return json.dumps(found).encode()

    def quote(self, data: bytes, **of: object) -> bytes:
        """Return a signed quote; `of` are the fields of the report."""
        of = {"measurement": MEASUREMENT, "signer": SIGNER, "product": 1, "version": 3} | of
        header = struct.pack("<HHIHH", 3, 2, 0, 10, 15) + VENDOR + bytes(20)
        signed = header + report(data=data, **of)
        auth = bytes(32)
        bound = hashlib.sha256(raw_key(self.keys["att"]) + auth).digest().ljust(64, b"\0")
        qe = report(signer=QE_SIGNER, data=bound, flags=0x11, product=1, version=8)
        chain = self.pem(self.pck, self.ca, self.root).encode()
        tail = raw_signature(self.keys["att"], signed) + raw_key(self.keys["att"]) + qe
        tail += raw_signature(self.keys["pck"], qe) + struct.pack("<H", len(auth)) + auth
        tail += struct.pack("<HI", 5, len(chain)) + chain
        return signed + struct.pack("<I", len(tail)) + tail

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.DER)


@functools.cache
def authority() -> Authority:
    """Return the one authority of the tests: its keys take a while."""
    return Authority()
