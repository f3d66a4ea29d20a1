"""The index of a consortium: every certificate that was issued and everything that was revoked, in one file.

``ca/issued.jsonl`` has a line of canonical JSON for each event, and is only ever appended to. A line is on the disk
before anything that follows from it leaves the machine, and all that follows from it can be made again: certificates
stand in it whole, so do the members' keys. So it is the one file that decides, and a command that was killed is mended
by the next one. A last line without its line feed was never finished, and counts for nothing.

::

    {"at": seconds, "certificate": base64, "event": "server"}    with another key than before: the old is refused
    {"at": seconds, "certificate": base64, "event": "admitted", "identity": hex, "name": ..., "node": ...,
     "nonce": hex, "request": digest, "until": seconds}
                                                             with an attested enclave also "attested": {...}
    {"at": seconds, "attested": {...}, "event": "attested", "name": ...}     its enclave, verified again
    {"at": seconds, "certificate": base64, "event": "renewed", "name": ..., "request": digest, "until": seconds}
    {"at": seconds, "event": "superseded", "name": ...}      all certificates but the newest are refused
    {"at": seconds, "event": "revoked", "name": ...}         and so is every one, and the member is none any more
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from quire.clients.identity import PublicIdentity, files
from quire.consortium.certificates import key_id, load_certificate
from quire.consortium.errors import ConsortiumError
from quire.privacy.identity.attested import Attested
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding
from quire.privacy.identity.roster import fields, hexadecimal

SERVER, ADMITTED, RENEWED, SUPERSEDED, REVOKED = "server", "admitted", "renewed", "superseded", "revoked"
ATTESTED = "attested"
#: What the server's certificates stand under; no silo can have this name, for it begins with a dash.
SERVER_NAME = "-server"

_MAX_BYTES, _MAX_LINE = 256 * 2**20, 32 * 1024
_COMMON: dict[str, type | None] = {"event": str, "at": int}
_NAMED = _COMMON | {"name": str}
_KEYS: dict[str, dict[str, type | None]] = {
    SERVER: _COMMON | {"certificate": str},
    ADMITTED: _NAMED | {"certificate": str, "identity": str, "node": str, "nonce": str, "request": str, "until": int},
    RENEWED: _NAMED | {"certificate": str, "request": str, "until": int},
    ATTESTED: _NAMED | {"attested": dict},
    SUPERSEDED: _NAMED,
    REVOKED: _NAMED,
}


@dataclass(frozen=True)
class Issued:
    """One certificate that was issued.

    Attributes
    ----------
    name : str
        Whose: a silo, or :data:`SERVER_NAME`.
    certificate : cryptography.x509.Certificate
    revoked : int or None
        When it was revoked, in seconds since 1970 UTC.
    """

    name: str
    certificate: x509.Certificate
    revoked: int | None = None


@dataclass(frozen=True)
class Membership:
    """One member as the index has it.

    Attributes
    ----------
    name : str
    identity : PublicIdentity
        Its keys, for the roster.
    node : str
        Its public key for Flower's node authentication, in OpenSSH's form.
    since, until : int
        From when to when its signatures count in the roster; seconds since 1970 UTC.
    certificate : cryptography.x509.Certificate
        Its newest.
    request : str
        Digest of the document that it was issued for.
    attested : Attested or None
        The enclave in which its identity was made, if the operator verified that.
    """

    name: str
    identity: PublicIdentity
    node: str
    since: int
    until: int
    certificate: x509.Certificate
    request: str
    attested: Attested | None = None


@dataclass(frozen=True)
class State:
    """What the index comes to.

    Attributes
    ----------
    members : dict of str to Membership
        Who is in, in the order of admission.
    issued : tuple of Issued
        Every certificate, in order.
    nonces : frozenset of str
        Invitations that were used.
    keys : dict of str to str
        Every key of a silo that was ever seen, and whose it was: none is ever taken from anybody else, nor again from
        a silo that was revoked.
    events : int
        How many lines it has.
    changes : int
        How many of them revoke something.
    left : dict of str to int
        Who is not in any more, and since when.
    """

    members: dict[str, Membership] = field(default_factory=dict)
    issued: tuple[Issued, ...] = ()
    nonces: frozenset[str] = frozenset()
    keys: dict[str, str] = field(default_factory=dict)
    events: int = 0
    changes: int = 0
    left: dict[str, int] = field(default_factory=dict)

    @property
    def server(self) -> x509.Certificate | None:
        """The server's newest certificate."""
        found = [one.certificate for one in self.issued if one.name == SERVER_NAME]
        return found[-1] if found else None

    @property
    def revoked(self) -> dict[int, int]:
        """Serial number and time of every certificate that is refused."""
        return {one.certificate.serial_number: one.revoked for one in self.issued if one.revoked is not None}

    def after(self, event: dict[str, Any]) -> State:
        """Return the state after one more event.

        Raises
        ------
        BadEncoding
            If the event is none, or cannot follow.
        """
        kind = event.get("event") if isinstance(event, dict) else None
        if kind not in _KEYS:
            raise BadEncoding("it is no event that this version knows.")
        also = {"attested": dict} if kind == ADMITTED and "attested" in event else {}
        fields(event, f"line '{kind}'", _KEYS[kind] | also)
        name = event.get("name", SERVER_NAME)
        state = replace(self, events=self.events + 1)
        if kind in (RENEWED, SUPERSEDED, REVOKED, ATTESTED) and name not in self.members:
            raise BadEncoding(f"{name} is no member at that point.")
        if kind in (SUPERSEDED, REVOKED):
            return state._revoking(name, event["at"], keep=kind == SUPERSEDED)
        attested = Attested.from_json(event["attested"]) if "attested" in event else None
        if kind == ATTESTED:
            return replace(state, members=self.members | {name: replace(self.members[name], attested=attested)})
        certificate = load_certificate(base64.b64decode(event["certificate"]), "a certificate in the index")
        if kind == SERVER:
            state = state._replacing_server(certificate, event["at"])
        state = replace(state, issued=(*state.issued, Issued(name, certificate)))
        if kind == SERVER:
            return state
        if kind == ADMITTED:
            if name in self.members:
                raise BadEncoding(f"{name} is admitted twice.")
            identity = PublicIdentity.decode(hexadecimal(event["identity"], "'identity'"))
            since = event["at"] - event["at"] % 86_400
            member = Membership(
                name, identity, event["node"], since, event["until"], certificate, event["request"], attested
            )
            seen = {identity.fingerprint: name, event["node"]: name}
            state = replace(state, nonces=self.nonces | {event["nonce"]}, keys=self.keys | seen)
        else:
            known = self.members[name]
            member = replace(known, certificate=certificate, request=event["request"], until=event["until"])
        left = {key: at for key, at in self.left.items() if key != name}
        keys = state.keys | {key_id(certificate.public_key()): name}
        return replace(state, members=self.members | {name: member}, left=left, keys=keys)

    def _replacing_server(self, certificate: x509.Certificate, at: int) -> State:
        """Refuse the server's certificates with another key: a fresh key is made because the old one may be known."""
        old = [
            one
            for one in self.issued
            if one.name == SERVER_NAME
            and one.revoked is None
            and one.certificate.public_key() != certificate.public_key()
        ]
        if not old:
            return self
        issued = tuple(replace(one, revoked=at) if one in old else one for one in self.issued)
        return replace(self, issued=issued, changes=self.changes + 1)

    def _revoking(self, name: str, at: int, keep: bool) -> State:
        newest = max((place for place, one in enumerate(self.issued) if one.name == name), default=-1)
        issued = tuple(
            replace(one, revoked=at)
            if one.name == name and one.revoked is None and not (keep and place == newest)
            else one
            for place, one in enumerate(self.issued)
        )
        state = replace(self, issued=issued, changes=self.changes + 1)
        if keep:
            return state
        members = {key: member for key, member in self.members.items() if key != name}
        return replace(state, members=members, left=self.left | {name: at})


def read_index(path: Path) -> State:
    """Read an index; a last line that was never finished is passed over.

    Raises
    ------
    ConsortiumError
        If a line is not what was written.
    IdentityFileError
        If the file cannot be read.
    """
    state = State()
    for number, line in enumerate(_lines(files.read(path, _MAX_BYTES)), start=1):
        try:
            state = state.after(loads(line, _MAX_LINE))
        except (ValueError, ConsortiumError) as error:
            raise ConsortiumError(
                f"{path}, line {number}: {error} Put the last backup of the file in its place."
            ) from error
    return state


def append(path: Path, event: dict[str, Any]) -> None:
    """Append one event, and see it on the disk before returning; only for who holds the folder's lock.

    Raises
    ------
    ConsortiumError
        If it cannot be written.
    """
    line = dumps(event)
    try:
        with open(path, "r+b") as file:
            data = file.read()
            # What a killed command left of a line is cut off: a line is whole, or it never was.
            end = data.rfind(b"\n") + 1
            file.truncate(end)
            file.seek(end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConsortiumError(f"{path} cannot be written: {error.strerror}.") from error


def _lines(data: bytes) -> Iterator[bytes]:
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield line
