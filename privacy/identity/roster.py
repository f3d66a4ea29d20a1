"""The roster: who belongs to a consortium, under which keys, and who may change that.

A roster is one canonical JSON document (:mod:`quire.privacy.identity.canonical`), and its hash is what a silo pins::

    {"admins":      [{"ed25519": hex, "mldsa65": hex or null, "name": ...}, ...],          by name
     "format":      "quire-roster-1",
     "members":     [{"ed25519": hex, "index": 0, "mldsa65": hex or null, "name": ..., "role": ...,
                      "valid_from": seconds, "valid_to": seconds}, ...],                   by index
     "next_index":  one more than the highest index that any version has ever given away,
     "previous":    hash of the version before, null in the first,
     "quorum":      how many admins have to sign,
     "roster_id":   ...,
     "version":     1, 2, ...}

Where members or the server run in enclaves that were attested, a member has a key ``attested`` more, and the roster a
key ``aggregator``: see :mod:`quire.privacy.identity.attested`. A roster without any is written as it always was.

Times are whole seconds since 1970-01-01 UTC. An index is given away once: it is the member's coordinate in secret
sharing and its place in every log, so that it never names a second party, not even after the first has left.
``next_index`` is there because the version before alone cannot tell which indexes older ones had used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quire.privacy.identity.attested import Aggregator, Attested
from quire.privacy.identity.canonical import LIMIT, dumps
from quire.privacy.identity.errors import BadEncoding, RosterError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity

FORMAT = "quire-roster-1"
TAG = "quire/roster/1"
MAX_MEMBERS = 4096
MAX_ADMINS = 64
MAX_INDEX = 2**31
#: The last second of the year 9999: as good as for ever, and still a date.
FOR_EVER = 253_402_300_799
NAME_WORDS = "at most 64 lower-case letters, digits and dashes, and begin with a letter"

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True)
class Admin:
    """Somebody who may sign a roster: a name for people, and keys."""

    name: str
    identity: PublicIdentity


@dataclass(frozen=True)
class Member:
    """One party of a consortium.

    Attributes
    ----------
    index : int
        Its number, for ever: at least 0, below 2**31.
    name : str
        What it is called, for ever, under the rules for names of silos.
    identity : PublicIdentity
        Its keys.
    valid_from, valid_to : int
        The first second in which its signatures count, and the first in which they do not; UTC, since 1970.
    role : str
        What it does: ``silo``, or another word of the consortium.
    attested : Attested or None
        The enclave in which its keys were made, if anybody verified that.
    """

    index: int
    name: str
    identity: PublicIdentity
    valid_from: int = 0
    valid_to: int = FOR_EVER
    role: str = "silo"
    attested: Attested | None = None

    def active(self, now: int) -> bool:
        """Whether its signatures count at this time, in seconds since 1970 UTC."""
        return self.valid_from <= now < self.valid_to


@dataclass(frozen=True)
class Roster:
    """The parties of a consortium and the admins who answer for it; refuses to be made with a contradiction in it.

    Attributes
    ----------
    roster_id : str
        The consortium's name for it; the same in every version.
    version : int
        Counted from 1.
    members : tuple of Member
        By index.
    admins : tuple of Admin
        By name.
    quorum : int
        How many admins have to sign, from 1 to their number.
    next_index : int
        The index that the next new member gets: higher than any that a version has ever given away.
    previous : str or None
        Hash of the version before; None in the first.
    aggregator : Aggregator or None
        The server, where it runs in an enclave that was attested.

    Raises
    ------
    RosterError
        If it contradicts itself: a name, index or key twice, a quorum that cannot be reached, an empty validity.
    """

    roster_id: str
    version: int
    members: tuple[Member, ...]
    admins: tuple[Admin, ...]
    quorum: int
    next_index: int
    previous: str | None = None
    aggregator: Aggregator | None = None

    def __post_init__(self) -> None:
        _name(self.roster_id, "The roster's id")
        _integer(self.version, "version", 1, LIMIT)
        if (self.previous is None) != (self.version == 1):
            raise RosterError("A roster names the version before it, unless it is version 1.")
        if self.previous is not None and not (isinstance(self.previous, str) and is_hash(self.previous)):
            raise RosterError("'previous' must be the hash of a roster: 64 hexadecimal digits in lower case.")
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            raise RosterError(f"A roster has 1 to {MAX_MEMBERS} members, and this one {len(self.members)}.")
        if not 1 <= len(self.admins) <= MAX_ADMINS:
            raise RosterError(f"A roster has 1 to {MAX_ADMINS} admins, and this one {len(self.admins)}.")
        if type(self.quorum) is not int or not 1 <= self.quorum <= len(self.admins):
            raise RosterError(f"The quorum must be from 1 to the number of admins, which is {len(self.admins)}.")
        _integer(self.next_index, "next_index", 1, MAX_INDEX + 1)
        for member in self.members:
            _name(member.name, "A member's name")
            _name(member.role, f"The role of {member.name}")
            _integer(member.index, f"index of {member.name}", 0, self.next_index)
            _integer(member.valid_from, f"valid_from of {member.name}", 0, FOR_EVER)
            _integer(member.valid_to, f"valid_to of {member.name}", member.valid_from + 1, FOR_EVER + 1)
        for admin in self.admins:
            _name(admin.name, "An admin's name")
        _distinct("members", "name", (member.name for member in self.members))
        _distinct("members", "index", (member.index for member in self.members))
        _distinct("admins", "name", (admin.name for admin in self.admins))
        # One key in two hybrid identities would let one admin count twice, so keys are compared one by one.
        for what, parties in (("members", self.members), ("admins", self.admins)):
            _distinct(what, "Ed25519 key", (party.identity.ed25519 for party in parties))
            _distinct(what, "ML-DSA-65 key", (key for party in parties if (key := party.identity.mldsa65) is not None))
        if self.aggregator is not None:
            members, admins = (one.identity for one in self.members), (one.identity for one in self.admins)
            self.aggregator.refuse_shared([*members, *admins])
        if list(self.members) != sorted(self.members, key=lambda member: member.index):
            raise RosterError("The members must stand in the order of their indexes.")
        if list(self.admins) != sorted(self.admins, key=lambda admin: admin.name):
            raise RosterError("The admins must stand in the order of their names.")

    @cached_property
    def body(self) -> bytes:
        """The canonical JSON of this roster: what is hashed, and what admins sign."""
        return dumps(to_json(self))

    @cached_property
    def hash(self) -> str:
        """The pin: 64 hexadecimal digits over everything in it but the signatures."""
        return tagged_hash(TAG, self.body).hex()

    def member(self, name: str) -> Member:
        """Return the member with this name.

        Raises
        ------
        RosterError
            If there is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        raise RosterError(f"The roster {self.roster_id} has no member '{name}'.")

    def active(self, now: int) -> tuple[Member, ...]:
        """Return the members whose signatures count at this time, in seconds since 1970 UTC."""
        return tuple(member for member in self.members if member.active(now))


