"""Who is in, what each has, and what expires when: of the operator's folder or of a silo's. Opens no secret."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509

from quire.clients.identity import IdentityFileError, SignedRoster, read_key_file, read_roster
from quire.consortium import documents
from quire.consortium.about import is_operator, read_operator_about, read_silo_about
from quire.consortium.certificates import DAY, day, ends, key_id
from quire.consortium.documents import INVITATION
from quire.consortium.errors import ConsortiumError
from quire.consortium.index import Membership, State, read_index
from quire.consortium.layout import OperatorFolder, SiloFolder
from quire.consortium.pinning import check_place, pinned_roster
from quire.consortium.places import read_key
from quire.consortium.requests import INVITATION_DAYS
from quire.consortium.settling import read_crl
from quire.consortium.silo import authority_of, certificate_of
from quire.consortium.vault import read_certificate
from quire.errors import DataError

#: What ends within so many days is warned about; the authority earlier, for nothing can be issued beyond its end.
SOON, AUTHORITY_SOON = 14, 180
GOOD, WAITING, ENDING, EXPIRED, WRONG = "good", "waiting", "ends soon", "EXPIRED", "WRONG"


@dataclass(frozen=True)
class Item:
    """One thing that can end, or be amiss.

    Attributes
    ----------
    what : str
        ``authority``, ``server``, ``member``, ``certificate``, ``roster``, ``invitation``, ``folder``.
    name : str
        Whose it is.
    state : str
        ``good``, ``waiting``, ``ends soon``, ``EXPIRED`` or ``WRONG``.
    until : int or None
        Its last second, since 1970 UTC.
    words : str
        What to do, or what to know.
    fingerprint : str or None
        Of an identity, or of a certificate's key.
    """

    what: str
    name: str
    state: str
    until: int | None = None
    words: str = ""
    fingerprint: str | None = None


@dataclass(frozen=True)
class Standing:
    """The standing of a folder.

    Attributes
    ----------
    folder : str
        ``operator`` or ``silo``.
    consortium, server : str
    version : int or None
        Of the newest roster, or of the pinned one.
    roster : str or None
        Its hash.
    items : tuple of Item
    """

    folder: str
    consortium: str
    server: str
    version: int | None
    roster: str | None
    items: tuple[Item, ...]

    @property
    def failing(self) -> bool:
        """Whether anything has expired or is wrong: then ``quire consortium status`` ends with 1."""
        return any(item.state in (EXPIRED, WRONG) for item in self.items)

    def to_json(self) -> str:
        """Return it as one JSON object."""
        return json.dumps(asdict(self) | {"failing": self.failing}, indent=2)


def standing(root: Path, now: int) -> Standing:
    """Return the standing of an operator's or a silo's folder.

    Raises
    ------
    ConsortiumError
        If it is neither.
    IdentityFileError
        If a file of it cannot be read.
    """
    folder = OperatorFolder(root)
    return _of_operator(folder, now) if is_operator(folder) else _of_silo(SiloFolder(root), now)


def _of_operator(folder: OperatorFolder, now: int) -> Standing:
    about = read_operator_about(folder)
    state = read_index(folder.issued)
    authority = read_certificate(folder)
    rosters = folder.rosters()
    newest = read_roster(rosters[-1]) if rosters else None
    items = [
        Item("admin", "admin", GOOD, None, "read out to silos", about.admin),
        _certificate("authority", about.name, authority, now, AUTHORITY_SOON, "begin a new consortium in time"),
    ]
    if state.server is not None:
        does = f"quire consortium renew {folder.root}"
        items.append(_certificate("server", about.server.host, state.server, now, SOON, does))
    items += [_member(member, now) for member in state.members.values()]
    items += [
        Item("member", name, WAITING, None, f"revoked on {day(at)}; in the roster until another comes")
        for name, at in state.left.items()
        if newest is not None and name in {one.name for one in newest.roster.members}
    ]
    for place in sorted(folder.invitations.glob("*.json")):
        items.append(_invitation(place, now))
    if _unsettled(folder, state, newest):
        items.append(Item("folder", str(folder.root), WRONG, None, "a command was cut short: call it again"))
    version, digest = (None, None) if newest is None else (newest.roster.version, newest.roster.hash)
    return Standing("operator", about.name, str(about.server), version, digest, tuple(items))


def _of_silo(folder: SiloFolder, now: int) -> Standing:
    about = read_silo_about(folder)
    identity = read_key_file(folder.identity_key)
    items = [
        Item("admin", about.name, GOOD, None, "whose signature counts here", about.admin.fingerprint),
        Item(
            "identity",
            about.member,
            GOOD,
            None,
            "read out to the operator",
            identity.fingerprint,
        ),
        _certificate("authority", about.name, authority_of(folder), now, AUTHORITY_SOON, "ask the operator"),
    ]
    if about.joined is None:
        items.append(Item("certificate", about.member, WAITING, None, "send request.json, then join"))
        return Standing("silo", about.name, str(about.server), None, None, tuple(items))
    certificate = certificate_of(folder)
    does = f"quire consortium renew {folder.root}"
    items.append(_certificate("certificate", about.member, certificate, now, SOON, does))
    if read_key(folder.client_key).public_key() != certificate.public_key():
        items.append(Item("folder", str(folder.root), WRONG, None, "client.key is not client.pem's: join once more"))
    crl = read_crl(folder.crl)
    if crl is None:
        items.append(Item("folder", str(folder.root), WRONG, None, f"{folder.crl} cannot be read: join once more"))
    elif crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        items.append(Item("certificate", about.member, WRONG, None, "revoked by the operator"))
    try:
        pinned = pinned_roster(folder)
        outside = (
            "none is pinned: join once more" if pinned is None else check_place(about, pinned, identity.fingerprint)
        )
    except (IdentityFileError, DataError) as error:
        pinned, outside = None, str(error)
    items.append(_place(about.member, pinned, outside, now))
    version, digest = (None, None) if pinned is None else (pinned.roster.version, pinned.roster.hash)
    return Standing("silo", about.name, str(about.server), version, digest, tuple(items))


def _member(member: Membership, now: int) -> Item:
    until = min(ends(member.certificate), member.until)
    state, words = _ending(until, now, SOON)
    does = "" if state == GOOD else f"{words}; `quire consortium renew` at the silo"
    return Item("member", member.name, state, until, does, member.identity.fingerprint)


def _place(name: str, pinned: SignedRoster | None, outside: str | None, now: int) -> Item:
    if pinned is None or outside is not None:
        return Item("roster", name, WRONG, None, outside or "")
    until = pinned.roster.member(name).valid_to
    state, words = _ending(until, now, SOON)
    return Item("roster", name, state, until, words if state != GOOD else f"{len(pinned.roster.members)} members")


def _certificate(what: str, name: str, found: x509.Certificate, now: int, soon: int, does: str) -> Item:
    state, words = _ending(ends(found), now, soon)
    if now < found.not_valid_before_utc.timestamp():
        state, words = WRONG, "not valid yet: look at this machine's clock"
    return Item(what, name, state, ends(found), "" if state == GOOD else f"{words}; {does}", key_id(found.public_key()))


def _ending(until: int, now: int, soon: int) -> tuple[str, str]:
    left = (until - now) // DAY
    if until <= now:
        return EXPIRED, f"expired on {day(until)}"
    return (ENDING if left < soon else GOOD), f"{left} days left"


def _invitation(place: Path, now: int) -> Item:
    try:
        found = documents.read(place, INVITATION)
    except (ConsortiumError, IdentityFileError) as error:
        return Item("invitation", place.stem, WRONG, None, str(error))
    until = found.body["created"] + INVITATION_DAYS * DAY
    words = "its request has not come" if until > now else "too old to be answered: invite it anew with --again"
    return Item("invitation", place.stem, WAITING, until, words)


def _unsettled(folder: OperatorFolder, state: State, newest: SignedRoster | None) -> bool:
    """Whether the files are not what the index says: a command was killed between deciding and having done it."""
    crl = read_crl(folder.crl)
    listed = {} if newest is None else {one.name: one.identity for one in newest.roster.members}
    return (
        crl is None
        or {one.serial_number for one in crl} != set(state.revoked)
        or any(listed.get(name) != member.identity for name, member in state.members.items())
        or (bool(state.members) and set(listed) != set(state.members))
        or any(not folder.admission(name).exists() for name in state.members)
    )
