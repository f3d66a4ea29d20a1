"""What follows from the index, made where it is missing or old: everything that a killed command left undone.

The order matters only in that a list of revoked certificates comes before anything that grants something.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quire.clients.identity import IdentityFileError, PrivateIdentity, Roster, SignedRoster, files
from quire.clients.identity.errors import sentences
from quire.clients.identity.rosters import Change, check_roster, first_roster, next_roster, read_roster, sign_roster
from quire.consortium import documents
from quire.consortium.about import OperatorAbout
from quire.consortium.authority import Authority
from quire.consortium.certificates import crl_number
from quire.consortium.documents import ADMISSION, BULLETIN, INVITATION, MOST_ROSTERS, ROSTER_BYTES, Document, text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.index import Membership, State
from quire.consortium.layout import OperatorFolder
from quire.consortium.places import move, private_folder, put, read_next_key
from quire.privacy.identity.attested import Aggregator
from quire.privacy.identity.canonical import loads
from quire.privacy.identity.signed import MAX_BYTES

_MAX_CRL = 16 * 2**20


@dataclass
class Settler:
    """Brings the operator's folder to what the index says."""

    folder: OperatorFolder
    about: OperatorAbout
    authority: Authority
    admin: PrivateIdentity = field(repr=False)
    state: State

    def settle(self, now: int) -> list[str]:
        """Make what is missing; return what was, in words.

        Raises
        ------
        ConsortiumError
            If a file cannot be written, the roster cannot follow, or the index is an old copy.
        """
        self._refuse_old_index()
        return [
            *self._list(now),
            *self._server(),
            *self._members(),
            *self._rosters(),
            *self._invitations(),
            *self._documents(now),
        ]

    def _refuse_old_index(self) -> None:
        """Stop if the index is an old copy: what follows from it would revoke whoever came since, without a word."""
        newest, crl = self.newest_roster(), read_crl(self.folder.crl)
        known = set(self.state.keys.values())
        listed = () if newest is None else newest.roster.members
        stranger = next((member.name for member in listed if member.name not in known), None)
        if stranger is not None:
            what = f"{stranger} is in the roster"
        elif crl is not None and crl_number(crl) > self.state.changes:
            what = "the list of revoked certificates is newer"
        elif (unknown := self._not_in_index()) is not None:
            what = f"it does not know the certificate in {unknown}"
        else:
            return
        raise ConsortiumError(
            f"{self.folder.issued} is an old copy, for {what}: put the newest backup in its place first."
        )

    def _not_in_index(self) -> Path | None:
        """Return a certificate that lies in the folder, and so could have left, without a line in the index."""
        known = {one.certificate.serial_number for one in self.state.issued}
        kept = (place for folder in (self.folder.members, self.folder.former) for place in folder.glob("*/client.pem"))
        for path in (self.folder.server_certificate, *sorted(kept)):
            try:
                serial = x509.load_pem_x509_certificate(files.read(path, MAX_BYTES)).serial_number
            except (IdentityFileError, ValueError):
                continue  # missing or damaged: it is made again
            if serial not in known:
                return path
        return None

    def _list(self, now: int) -> list[str]:
        wanted = self.state.revoked
        there = read_crl(self.folder.crl)
        if there is not None and {one.serial_number for one in there} == set(wanted):
            return []
        crl = self.authority.crl(wanted, self.state.changes, now)
        files.replace(self.folder.crl, crl.public_bytes(Encoding.PEM))
        return ["the list of revoked certificates"]

    def _server(self) -> list[str]:
        wanted = self.state.server
        if wanted is None:
            raise ConsortiumError(f"{self.folder.issued} has no certificate of the server: put back its backup.")
        waiting = read_next_key(self.folder.next_server_key)
        if waiting is not None and waiting.public_key() == wanted.public_key():
            move(self.folder.next_server_key, self.folder.server_key)
        self.folder.next_server_key.unlink(missing_ok=True)  # its certificate was never issued
        chain = (wanted, self.authority.certificate)
        data = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
        return _put("the server's certificate", self.folder.server_certificate, data)

    def _members(self) -> list[str]:
        done = []
        for name, member in self.state.members.items():
            private_folder(self.folder.member(name))
            done += _put(f"the node key of {name}", self.folder.node_key(name), f"{member.node} {name}\n".encode())
            data = member.certificate.public_bytes(Encoding.PEM)
            done += _put(f"the certificate of {name}", self.folder.client_certificate(name), data)
        for name, at in self.state.left.items():
            if not (place := self.folder.member(name)).is_dir():
                continue
            if self.folder.client_certificate(name).exists():
                private_folder(self.folder.former)
                move(place, self._former(name, at))
                done.append(f"the folder of {name}, who left")
            else:  # of an admission that was begun and never decided
                shutil.rmtree(place, ignore_errors=True)
        return done

    def _former(self, name: str, at: int) -> Path:
        """Return where the folder of somebody who left goes: nothing is there yet, however often it came and left."""
        wanted = self.folder.former / f"{name}-{at}"
        free = (wanted.with_name(f"{wanted.name}-{number}") for number in itertools.count(2))
        return wanted if not wanted.exists() else next(place for place in free if not place.exists())

    def _rosters(self) -> list[str]:
        done = []
        while (change := self._change(newest := self.newest_roster())) is not None:
            with sentences(self.folder.roster):
                old = None if newest is None else newest.roster
                made = first_roster(self.about.name, change) if old is None else next_roster(old, change)
                signed = sign_roster(SignedRoster(made), self.admin, old)
            place = self.folder.roster_version(made.version)
            check_roster(place, signed, old=newest)
            files.replace(place, signed.encode())
            done.append(f"version {made.version} of the roster")
        return done

    def newest_roster(self) -> SignedRoster | None:
        """Return the newest version of the roster; None before the first admission."""
        there = self.folder.rosters()
        return read_roster(there[-1]) if there else None

    def _change(self, newest: SignedRoster | None) -> Change | None:
        """Return what the roster has to say otherwise, for one member at a time; None if nothing."""
        roster = None if newest is None else newest.roster
        listed = {} if roster is None else {member.name: member for member in roster.members}
        gone = tuple(name for name in listed if name not in self.state.members)
        wrong = [member for name, member in self.state.members.items() if not _agrees(member, roster)]
        if not wrong and (not gone or len(gone) == len(listed)):
            # A roster cannot be without members: the last one stays in it until another comes.
            return None
        admins = {"admin": self.admin.public} if roster is None else {}
        if not wrong:
            return Change(removed_members=gone)
        first = wrong[0]
        members = {first.name: first.identity}
        enclave = {} if first.attested is None else {first.name: Aggregator(first.identity, first.attested)}
        return Change(
            members, admins, removed_members=gone, valid_from=first.since, valid_to=first.until, attested=enclave
        )

    def _invitations(self) -> list[str]:
        for place in self.folder.invitations.glob("*.json"):
            found = read_if_good(place, INVITATION)  # one that is damaged answers no request either
            if found is not None and found.body["nonce"] in self.state.nonces:
                place.unlink()
        return []

    def _documents(self, now: int) -> list[str]:
        newest = self.newest_roster()
        if newest is None:
            return []
        done = []
        for member in self.state.members.values():
            done += self._admission(member, now)
        body: dict[str, Any] = {
            "consortium": self.about.name,
            "created": now,
            "crl": self._crl_text(),
            "rosters": self._last_rosters(),
        }
        there = read_if_good(self.folder.bulletin, BULLETIN)
        if there is None or any(there.body[key] != body[key] for key in ("crl", "rosters")):
            files.replace(self.folder.bulletin, documents.sign(BULLETIN, body, self.admin).encode())
            done.append("the bulletin")
        return done

    def _admission(self, member: Membership, now: int) -> list[str]:
        certificate = text_of(member.certificate.public_bytes(Encoding.DER))
        there = read_if_good(self.folder.admission(member.name), ADMISSION)
        if there is not None and there.body["certificate"] == certificate:
            return []
        body = {
            "consortium": self.about.name,
            "created": now,
            "name": member.name,
            "server": self.about.server.host,
            "port": self.about.server.port,
            "certificate": certificate,
            "authority": text_of(self.authority.certificate.public_bytes(Encoding.DER)),
            "crl": self._crl_text(),
            "rosters": self._last_rosters(1),
        }
        files.replace(self.folder.admission(member.name), documents.sign(ADMISSION, body, self.admin).encode())
        return [f"the admission of {member.name}"]

    def _crl_text(self) -> str:
        crl = read_crl(self.folder.crl)
        return "" if crl is None else text_of(crl.public_bytes(Encoding.DER))

    def _last_rosters(self, most: int = MOST_ROSTERS) -> list[Any]:
        """Return the newest versions, oldest first: as many as fit, and one at least."""
        found: list[Any] = []
        size = 0
        for place in reversed(self.folder.rosters()[-most:]):
            data = files.read(place, MAX_BYTES)
            size += len(data)
            if found and size > ROSTER_BYTES:
                break
            found.insert(0, loads(data, MAX_BYTES))
        return found


def read_crl(path: Path) -> x509.CertificateRevocationList | None:
    """Read a list of revoked certificates (PEM) of this folder's own; None if there is none that can be read."""
    try:
        return x509.load_pem_x509_crl(files.read(path, _MAX_CRL))
    except (IdentityFileError, ValueError):
        return None


def read_if_good(path: Path, kind: str) -> Document | None:
    """Read a document that this folder wrote; None if it is missing or damaged, and has to be written again."""
    try:
        return documents.read(path, kind)
    except (IdentityFileError, ConsortiumError):
        return None


def _agrees(member: Membership, roster: Roster | None) -> bool:
    if roster is None:
        return False
    listed = next((one for one in roster.members if one.name == member.name), None)
    if listed is not None and member.attested not in (None, listed.attested):
        return False
    return listed is not None and (listed.identity, listed.valid_from, listed.valid_to) == (
        member.identity,
        member.since,
        member.until,
    )


def _put(what: str, path: Path, data: bytes) -> list[str]:
    return [what] if put(path, data) else []