def to_json(roster: Roster) -> dict[str, Any]:
    """Return a roster as the JSON object that is its body."""
    return {
        "format": FORMAT,
        "roster_id": roster.roster_id,
        "version": roster.version,
        "previous": roster.previous,
        "quorum": roster.quorum,
        "next_index": roster.next_index,
        "admins": [{"name": admin.name, **_keys(admin.identity)} for admin in roster.admins],
        "members": [
            {
                "index": member.index,
                "name": member.name,
                "role": member.role,
                "valid_from": member.valid_from,
                "valid_to": member.valid_to,
                **_keys(member.identity),
                **({} if member.attested is None else {"attested": member.attested.to_json()}),
            }
            for member in roster.members
        ],
        **({} if roster.aggregator is None else {"aggregator": _aggregator_json(roster.aggregator)}),
    }


def from_json(value: Any) -> Roster:
    """Read the body of a roster: exactly these keys, of exactly these types.

    Raises
    ------
    BadEncoding
        If it has another form.
    RosterError
        If it contradicts itself.
    """
    keys = ("format", "roster_id", "version", "previous", "quorum", "next_index", "admins", "members")
    found = fields(value, "roster", dict.fromkeys((*keys, *_also(value, "aggregator"))))
    if found["format"] != FORMAT:
        raise BadEncoding(f"The roster is not in the format {FORMAT}, the only one that this version reads.")
    listed: dict[str, type | None] = {"ed25519": str, "mldsa65": None, "name": str}
    admins = [fields(item, "admin", listed) for item in _list(found["admins"], "admins", MAX_ADMINS)]
    listed |= {"index": int, "role": str, "valid_from": int, "valid_to": int}
    members = [
        fields(item, "member", listed | _also(item, "attested"))
        for item in _list(found["members"], "members", MAX_MEMBERS)
    ]
    return Roster(
        roster_id=found["roster_id"],
        version=found["version"],
        previous=found["previous"],
        quorum=found["quorum"],
        next_index=found["next_index"],
        admins=tuple(Admin(item["name"], _identity(item)) for item in admins),
        members=tuple(
            Member(
                *(item["index"], item["name"], _identity(item), item["valid_from"], item["valid_to"], item["role"]),
                attested=Attested.from_json(item["attested"]) if "attested" in item else None,
            )
            for item in members
        ),
        aggregator=_aggregator(found["aggregator"]) if "aggregator" in found else None,
    )


