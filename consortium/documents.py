"""What travels between operator and silo: signed documents, in canonical JSON, over any channel.

===============  ========================  =====================================================================
document         signed by                 says
===============  ========================  =====================================================================
invitation       the operator's admin key  consortium, server, authority, the silo's name, a one-time number
request          the silo's identity key   the number, a PKCS#10 request for its TLS key, its node key, its identity
renewal          the silo's identity key   the serial of its last certificate, a PKCS#10 request
admission        the operator's admin key  the silo's certificate, authority, rosters, list of revoked certificates
bulletin         the operator's admin key  rosters, list of revoked certificates; the same for every member
===============  ========================  =====================================================================

A document is ``{"body": {...}, "signature": hex}``; the signature is over the canonical JSON of the body, under a tag
of the document's kind. Whoever reads one gets exactly these keys, of these types, within these sizes, or one sentence.
A document is secret in nothing: it holds public keys and certificates. What makes an invitation worth anything is that
people compare the fingerprint of the admin key, and what makes a request worth anything that of the silo's.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.clients.identity import PrivateIdentity, PublicIdentity, files
from quire.clients.identity.errors import sentences
from quire.consortium.about import Server
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import check_name
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import verify
from quire.privacy.identity.roster import fields, hexadecimal
from quire.privacy.identity.signed import SignedRoster

INVITATION, REQUEST, RENEWAL, ADMISSION, BULLETIN = "invitation", "request", "renewal", "admission", "bulletin"
#: The most bytes of a document that are read: what a silo or an operator sends first, and what may hold rosters.
SMALL, LARGE = 32 * 1024, 64 * 2**20
#: The most rosters in one document, and the most bytes of them that are put in; a silo further behind asks for files.
MOST_ROSTERS, ROSTER_BYTES = 1024, 8 * 2**20
NONCE_SIZE = 16

_LIMITS = {INVITATION: SMALL, REQUEST: SMALL, RENEWAL: SMALL, ADMISSION: LARGE, BULLETIN: LARGE}
_END = 253_402_300_800  # the first second of the year 10000
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


@dataclass(frozen=True)
class Document:
    """A document whose form is right; who signed it is for :func:`check_signature` to say.

    Attributes
    ----------
    kind : str
        Which of the five it is.
    body : dict
        What it says.
    signature : bytes
    """

    kind: str
    body: dict[str, Any]
    signature: bytes

    @property
    def digest(self) -> str:
        """64 hexadecimal digits over what it says: two files with the same are the same document."""
        return tagged_hash(_tag(self.kind), dumps(self.body)).hex()

    def encode(self) -> bytes:
        """Return the document's one spelling."""
        return dumps({"body": self.body, "signature": self.signature.hex()})

    @property
    def server(self) -> Server:
        """Where the server is, as an invitation or an admission says."""
        return Server(self.body["server"], self.body["port"])

    def blob(self, key: str) -> bytes:
        """Return the bytes that stand under a key in base64."""
        return blob(self.body[key], key)

    def identity(self, key: str) -> PublicIdentity:
        """Return the public keys that stand under a key."""
        return PublicIdentity.decode(hexadecimal(self.body[key], f"'{key}'"))

    def rosters(self) -> tuple[SignedRoster, ...]:
        """Return the rosters in it, oldest first, each the version after the one before it; no signature is checked.

        Raises
        ------
        BadEncoding, RosterError
            If one of them is none.
        """
        found = tuple(SignedRoster.decode(dumps(item)) for item in self.body["rosters"])
        versions = [one.roster.version for one in found]
        if versions != list(range(versions[0], versions[0] + len(versions))):
            raise BadEncoding("The rosters in it are not one version after another.")
        return found


def sign(kind: str, body: dict[str, Any], key: PrivateIdentity) -> Document:
    """Make a document: put its kind into the body, sign it, and see that it can be read."""
    body = {"format": _format(kind)} | body
    return _document(kind, body, key.sign(_tag(kind), dumps(body)))


def check_signature(document: Document, signer: PublicIdentity) -> None:
    """Check who signed a document.

    Raises
    ------
    BadSignature
        If it was somebody else, or what it says was changed.
    """
    verify(signer, _tag(document.kind), (dumps(document.body),), document.signature)


def read(path: Path, *kinds: str) -> Document:
    """Read a document of one of these kinds.

    Raises
    ------
    ConsortiumError
        If it is a document of another kind.
    IdentityFileError
        If it cannot be read, is too large, or is not the one spelling of such a document.
    """
    data = files.read(path, max(_LIMITS[kind] for kind in kinds))
    with sentences(path):
        return parse(data, str(path), *kinds)


