"""What a silo installs: an admission, first or renewed, or a bulletin, signed with the operator's admin key.

Everything is checked before anything is written, and every step of writing can be done again: a command that was killed
is called once more.
"""

from __future__ import annotations

import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from quire.clients.identity import read_key_file
from quire.clients.identity.errors import sentences
from quire.consortium import documents
from quire.consortium.about import SiloAbout, encode_silo, read_silo_about
from quire.consortium.certificates import check_client, crl_number, day, ends, load_certificate, load_crl
from quire.consortium.documents import ADMISSION, BULLETIN, Document
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import SiloFolder
from quire.consortium.pinning import Pinned, check_place, install, take_rosters
from quire.consortium.places import locked, move, put, read_key, read_next_key
from quire.consortium.settling import read_crl
from quire.consortium.silo import authority_of, certificate_of
from quire.consortium.starting import readme


def join(root: Path, path: Path, now: int | None = None) -> list[str]:
    """Install what the operator sent: an admission, first or renewed, or a bulletin; nothing if anything is amiss.

    Parameters
    ----------
    root : pathlib.Path
        The silo's folder.
    path : pathlib.Path
        What came.
    now : int or None
        Seconds since 1970 UTC; None for the clock's.

    Returns
    -------
    list of str
        What changed, in words.

    Raises
    ------
    ConsortiumError
        If it is for another silo, another authority's, older than what is here, or anything in it is not good.
    IdentityFileError
        If it cannot be read, or was not signed by the operator's admin key.
    """
    now = int(time.time()) if now is None else now
    folder = SiloFolder(root)
    read_silo_about(folder)
    came = documents.read(path, ADMISSION, BULLETIN)
    with locked(folder.lock), sentences(path):
        about = read_silo_about(folder)
        documents.check_signature(came, about.admin)
        if came.body["consortium"] != about.name or came.body.get("name", about.member) != about.member:
            raise ConsortiumError(f"{path} is for another silo or consortium than {about.member} in {about.name}.")
        if came.kind == BULLETIN and about.joined is None:
            raise ConsortiumError(f"{about.member} has not joined yet: its admission comes before any bulletin.")
        authority = authority_of(folder)
        crl = _newer_crl(folder, came, authority)
        pinned = take_rosters(folder, about, came.rosters(), came.kind == ADMISSION)
        outside = check_place(about, pinned.now, read_key_file(folder.identity_key).fingerprint)
        certificate = None
        if came.kind == ADMISSION:
            if outside is not None:
                raise ConsortiumError(outside)
            certificate = _certificate(folder, about, came, authority, crl, now)
        # Nothing was written up to here; from here on every step can be done again.
        done = _install(folder, about, came, crl, pinned, certificate, now)
    return [*done, *([outside] if outside else [])]


def _newer_crl(folder: SiloFolder, came: Document, authority: x509.Certificate) -> x509.CertificateRevocationList:
    """Return the newer list of revoked certificates: that which came, or that which is here.

    A certificate may come after a bulletin that is younger; a bulletin with an older list is an old bulletin. No list
    ever forgets what an older one has, and there is one list to a number.

    Raises
    ------
    ConsortiumError
        If the list is an older bulletin's, or not one with the list here: the operator's folder went back in time.
    """
    crl = load_crl(came.blob("crl"), authority)
    there = read_crl(folder.crl)
    if there is None:
        return crl
    older, newer = sorted((there, crl), key=crl_number)
    before, after = ({one.serial_number for one in listed} for listed in (older, newer))
    if not before <= after or (crl_number(older) == crl_number(newer) and before != after):
        raise ConsortiumError(
            "The list of revoked certificates in it contradicts the one here: the operator's folder is an old copy, "
            "and its newest backup has to be put in its place."
        )
    if newer is crl:
        return crl
    if came.kind == BULLETIN:
        raise ConsortiumError("The list of revoked certificates in it is older than the one here: ask for a newer.")
    return there


def _certificate(
    folder: SiloFolder,
    about: SiloAbout,
    came: Document,
    authority: x509.Certificate,
    crl: x509.CertificateRevocationList,
    now: int,
) -> x509.Certificate:
    """Return the certificate in an admission if it is this silo's: its authority, its name, its key, good now."""
    if load_certificate(came.blob("authority"), "The authority's certificate in it") != authority:
        raise ConsortiumError("It names another authority than the invitation did.")
    found = load_certificate(came.blob("certificate"), "The certificate in it")
    check_client(found, authority, now)
    names = [one.value for one in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [about.member]:
        raise ConsortiumError(f"The certificate in it is not {about.member}'s.")
    if crl.get_revoked_certificate_by_serial_number(found.serial_number) is not None:
        raise ConsortiumError("The certificate in it was revoked.")
    waiting = read_next_key(folder.next_client_key)
    if found.public_key() not in [
        key.public_key() for key in (read_key(folder.client_key), waiting) if key is not None
    ]:
        raise ConsortiumError("The certificate in it is for another key than this silo's.")
    if folder.client_certificate.exists():
        there = certificate_of(folder)
        if found.not_valid_before_utc < there.not_valid_before_utc:
            raise ConsortiumError("The certificate in it is older than the one that is here.")
    return found


def _install(
    folder: SiloFolder,
    about: SiloAbout,
    came: Document,
    crl: x509.CertificateRevocationList,
    pinned: Pinned,
    certificate: x509.Certificate | None,
    now: int,
) -> list[str]:
    done = list(pinned.words)
    put(folder.crl, crl.public_bytes(Encoding.PEM))
    install(folder, pinned)
    if certificate is not None:
        if read_key(folder.client_key).public_key() != certificate.public_key():
            move(folder.next_client_key, folder.client_key)
            done.append("the fresh TLS key is in use")
        put(folder.client_certificate, certificate.public_bytes(Encoding.PEM))
        done.append(f"the certificate is good to {day(ends(certificate))}")
        joined = now if about.joined is None else about.joined
        about = SiloAbout(about.name, about.member, came.server, about.admin, joined)
        put(folder.about, encode_silo(about))
        put(folder.readme, readme(about, folder.root))
    return done