def _also(value: Any, key: str) -> dict[str, type | None]:
    return {key: dict} if isinstance(value, dict) and key in value else {}


def _aggregator_json(found: Aggregator) -> dict[str, Any]:
    return {**_keys(found.identity), "attested": found.attested.to_json()}


def _aggregator(value: Any) -> Aggregator:
    found = fields(value, "aggregator", {"ed25519": str, "mldsa65": None, "attested": dict})
    return Aggregator(_identity(found), Attested.from_json(found["attested"]))


def fields(value: Any, what: str, types: dict[str, type | None]) -> dict[str, Any]:
    """Return a JSON object that has exactly these keys, with values of these types (None: any).

    Raises
    ------
    BadEncoding
        If it has others.
    """
    if not isinstance(value, dict) or value.keys() != types.keys():
        raise BadEncoding(f"A {what} has exactly the keys {', '.join(sorted(types))}.")
    for key, kind in types.items():
        if kind is not None and type(value[key]) is not kind:
            raise BadEncoding(f"'{key}' of a {what} must be {'a string' if kind is str else 'an integer'}.")
    return value


def hexadecimal(text: Any, what: str) -> bytes:
    """Read bytes from lower-case hexadecimal digits.

    Raises
    ------
    BadEncoding
        If it is anything else.
    """
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise BadEncoding(f"{what} must be hexadecimal digits in lower case.")
    return bytes.fromhex(text)


def _keys(identity: PublicIdentity) -> dict[str, str | None]:
    return {
        "ed25519": identity.ed25519.hex(),
        "mldsa65": None if identity.mldsa65 is None else identity.mldsa65.hex(),
    }


def _identity(item: dict[str, Any]) -> PublicIdentity:
    second = item["mldsa65"]
    return PublicIdentity(
        hexadecimal(item["ed25519"], "'ed25519'"), None if second is None else hexadecimal(second, "'mldsa65'")
    )


def _list(value: Any, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise BadEncoding(f"'{what}' must be a list of at most {most}.")
    return value


def is_name(text: str) -> bool:
    """Whether a text can be the name of a member, an admin, a role or a roster."""
    return _NAME.fullmatch(text) is not None


def is_hash(text: str) -> bool:
    """Whether a text can be the hash of a roster."""
    return _HASH.fullmatch(text) is not None


def _name(value: Any, what: str) -> None:
    if not isinstance(value, str) or not is_name(value):
        raise RosterError(f"{what} must be {NAME_WORDS}.")


def _integer(value: Any, what: str, least: int, end: int) -> None:
    if type(value) is not int or not least <= value < end:
        raise RosterError(f"'{what}' must be a whole number from {least} to {end - 1}.")


def _distinct(what: str, which: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            shown = f" ({value})" if isinstance(value, str | int) else ""
            raise RosterError(f"Two {what} have the same {which}{shown}.")
        seen.add(value)
