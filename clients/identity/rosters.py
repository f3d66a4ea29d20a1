"""Rosters on the disk, and the next roster out of one and what changes in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from quire.clients.identity import files
from quire.clients.identity.errors import IdentityFileError, sentences
from quire.privacy.identity.attested import Aggregator
from quire.privacy.identity.errors import BadSignature, RosterError
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.privacy.identity.roster import FOR_EVER, Admin, Member, Roster
from quire.privacy.identity.signed import (
    MAX_BYTES,
    SignedRoster,
    check_order,
    check_pin,
    check_signed,
    signers,
    succeeds,
)


@dataclass(frozen=True)
class Change:
    """What a new roster says otherwise than the one before it; all of it, for a first one.

    Attributes
    ----------
    members, admins : mapping of str to PublicIdentity
        By name: new ones, and new keys of old ones.
    roles : mapping of str to str
        By name of a member; ``silo`` if none was ever given.
    removed_members, removed_admins : tuple of str
        Names.
    quorum : int or None
        How many admins have to sign from now on; None: as before, or a majority in a first roster.
    valid_from, valid_to : int
        Of the members named in ``members``: seconds since 1970 UTC.
    attested : mapping of str to Aggregator
        By name of a member: the keys that were attested, which have to be the member's, and the record.
    aggregator : Aggregator or None
        The attested server; None: as before.
    """

    members: Mapping[str, PublicIdentity] = field(default_factory=dict)
    admins: Mapping[str, PublicIdentity] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    removed_members: tuple[str, ...] = ()
    removed_admins: tuple[str, ...] = ()
    quorum: int | None = None
    valid_from: int = 0
    valid_to: int = FOR_EVER
    attested: Mapping[str, Aggregator] = field(default_factory=dict)
    aggregator: Aggregator | None = None


def first_roster(roster_id: str, change: Change) -> Roster:
    """Return version 1 of a roster: members get their indexes in the order of their names' appearance.

    Raises
    ------
    RosterError
        If it would contradict itself.
    """
    return _changed(roster_id, None, change)


def next_roster(old: Roster, change: Change) -> Roster:
    """Return the version that follows a roster; who stays keeps name and index, who is new gets a new index.

    Raises
    ------
    RosterError
        If it would contradict itself or the roster before it, or somebody is removed who is not there.
    """
    new = _changed(old.roster_id, old, change)
    check_order(old, new)
    return new


def read_roster(path: Path) -> SignedRoster:
    """Read a roster; no signature is checked.

    Raises
    ------
    IdentityFileError
        If it cannot be read, or is no roster.
    """
    data = files.read(path, MAX_BYTES)
    with sentences(path):
        return SignedRoster.decode(data)


def load_roster(path: Path, pin: str) -> Roster:
    """Read the roster that a silo has pinned, with its signatures checked.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    pin : str
        Its hash, as ``quire roster show`` shows it: 64 hexadecimal digits.

    Raises
    ------
    IdentityFileError
        If it cannot be read, is another roster than the pinned one, or lacks its admins' signatures.
    """
    signed = read_roster(path)
    check_roster(path, signed, pin)
    return signed.roster


def sign_roster(signed: SignedRoster, admin: PrivateIdentity, previous: Roster | None = None) -> SignedRoster:
    """Return a roster with the signature of one of its admins, or of one of the version before.

    Raises
    ------
    RosterError
        If the signer is none of them, or the roster cannot follow that version.
    """
    admins = signed.roster.admins
    if previous is not None:
        check_order(previous, signed.roster)
        admins += previous.admins
    if all(known.identity != admin.public for known in admins):
        later = signed.roster.version > 1 and previous is None
        raise RosterError(
            f"The key {admin.public.fingerprint[:16]} belongs to none of its admins"
            + (": an admin of the version before names that one too (--previous)." if later else ".")
        )
    return signed.sign(admin)


def merge_rosters(path: Path, others: tuple[Path, ...]) -> SignedRoster:
    """Return a roster with the signatures of copies of it that were signed elsewhere.

    Raises
    ------
    IdentityFileError
        If a file cannot be read, or is not the same roster.
    """
    signed = read_roster(path)
    for other in others:
        found = read_roster(other)
        if found.roster != signed.roster:
            raise IdentityFileError(
                f"{other} is another roster than {path}: {found.roster.hash} and not {signed.roster.hash}."
            )
        signed = signed.with_signatures(found.signatures)
    return signed


def signature_states(signed: SignedRoster, admins: tuple[Admin, ...]) -> dict[str, str]:
    """Return ``signed``, ``none`` or ``BAD`` for each of these admins, by name."""
    given = {one.fingerprint for one in signed.signatures}
    states = {}
    for admin in admins:
        try:
            found = signers(signed, (admin,))
        except BadSignature:
            found = ()
        states[admin.name] = "signed" if found else "BAD" if admin.identity.fingerprint in given else "none"
    return states


def check_roster(path: Path, signed: SignedRoster, pin: str | None = None, old: SignedRoster | None = None) -> None:
    """Check a roster's signatures; and that it has this hash, or may follow the roster pinned so far.

    Raises
    ------
    IdentityFileError
        If it does not, or the roster pinned so far is not signed by its own admins.
    """
    with sentences(path):
        if old is not None:
            check_signed(old)
            succeeds(old.roster, signed)
        elif pin is not None:
            check_pin(signed, pin)
        else:
            check_signed(signed)


def differences(old: Roster, new: Roster) -> list[str]:
    """Return what a roster says otherwise than the version before it, a line for each party that changes."""
    before = {member.name: member for member in old.members}
    after = {member.name: member for member in new.members}
    lines = [f"member added: {name}" for name in after if name not in before]
    lines += [f"member removed: {name}" for name in before if name not in after]
    lines += [
        f"member with new keys: {name}"
        for name in after
        if name in before and before[name].identity != after[name].identity
    ]
    signed_before = {admin.name: admin.identity for admin in old.admins}
    signs_now = {admin.name: admin.identity for admin in new.admins}
    lines += [
        f"member with another attested enclave: {name}"
        if after[name].attested
        else f"member without an attested enclave any more: {name}"
        for name in after
        if after[name].attested != (before[name].attested if name in before else None)
    ]
    if old.aggregator != new.aggregator:
        lines.append(f"attested server: {new.aggregator.identity.fingerprint if new.aggregator else 'none any more'}")
    lines += [f"admin added: {name}" for name in signs_now if name not in signed_before]
    lines += [f"admin removed: {name}" for name in signed_before if name not in signs_now]
    lines += [
        f"admin with new keys: {name}"
        for name in signs_now
        if name in signed_before and signed_before[name] != signs_now[name]
    ]
    return lines + ([f"quorum: {new.quorum} instead of {old.quorum}"] if new.quorum != old.quorum else [])


def write_new(path: Path, signed: SignedRoster) -> None:
    """Write a roster into a new file.

    Raises
    ------
    IdentityFileError
        If the file exists already or cannot be written.
    """
    files.create(path, signed.encode(), files.EVERYBODY)


def write_over(path: Path, signed: SignedRoster) -> None:
    """Put a roster with more signatures in the place of a file, at once.

    Raises
    ------
    IdentityFileError
        If it cannot be written; then the old one is still there.
    """
    files.replace(path, signed.encode())


def _changed(roster_id: str, old: Roster | None, change: Change) -> Roster:
    members = {member.name: member for member in old.members} if old else {}
    admins = {admin.name: admin.identity for admin in old.admins} if old else {}
    for name in change.removed_members:
        _remove(members, name, "member")
    for name in change.removed_admins:
        _remove(admins, name, "admin")
    next_index = old.next_index if old else 0
    for name, identity in change.members.items():
        before = members.get(name)
        index = next_index if before is None else before.index
        next_index += before is None
        role = "silo" if before is None else before.role
        kept = before.attested if before is not None and before.identity == identity else None  # it is of those keys
        members[name] = Member(index, name, identity, change.valid_from, change.valid_to, role, kept)
    for name, role in change.roles.items():
        if name not in members:
            raise RosterError(f"There is no member '{name}' to have the role {role}.")
        members[name] = replace(members[name], role=role)
    for name, record in change.attested.items():
        if name not in members:
            raise RosterError(f"There is no member '{name}' whose enclave could be recorded.")
        if members[name].identity != record.identity:
            raise RosterError(
                f"The enclave that was attested has the key {record.identity.fingerprint[:16]}, and {name} is in the "
                f"roster under {members[name].identity.fingerprint[:16]}."
            )
        members[name] = replace(members[name], attested=record.attested)
    admins.update(change.admins)
    quorum = change.quorum
    if quorum is None:
        quorum = old.quorum if old else len(admins) // 2 + 1
    return Roster(
        roster_id=roster_id,
        version=old.version + 1 if old else 1,
        previous=old.hash if old else None,
        members=tuple(sorted(members.values(), key=lambda member: member.index)),
        admins=tuple(Admin(name, admins[name]) for name in sorted(admins)),
        quorum=quorum,
        next_index=next_index,
        aggregator=change.aggregator or (old.aggregator if old else None),
    )


def _remove(known: dict[str, Member] | dict[str, PublicIdentity], name: str, what: str) -> None:
    if name not in known:
        raise RosterError(f"There is no {what} '{name}' to remove.")
    del known[name]
