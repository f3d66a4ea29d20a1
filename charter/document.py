"""What a charter says. One canonical JSON document (:mod:`quire.privacy.identity.canonical`), whose hash names it.

::

    {"aggregation": ["secure"], "amendments": 2, "approval": "none", "charter_id": "heart",
     "code": null or [{"bundle": hash, "sources": hash}, ...], "colluders": 1,
     "exit": {"destroyed": text, "kept": text, "use": text, "use_until": seconds or null},
     "format": "quire-charter-1", "issued": seconds,
     "members": [{"delta": "1e-05", "ed25519": hex, "epsilon": "4.0", "mldsa65": hex or null, "name": ...,
                  "residency": word or null}, ...],                                            by name
     "min_cohort": 4, "needed": 2, "not_after": seconds, "not_before": seconds, "previous": hash or null,
     "privacy": ["record"], "purpose": text, "tasks": ["breast_cancer"], "version": 1}

Where it demands attestation it has a key ``attestation`` more (:mod:`quire.charter.attestation`); one that does not is
written as charters always were. Times are whole seconds since 1970-01-01 UTC. The charter carries its members' public
keys, so that whoever has the file alone can check it. ``issued`` is when it was proposed, ``not_before`` when it takes
force: members sign between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quire.charter.attestation import Attestation
from quire.charter.errors import CharterError, sentences
from quire.charter.parts import (
    Exit,
    Member,
    Release,
    check_text,
    check_time,
    check_word,
    read_number,
    read_text,
    spelled_number,
    spelled_text,
)
from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import NAME_WORDS, fields, hexadecimal, is_hash, is_name

FORMAT = "quire-charter-1"
TAG = "quire/charter/1"
MAX_MEMBERS = 256
MAX_LISTED = 256
MAX_VERSION = 1_000_000
#: Whether each silo takes part only in runs that its own operator has approved.
APPROVALS = ("none", "each_run")
#: The mode without privacy; see :data:`quire.conf.schema.GROUPS`.
NONE = "none"


@dataclass(frozen=True)
class Charter:
    """One version of a charter; refuses to be made with a contradiction in it.

    Attributes
    ----------
    charter_id : str
        The consortium's name for it; the same in every version.
    version : int
        Counted from 1.
    purpose : str
    members : tuple of Member
        By name.
    needed : int
        How many of its own members have to sign this version: more than half of them.
    amendments : int
        How many of them have to sign the next one: more than half of them, so that no two amendments of one version
        are signed by different people.
    tasks : frozenset of str
        Options of the group ``task`` that may run.
    code : frozenset of Release or None
        What may run; None: any.
    privacy, aggregation : frozenset of str
        Options of these groups that may run.
    min_cohort, colluders : int
        Fewest silos whose updates are merged, and how many of them may side with the server.
    approval : {"none", "each_run"}
        ``each_run``: each silo takes part only in runs that its own operator has approved. The server does not hold a
        run back until all have.
    issued, not_before, not_after : int
        When it was proposed; the first second in which it is in force, and the last one after which it is not.
    exit : Exit
    previous : str or None
        Hash of the version before; None in the first.
    attestation : Attestation or None
        Who has to run in which enclaves; None: nobody.

    Raises
    ------
    CharterError
        If it contradicts itself.
    """

    charter_id: str
    version: int
    purpose: str
    members: tuple[Member, ...]
    needed: int
    amendments: int
    tasks: frozenset[str]
    code: frozenset[Release] | None
    privacy: frozenset[str]
    aggregation: frozenset[str]
    min_cohort: int
    colluders: int
    approval: str
    issued: int
    not_before: int
    not_after: int
    exit: Exit
    previous: str | None = None
    attestation: Attestation | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.charter_id, str) or not is_name(self.charter_id):
            raise CharterError(f"The name of a charter must be {NAME_WORDS}.")
        _whole(self.version, "version", 1, MAX_VERSION)
        if (self.previous is None) != (self.version == 1):
            raise CharterError("A charter names the version before it, unless it is version 1.")
        if self.previous is not None and not (isinstance(self.previous, str) and is_hash(self.previous)):
            raise CharterError("'previous' must be the hash of a charter: 64 hexadecimal digits in lower case.")
        check_text(self.purpose, "'purpose'")
        self._check_members()
        for name in ("tasks", "privacy", "aggregation"):
            listed = getattr(self, name)
            if not 1 <= len(listed) <= MAX_LISTED:
                raise CharterError(f"'{name}' must list from 1 to {MAX_LISTED} of them.")
            for word in listed:
                check_word(word, f"An entry of '{name}'")
        if self.code is not None and not 1 <= len(self.code) <= MAX_LISTED:
            raise CharterError(f"'code' must list from 1 to {MAX_LISTED} releases, or say that any may run.")
        self._check_privacy()
        _whole(self.min_cohort, "min_cohort", 2, len(self.members))
        _whole(self.colluders, "colluders", 0, MAX_MEMBERS)
        if self.min_cohort - self.colluders < 2:
            raise CharterError(
                f"min_cohort={self.min_cohort} less colluders={self.colluders} leaves fewer than two honest silos: "
                "raise min_cohort or lower colluders."
            )
        if self.approval not in APPROVALS:
            raise CharterError(f"'approval' must be {' or '.join(APPROVALS)}.")
        for name in ("issued", "not_before", "not_after"):
            check_time(getattr(self, name), f"'{name}'")
        if self.not_before < self.issued:
            raise CharterError("The charter is backdated: it claims to be in force before it was proposed.")
        if self.not_after <= self.not_before:
            raise CharterError("'not_after' must be later than 'not_before'.")

    def _check_members(self) -> None:
        names = [member.name for member in self.members]
        if not 2 <= len(names) <= MAX_MEMBERS:
            raise CharterError(f"A charter has 2 to {MAX_MEMBERS} members, and this one {len(names)}.")
        if names != sorted(names):
            raise CharterError("The members must stand in the order of their names.")
        _distinct("name", names)
        # Key by key: one key in two hybrid identities would let one party sign twice.
        _distinct("Ed25519 key", (member.identity.ed25519 for member in self.members))
        _distinct("ML-DSA-65 key", (key for member in self.members if (key := member.identity.mldsa65) is not None))
        for name in ("needed", "amendments"):
            count = getattr(self, name)
            if type(count) is not int or not len(names) < 2 * count <= 2 * len(names):
                raise CharterError(
                    f"'{name}' must be more than half of the {len(names)} members, and at most all of them: else two "
                    "versions could be signed by different members."
                )

    def _check_privacy(self) -> None:
        if NONE in self.privacy and len(self.privacy) > 1:
            raise CharterError("privacy 'none' stands alone: a run without privacy spends without limit.")
        for member in self.members:
            if (member.epsilon is None) != (NONE in self.privacy):
                raise CharterError(
                    f"{member.name} has a cap on epsilon, which privacy [none] cannot hold: leave it out."
                    if NONE in self.privacy
                    else f"{member.name} lacks its caps on epsilon and delta."
                )

    @cached_property
    def body(self) -> bytes:
        """The canonical JSON of it: what is hashed, and what members sign."""
        return dumps(to_json(self))

    @cached_property
    def hash(self) -> str:
        """Its name: 64 hexadecimal digits over everything in it but the signatures."""
        return tagged_hash(TAG, self.body).hex()

    @property
    def label(self) -> str:
        """What it is called in sentences: ``the charter heart, version 2``."""
        return f"the charter {self.charter_id}, version {self.version}"

    def member(self, name: str) -> Member | None:
        """Return the member of this name, if there is one."""
        return next((member for member in self.members if member.name == name), None)

    def signer(self, fingerprint: str) -> Member | None:
        """Return the member with these keys, if there is one."""
        return next((member for member in self.members if member.identity.fingerprint == fingerprint), None)


def to_json(charter: Charter) -> dict[str, Any]:
    """Return a charter as the JSON object that is its body."""
    end = charter.exit
    return {
        "format": FORMAT,
        "charter_id": charter.charter_id,
        "version": charter.version,
        "previous": charter.previous,
        "purpose": spelled_text(charter.purpose),
        "members": [_member_json(member) for member in charter.members],
        "needed": charter.needed,
        "amendments": charter.amendments,
        "tasks": sorted(charter.tasks),
        "code": None if charter.code is None else [vars(release) for release in sorted(charter.code)],
        "privacy": sorted(charter.privacy),
        "aggregation": sorted(charter.aggregation),
        "min_cohort": charter.min_cohort,
        "colluders": charter.colluders,
        "approval": charter.approval,
        "issued": charter.issued,
        "not_before": charter.not_before,
        "not_after": charter.not_after,
        "exit": {
            "kept": spelled_text(end.kept),
            "destroyed": spelled_text(end.destroyed),
            "use": spelled_text(end.use),
            "use_until": end.use_until,
        },
        **({} if charter.attestation is None else {"attestation": charter.attestation.to_json()}),
    }


def from_json(value: Any) -> Charter:
    """Read the body of a charter: exactly these keys, of exactly these types, lists in their order.

    Raises
    ------
    CharterError
        If it has another form, or contradicts itself.
    """
    with sentences():
        keys: dict[str, type | None] = dict.fromkeys(Charter.__dataclass_fields__)
        if not isinstance(value, dict) or "attestation" not in value:
            del keys["attestation"]
        found = fields(value, "charter", {**keys, "format": None})
        if found["format"] != FORMAT:
            raise CharterError(f"The charter is not in the format {FORMAT}, the only one that this version reads.")
        end = fields(found["exit"], "list of exit rules", dict.fromkeys(Exit.__dataclass_fields__))
        texts = {name: read_text(end[name], f"'{name}'") for name in ("kept", "destroyed", "use")}
        code = found["code"]
        lists = {name: _words(found[name], name) for name in ("tasks", "privacy", "aggregation")}
        made = {
            **{key: item for key, item in found.items() if key != "format"},
            **lists,
            "purpose": read_text(found["purpose"], "'purpose'"),
            "members": tuple(_member(item) for item in _list(found["members"], "members", MAX_MEMBERS)),
            "code": None if code is None else frozenset(_release(item) for item in _list(code, "code", MAX_LISTED)),
            "exit": Exit(**texts, use_until=end["use_until"]),
            **({"attestation": Attestation.from_json(found["attestation"])} if "attestation" in found else {}),
        }
        charter = Charter(**made)
    if to_json(charter) != value:  # a list in another order, or with an entry twice
        raise CharterError("The lists of a charter must be in order, each entry once.")
    return charter


def _member_json(member: Member) -> dict[str, Any]:
    second = member.identity.mldsa65
    return {
        "name": member.name,
        "ed25519": member.identity.ed25519.hex(),
        "mldsa65": None if second is None else second.hex(),
        "residency": member.residency,
        "epsilon": None if member.epsilon is None else spelled_number(member.epsilon),
        "delta": None if member.delta is None else spelled_number(member.delta),
    }


def _member(value: Any) -> Member:
    item = fields(
        value, "member", {"name": str, "ed25519": str, **dict.fromkeys(("mldsa65", "residency", "epsilon", "delta"))}
    )
    second = item["mldsa65"]
    return Member(
        item["name"],
        PublicIdentity(
            hexadecimal(item["ed25519"], "'ed25519'"), None if second is None else hexadecimal(second, "'mldsa65'")
        ),
        item["residency"],
        *(None if item[key] is None else read_number(item[key], f"'{key}'") for key in ("epsilon", "delta")),
    )


def _release(value: Any) -> Release:
    item = fields(value, "release", {"bundle": str, "sources": str})
    return Release(item["bundle"], item["sources"])


def _words(value: Any, name: str) -> frozenset[str]:
    listed = _list(value, name, MAX_LISTED)
    for word in listed:
        check_word(word, f"An entry of '{name}'")
    return frozenset(listed)


def _list(value: Any, name: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise CharterError(f"'{name}' must be a list of at most {most}.")
    return value


def _whole(value: Any, what: str, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise CharterError(f"'{what}' must be a whole number from {low} to {high}.")


def _distinct(which: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise CharterError(f"Two members have the same {which}{f' ({value})' if isinstance(value, str) else ''}.")
        seen.add(value)
