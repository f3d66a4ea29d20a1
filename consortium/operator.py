"""The operator's folder: make it, invite silos, admit them, renew certificates, revoke.

Every change is one line in the index (:mod:`quire.consortium.index`), checked before it is written; everything else in
the folder follows from the index, and :mod:`quire.consortium.settling` makes it. So a command that was killed is mended
by the next one: whoever opens the folder settles it first.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quire.clients.identity import PrivateIdentity, files, load_identity
from quire.clients.identity.errors import sentences
from quire.consortium import documents
from quire.consortium.about import OperatorAbout, read_operator_about
from quire.consortium.attested import check_attested
from quire.consortium.authority import Authority
from quire.consortium.certificates import DAY, key_id, key_of_csr, new_key
from quire.consortium.documents import INVITATION, Document, text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.fingerprints import compare
from quire.consortium.index import ADMITTED, ATTESTED, RENEWED, REVOKED, SERVER, SUPERSEDED, State, append, read_index
from quire.consortium.layout import OperatorFolder, check_name
from quire.consortium.places import locked, private_folder, put, read_key, write_key
from quire.consortium.requests import examine
from quire.consortium.settling import Settler
from quire.consortium.vault import open_authority
from quire.privacy.identity.attested import Aggregator

#: How long a member stays in the roster without its certificate being renewed.
MEMBER_DAYS = 730
_EXTENDED_BELOW = 365  # days: from then on a renewal also extends the place in the roster


@dataclass
class Operator:
    """The operator's folder, opened: locked against other commands, keys in hand, settled.

    Attributes
    ----------
    folder : OperatorFolder
    about : OperatorAbout
    authority : Authority
    admin : PrivateIdentity
    state : State
        What the index says.
    """

    folder: OperatorFolder
    about: OperatorAbout
    authority: Authority
    admin: PrivateIdentity = field(repr=False)
    state: State

    def settle(self, now: int) -> list[str]:
        """Make everything that follows from the index; return what was missing, in words."""
        return Settler(self.folder, self.about, self.authority, self.admin, self.state).settle(now)

    def invite(self, name: str, again: bool, now: int) -> Document:
        """Make an invitation for a silo, good once and for thirty days.

        Raises
        ------
        ConsortiumError
            If there is such a member, or such an invitation and it is not to be replaced.
        """
        check_name(name, "The name of a silo")
        if name in self.state.members:
            raise ConsortiumError(f"{name} is a member already: revoke it first, or renew its certificate.")
        place = self.folder.invitation(name)
        if place.exists() and not again:
            raise ConsortiumError(f"{name} was invited already: send {place} once more, or replace it with --again.")
        body = {
            "consortium": self.about.name,
            "created": now,
            "name": name,
            "nonce": secrets.token_hex(documents.NONCE_SIZE),
            "authority": text_of(self.authority.certificate.public_bytes(Encoding.DER)),
            "admin": self.admin.public.encode().hex(),
            "server": self.about.server.host,
            "port": self.about.server.port,
        }
        made = documents.sign(INVITATION, body, self.admin)
        files.replace(place, made.encode())
        return made

    def admit(
        self, request: Document, fingerprint: str, days: int, now: int, attested: Aggregator | None = None
    ) -> Path:
        """Admit a silo: certify its TLS key, put it into the roster, write what it gets back.

        Parameters
        ----------
        request : Document
            What the silo sent.
        fingerprint : str
            What the silo's people read out, on another channel than the request came by.
        days : int
            How long the certificate is good for.
        now : int
            Seconds since 1970 UTC.
        attested : Aggregator or None
            Keys and enclave of the silo, as `quire enclave record` wrote them; needed where the charter demands it.

        Returns
        -------
        pathlib.Path
            The admission, for the silo.

        Raises
        ------
        ConsortiumError
            If anything about the request is not as it should be; then nothing was issued.
        IdentityFileError
            If it was not signed with the identity in it.
        """
        name, identity = request.body["name"], request.identity("identity")
        compare(fingerprint, identity.fingerprint, name)
        key = examine(request, self.about, self.state, self.folder, now)
        if key is None:
            return self._filed(request)
        enclave = check_attested(self.folder, name, identity, attested, now)
        certificate = self.authority.client(name, key, now, days)
        self._append(
            ADMITTED,
            now,
            certificate,
            name=name,
            identity=identity.encode().hex(),
            node=request.body["node"],
            nonce=request.body["nonce"],
            request=request.digest,
            until=now + MEMBER_DAYS * DAY,
            **({} if enclave is None else {"attested": enclave.to_json()}),
        )
        return self._filed(request)

    def attest(self, name: str, attested: Aggregator, now: int) -> None:
        """Record the enclave of a member, verified for the first time or again: a new version of the roster says so.

        Raises
        ------
        ConsortiumError
            If there is no such member, it has other keys, or the charter does not let the enclave in.
        """
        if name not in self.state.members:
            raise ConsortiumError(f"{self.about.name} has no member {name!r}: `quire consortium status` lists them.")
        check_attested(self.folder, name, self.state.members[name].identity, attested, now)
        self._append(ATTESTED, now, name=name, attested=attested.attested.to_json())

    def renew(self, request: Document, days: int, now: int) -> Path:
        """Certify a member's TLS key anew, the one it has or a fresh one, on the word of its identity.

        Raises
        ------
        ConsortiumError
            If it is no member's, or was answered before.
        IdentityFileError
            If the member did not sign it.
        """
        name = request.body["name"]
        known = self.state.members.get(name)
        if request.body["consortium"] != self.about.name or known is None:
            raise ConsortiumError(f"{name} is no member of {self.about.name}.")
        with sentences(f"The request of {name}"):
            documents.check_signature(request, known.identity)
        if known.request == request.digest:
            return self.folder.admission(name)
        if int(request.body["previous"], 16) != known.certificate.serial_number:
            raise ConsortiumError(
                f"This request follows another certificate of {name} than its newest: it was answered before, or the "
                "silo has not joined with its newest admission yet."
            )
        key = key_of_csr(request.blob("csr"))
        if key != known.certificate.public_key() and key_id(key) in self.state.keys:
            raise ConsortiumError(f"{name} asks for a key that was certified before: make a fresh one.")
        until = known.until if known.until - now > _EXTENDED_BELOW * DAY else now + MEMBER_DAYS * DAY
        certificate = self.authority.client(name, key, now, days)
        self._append(RENEWED, now, certificate, name=name, request=request.digest, until=until)
        return self.folder.admission(name)

    def renew_server(self, fresh: bool, days: int, now: int) -> None:
        """Certify the server anew; with a fresh key, the certificates of the old one are refused from now on."""
        key = new_key() if fresh else read_key(self.folder.server_key)
        if fresh:
            self.folder.next_server_key.unlink(missing_ok=True)
            write_key(self.folder.next_server_key, key)
        self._append(SERVER, now, self.authority.for_server(self.about.server, key.public_key(), now, days))

    def revoke(self, name: str, superseded: bool, now: int) -> None:
        """Refuse a member's certificates: all, and its place in the roster is gone; or all but its newest.

        Raises
        ------
        ConsortiumError
            If there is no such member.
        """
        if name in self.state.left and not superseded:
            return  # by a command that was cut short, or called twice: what follows is there by now
        if name not in self.state.members:
            raise ConsortiumError(f"{self.about.name} has no member {name!r}: `quire consortium status` lists them.")
        self._append(SUPERSEDED if superseded else REVOKED, now, name=name)

    def _filed(self, request: Document) -> Path:
        """Keep the request that a member was admitted by, for people to look up; return its admission."""
        name = request.body["name"]
        put(self.folder.request(name), request.encode())
        return self.folder.admission(name)

    def _append(self, kind: str, now: int, certificate: x509.Certificate | None = None, **more: Any) -> None:
        """Commit to a change and make what follows from it."""
        event: dict[str, Any] = {"event": kind, "at": now} | more
        if certificate is not None:
            event["certificate"] = text_of(certificate.public_bytes(Encoding.DER))
        with sentences(self.folder.issued):
            after = self.state.after(event)
        append(self.folder.issued, event)
        self.state = after
        self.settle(now)


@contextmanager
def opened(root: Path, words: str | None, now: int) -> Iterator[Operator]:
    """Open the operator's folder for changes: locked, settled.

    Raises
    ------
    ConsortiumError
        If it is none, or another command is changing it.
    IdentityFileError
        If a file cannot be read, or the passphrase does not open a key.
    """
    folder = OperatorFolder(root)
    about = read_operator_about(folder)
    private_folder(root)
    with locked(folder.lock):
        admin = load_identity(folder.admin_key, words)
        if admin.public.fingerprint != about.admin:
            raise ConsortiumError(f"{folder.admin_key} is not the key that {folder.about} names: put its backup there.")
        authority = open_authority(folder, about.name, words)
        operator = Operator(folder, about, authority, admin, read_index(folder.issued))
        operator.settle(now)
        yield operator
