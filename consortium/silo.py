"""A silo's folder: keys that never leave it, a request, and what comes back from the operator.

Whom the silo believes is decided once, when its people compare the fingerprint of the operator's admin key. From then
on everything that the operator sends has to be signed with that key, and every roster has to follow the pinned one.
"""

from __future__ import annotations

import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from quire.clients.identity import PrivateIdentity, files, load_identity, new_identity, passphrase
from quire.clients.identity.errors import sentences
from quire.consortium import documents
from quire.consortium.about import SiloAbout, encode_silo, read_silo_about
from quire.consortium.certificates import (
    load_certificate,
    make_csr,
    new_key,
)
from quire.consortium.documents import INVITATION, RENEWAL, REQUEST, Document, text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.fingerprints import compare
from quire.consortium.layout import SiloFolder
from quire.consortium.places import locked, node_text, private_folder, put, read_key, read_next_key, whole, write_key
from quire.consortium.starting import readme, silo_file

_MAX_PEM = 16 * 2**20


def read_invitation(path: Path) -> Document:
    """Read an invitation and check it: signed by the admin key in it, for an authority that can be one.

    Raises
    ------
    ConsortiumError, IdentityFileError
        If it is none, or was changed. Whether the admin key is the operator's, people find out.
    """
    invitation = documents.read(path, INVITATION)
    with sentences(path):
        documents.check_signature(invitation, invitation.identity("admin"))
    load_certificate(invitation.blob("authority"), f"The authority's certificate in {path}")
    return invitation


def request(
    root: Path,
    invitation: Document,
    fingerprint: str,
    words: str | None = None,
    post_quantum: bool = False,
    records: int | None = None,
    now: int | None = None,
    cost: int = passphrase.COST,
) -> Document:
    """Make a silo's keys, where there are none yet, and the request to be admitted.

    Called again, it goes on where it was killed, or writes the request anew; keys that exist are kept.

    Parameters
    ----------
    root : pathlib.Path
        The silo's folder; made if it is missing.
    invitation : Document
        As :func:`read_invitation` returned it.
    fingerprint : str
        Of the operator's admin key, as it was read out on another channel than the invitation came by.
    words : str or None
        Passphrase for the silo's identity; None for none.
    post_quantum : bool
        Whether the identity has an ML-DSA-65 key too.
    records : int or None
        How many records the silo declares, for the policy in the `silo.yaml` that is begun for it.
    now : int or None
        Seconds since 1970 UTC; None for the clock's.
    cost : int
        scrypt's N is two to the power of this.

    Returns
    -------
    Document
        The request, which is also in the folder.

    Raises
    ------
    ConsortiumError
        If the folder is another silo's, or cannot be made.
    IdentityFileError
        If a key cannot be made or read.
    """
    now = int(time.time()) if now is None else now
    folder, body = SiloFolder(root), invitation.body
    admin, name = invitation.identity("admin"), body["name"]
    compare(fingerprint, admin.fingerprint, f"the operator of {body['consortium']}")
    private_folder(root)
    with locked(folder.lock):
        if folder.about.exists():
            about = read_silo_about(folder)
            if (about.name, about.member, about.admin) != (body["consortium"], name, admin):
                raise ConsortiumError(f"{root} is the folder of {about.member} in {about.name}: take a new folder.")
            if about.joined is not None:
                raise ConsortiumError(f"{name} has joined already: `quire consortium renew {root}` goes on.")
        whole(folder.identity, lambda place: _make_identity(place, name, post_quantum, words, cost))
        whole(folder.tls, lambda place: _make_tls(place, invitation))
        if authority_of(folder) != load_certificate(invitation.blob("authority"), "The authority's certificate"):
            raise ConsortiumError(f"{root} was begun for another authority of {body['consortium']}: take a new folder.")
        whole(folder.node, lambda place: _make_node(place, name))
        for place in (folder.roster, folder.run):
            private_folder(place)
        if not folder.silo_file.exists():
            put(folder.silo_file, silo_file(name, records, folder.silo_file))
        put(folder.about, encode_silo(SiloAbout(body["consortium"], name, invitation.server, admin, None)))
        identity = load_identity(folder.identity_key, words)
        sent = _request(folder, invitation, identity, now)
        put(folder.request, sent.encode())
        put(folder.readme, readme(read_silo_about(folder), root))
    return sent


def renew(root: Path, fresh: bool = False, words: str | None = None, now: int | None = None) -> Document:
    """Ask for a new certificate, for the present TLS key or a fresh one; the identity signs.

    A fresh key that waits for its certificate is asked for again: the operator may have certified it by now.

    Raises
    ------
    ConsortiumError
        If the silo has not joined yet.
    IdentityFileError
        If a key cannot be read.
    """
    now = int(time.time()) if now is None else now
    folder = SiloFolder(root)
    about = read_silo_about(folder)
    if about.joined is None:
        raise ConsortiumError(f"{about.member} has not joined yet: there is no certificate to renew.")
    identity = load_identity(folder.identity_key, words)
    with locked(folder.lock):
        if fresh and read_next_key(folder.next_client_key) is None:
            folder.next_client_key.unlink(missing_ok=True)
            write_key(folder.next_client_key, new_key())
        key = read_key(folder.next_client_key if fresh else folder.client_key)
        body = {
            "consortium": about.name,
            "created": now,
            "name": about.member,
            "previous": f"{certificate_of(folder).serial_number:x}",
            "csr": text_of(make_csr(about.member, key)),
        }
        made = documents.sign(RENEWAL, body, identity)
        put(folder.request, made.encode())
    return made


def certificate_of(folder: SiloFolder) -> x509.Certificate:
    """Read the silo's certificate.

    Raises
    ------
    ConsortiumError
        If it is none.
    IdentityFileError
        If it cannot be read.
    """
    return _pem(folder.client_certificate)


def authority_of(folder: SiloFolder) -> x509.Certificate:
    """Read the certificate of the consortium's authority, as the invitation had it.

    Raises
    ------
    ConsortiumError
        If it is none.
    IdentityFileError
        If it cannot be read.
    """
    return _pem(folder.ca_certificate)


def _make_identity(place: Path, name: str, post_quantum: bool, words: str | None, cost: int) -> None:
    new_identity(place / "silo.key", name, post_quantum, words, cost)


def _make_tls(place: Path, invitation: Document) -> None:
    authority = load_certificate(invitation.blob("authority"), "The authority's certificate")
    write_key(place / "client.key", new_key())
    files.create(place / "ca.pem", authority.public_bytes(Encoding.PEM), files.EVERYBODY)


def _make_node(place: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    write_key(place / "node.key", key, PrivateFormat.OpenSSH)
    files.create(place / "node.pub", f"{node_text(key.public_key())} {name}\n".encode(), files.EVERYBODY)


def _request(folder: SiloFolder, invitation: Document, identity: PrivateIdentity, now: int) -> Document:
    name = invitation.body["name"]
    node = files.read(folder.node_public_key, documents.SMALL).decode("ascii", "replace").split()
    body = {
        "consortium": invitation.body["consortium"],
        "created": now,
        "name": name,
        "nonce": invitation.body["nonce"],
        "csr": text_of(make_csr(name, read_key(folder.client_key))),
        "identity": identity.public.encode().hex(),
        "node": " ".join(node[:2]),
    }
    return documents.sign(REQUEST, body, identity)


def _pem(path: Path) -> x509.Certificate:
    data = files.read(path, _MAX_PEM)
    try:
        der = x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError:
        raise ConsortiumError(f"{path} is not a certificate in PEM.") from None
    return load_certificate(der, str(path))