def parse(data: bytes, where: str, *kinds: str) -> Document:
    """Read a document of one of these kinds from its bytes.

    Raises
    ------
    BadEncoding
        If it is not the one spelling of such a document.
    ConsortiumError
        If it is a document of another kind, or names something that cannot have that name.
    """
    outer = fields(loads(data, max(_LIMITS[kind] for kind in kinds)), "document", {"body": dict, "signature": str})
    kind = next((kind for kind in _LIMITS if outer["body"].get("format") == _format(kind)), None)
    if kind not in kinds:
        wanted = " or ".join(f"{_article(one)} {one}" for one in kinds)
        found = "a document of another kind or version" if kind is None else f"{_article(kind)} {kind}"
        raise ConsortiumError(f"{where} is {found}, and {wanted} is wanted here.")
    if len(data) > _LIMITS[kind]:
        raise BadEncoding(f"It has {len(data)} bytes, and {_article(kind)} {kind} at most {_LIMITS[kind]}.")
    return _document(kind, outer["body"], hexadecimal(outer["signature"], "'signature'"))


def text_of(data: bytes) -> str:
    """Return bytes as they stand in a document: base64."""
    return base64.b64encode(data).decode()


_COMMON: dict[str, type | None] = {"format": str, "consortium": str, "created": int}
_SERVER: dict[str, type | None] = {"server": str, "port": int}
_KEYS: dict[str, dict[str, type | None]] = {
    INVITATION: _COMMON | _SERVER | {"name": str, "nonce": str, "authority": str, "admin": str},
    REQUEST: _COMMON | {"name": str, "nonce": str, "csr": str, "identity": str, "node": str},
    RENEWAL: _COMMON | {"name": str, "previous": str, "csr": str},
    ADMISSION: _COMMON | _SERVER | {"name": str, "certificate": str, "authority": str, "crl": str, "rosters": list},
    BULLETIN: _COMMON | {"crl": str, "rosters": list},
}
_NODE = re.compile(r"ecdsa-sha2-nistp384 [A-Za-z0-9+/]{1,512}={0,2}")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")


def _document(kind: str, body: dict[str, Any], signature: bytes) -> Document:
    """Hold a body to its kind: keys, types, sizes; names that may become part of a path."""
    fields(body, kind, _KEYS[kind])
    check_name(body["consortium"], "The consortium's name in it")
    if "name" in body:
        check_name(body["name"], "The silo's name in it")
    if not 0 <= body["created"] < _END:
        raise BadEncoding("'created' is no time.")
    if "nonce" in body and len(hexadecimal(body["nonce"], "'nonce'")) != NONCE_SIZE:
        raise BadEncoding(f"'nonce' must be {2 * NONCE_SIZE} hexadecimal digits.")
    if "node" in body and not _NODE.fullmatch(body["node"]):
        raise BadEncoding("'node' must be a public key ecdsa-sha2-nistp384 in OpenSSH's form, without a comment.")
    if "previous" in body and not _SERIAL.fullmatch(body["previous"]):
        raise BadEncoding("'previous' must be a certificate's serial number in hexadecimal digits.")
    if "rosters" in body and not 1 <= len(body["rosters"]) <= MOST_ROSTERS:
        raise BadEncoding(f"'rosters' must be a list of 1 to {MOST_ROSTERS}.")
    document = Document(kind, body, signature)
    for key in ("csr", "certificate", "authority", "crl"):
        if key in body:
            document.blob(key)
    for key in ("identity", "admin"):
        if key in body:
            document.identity(key)
    if "server" in body:
        _ = document.server
    return document


def blob(text: str, key: str) -> bytes:
    """Return bytes that stand somewhere in base64, in their one spelling.

    Raises
    ------
    BadEncoding
        If there are none.
    """
    try:
        found = base64.b64decode(text, validate=True) if _BASE64.fullmatch(text) else b""
    except (binascii.Error, ValueError):
        found = b""
    if not found or text_of(found) != text:
        raise BadEncoding(f"'{key}' must be bytes in base64.")
    return found


def _format(kind: str) -> str:
    return f"quire-{kind}-1"


def _tag(kind: str) -> str:
    return f"quire/{kind}/1"


def _article(kind: str) -> str:
    return "an" if kind[0] in "aeiou" else "a"
