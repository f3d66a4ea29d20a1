"""The authority's key in a file: encrypted with the passphrase that also opens the admin's keys, if there is one."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from quire.clients.identity import IdentityFileError, PassphraseNeeded, files, passphrase
from quire.clients.identity.errors import sentences
from quire.consortium.authority import Authority
from quire.consortium.certificates import load_certificate
from quire.consortium.documents import blob, text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import OperatorFolder
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding
from quire.privacy.identity.roster import fields

FORMAT = "quire-authority-key-1"
_PLAIN, _ENCRYPTED = "none", "scrypt+AES-256-GCM"
_MAX_BYTES = 16 * 1024


def write_authority(folder: OperatorFolder, authority: Authority, words: str | None, cost: int) -> None:
    """Write an authority's certificate, and its key for its owner alone.

    Raises
    ------
    IdentityFileError
        If they cannot be written, or exist.
    """
    secret = authority.encode_secret()
    if words is not None:
        secret = passphrase.encrypt(words, secret, _about(authority.certificate), cost)
    found = {"format": FORMAT, "key": text_of(secret), "protection": _PLAIN if words is None else _ENCRYPTED}
    files.create(folder.ca_key, dumps(found), files.OWNER_ONLY)
    files.create(folder.ca_certificate, authority.certificate.public_bytes(Encoding.PEM), files.EVERYBODY)


def read_certificate(folder: OperatorFolder) -> x509.Certificate:
    """Read the authority's certificate.

    Raises
    ------
    ConsortiumError
        If it is none.
    IdentityFileError
        If it cannot be read.
    """
    data = files.read(folder.ca_certificate, _MAX_BYTES)
    try:
        der = x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError:
        raise ConsortiumError(f"{folder.ca_certificate} is not a certificate in PEM.") from None
    return load_certificate(der, str(folder.ca_certificate))


def open_authority(folder: OperatorFolder, consortium: str, words: str | None) -> Authority:
    """Read an authority with its key.

    Raises
    ------
    PassphraseNeeded
        If it is encrypted, and no passphrase was given.
    IdentityFileError
        If a file cannot be read, others can read the key, or the passphrase is wrong.
    ConsortiumError
        If key and certificate do not belong together.
    """
    path = folder.ca_key
    certificate = read_certificate(folder)
    data = files.read(path, _MAX_BYTES, secret=True)
    with sentences(path):
        found = fields(loads(data, _MAX_BYTES), "authority's key", {"format": str, "key": str, "protection": str})
        if found["format"] != FORMAT or found["protection"] not in (_PLAIN, _ENCRYPTED):
            raise BadEncoding("this version of Quire cannot read it.")
        secret: bytes | None = blob(found["key"], "key")
        if found["protection"] == _ENCRYPTED:
            if words is None:
                raise PassphraseNeeded(f"{path} is encrypted: its passphrase is needed.")
            secret = passphrase.decrypt(words, secret or b"", _about(certificate))
            if secret is None:
                raise IdentityFileError(f"The passphrase does not open {path}.")
    try:
        key = load_der_private_key(secret or b"", None)
    except (ValueError, TypeError):
        raise ConsortiumError(f"{path} is damaged: put its backup in its place.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConsortiumError(f"{path} is not the key of {folder.ca_certificate}: put back the backup of both.")
    return Authority(certificate, consortium, key)


def _about(certificate: x509.Certificate) -> bytes:
    return FORMAT.encode() + certificate.public_bytes(Encoding.DER)
