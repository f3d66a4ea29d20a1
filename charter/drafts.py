"""The YAML that people write, read strictly: every mistake one sentence with file, line and column.

::

    charter: heart
    version: 1
    purpose: Predict heart disease from routine findings, for research only.
    members:
      hospital-1: {fingerprint: "5f0c...", residency: eu, epsilon: 4.0, delta: 1.0e-5}
      hospital-2: {fingerprint: "9a41...", residency: eu, epsilon: 2.0, delta: 1.0e-5}
      hospital-3: {fingerprint: "c77e...", residency: ch, epsilon: 4.0, delta: 1.0e-6}
    signatures: {this_version: 2, amendments: 3}
    tasks: [tabular]
    code: any                                   # or a list of {bundle: HASH, sources: HASH}
    privacy: [record]
    aggregation: [secure]
    min_cohort: 3
    colluders: 1
    approval: none                              # or each_run
    not_before: 2027-01-01                      # from 00:00:00 UTC; members sign before
    not_after: 2027-12-31T12:00:00Z             # a day alone: to its last second
    exit:
      kept: The final model and its privacy card, by every member.
      destroyed: Checkpoints and the server's logs, within 30 days.
      use: Members, for research; nobody else.
      use_until: 2030-12-31                     # may be left out: for good

What ``attestation`` may say is in :mod:`quire.charter.attestation`; without it nobody needs an enclave.

Fingerprints are what people compare. The keys behind them come from the members' ``.pub`` files or from a roster, and
stand in the document that is signed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

from quire.charter.attestation import DAYS, MAX_DAYS, Attestation
from quire.charter.document import APPROVALS, MAX_LISTED, MAX_MEMBERS, MAX_VERSION, NONE, Charter
from quire.charter.errors import CharterError
from quire.charter.parts import Exit, Member, Release
from quire.conf.schema import GROUPS, SEEN
from quire.conf.strict_yaml import Entry, read_yaml
from quire.privacy.identity.attested import INTEL
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import is_hash

_KEYS = (
    *("charter", "version", "purpose", "members", "signatures", "tasks", "code", "privacy", "aggregation"),
    *("min_cohort", "colluders", "approval", "not_before", "not_after", "exit"),
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_LAST_SECOND = 24 * 3600 - 1


def read_draft(path: Path, now: int, keys: Mapping[str, PublicIdentity], previous: Charter | None = None) -> Charter:
    """Read what people wrote, as the next charter to sign.

    Parameters
    ----------
    path : pathlib.Path
    now : int
        When it is proposed: seconds since 1970 UTC.
    keys : mapping of str to PublicIdentity
        Public keys by fingerprint; those of the version before are known without.
    previous : Charter or None
        The version that it follows.

    Raises
    ------
    DataError
        If the file says something that it cannot say; with the place.
    CharterError
        If the charter would contradict itself, or a member's keys are not to be had.
    """
    root = read_yaml(path)
    found = root.mapping(_KEYS, ["previous", "attestation"])
    known = {**({one.identity.fingerprint: one.identity for one in previous.members} if previous else {}), **keys}
    signatures = found["signatures"].mapping(["this_version", "amendments"])
    privacy = _options(found["privacy"], "privacy")
    members = tuple(
        _member(name, entry, known, capped=NONE not in privacy)
        for name, entry in sorted(found["members"].entries().items())
    )
    try:
        return Charter(
            charter_id=found["charter"].text(),
            version=found["version"].whole(1, MAX_VERSION),
            previous=_previous(found, previous),
            purpose=_text(found["purpose"]),
            members=members,
            needed=signatures["this_version"].whole(1, MAX_MEMBERS),
            amendments=signatures["amendments"].whole(1, MAX_MEMBERS),
            tasks=_options(found["tasks"], "task"),
            code=_code(found["code"]),
            privacy=privacy,
            aggregation=_seen(found["aggregation"]),
            min_cohort=found["min_cohort"].whole(2, MAX_MEMBERS),
            colluders=found["colluders"].whole(0, MAX_MEMBERS),
            approval=_approval(found["approval"]),
            issued=now,
            not_before=_begins(found["not_before"], now),
            not_after=_moment(found["not_after"], last=True),
            exit=_exit(found["exit"]),
            attestation=read_attestation(found["attestation"]) if "attestation" in found else None,
        )
    except CharterError as error:
        raise CharterError(f"{path}: {error}") from None


def _member(name: str, entry: Entry, keys: Mapping[str, PublicIdentity], capped: bool) -> Member:
    caps = ["epsilon", "delta"] if capped else []
    found = entry.mapping(["fingerprint", *caps], ["residency"])
    fingerprint = _hash(found["fingerprint"])
    identity = keys.get(fingerprint)
    if identity is None:
        found["fingerprint"].fail(
            f"the public keys of {name[:64]} are not at hand: name its .pub file (--key) or a roster that it is in "
            "(--roster), and compare the fingerprint with its owner"
        )
    try:
        return Member(
            name,
            identity,
            found["residency"].text() if "residency" in found else None,
            *(found[key].number() for key in caps),
        )
    except CharterError as error:
        entry.fail(str(error).rstrip("."))


def _previous(found: Mapping[str, Entry], previous: Charter | None) -> str | None:
    version = found["version"].whole(1, MAX_VERSION)
    if previous is None:
        if version > 1:
            found["version"].fail("an amendment needs the version before it: name that (--previous)")
        if "previous" in found:
            found["previous"].fail("'previous' is for amendments: leave it out of version 1")
        return None
    if version != previous.version + 1:
        found["version"].fail(f"'version' must be {previous.version + 1}: it follows version {previous.version}")
    if "previous" in found and _hash(found["previous"]) != previous.hash:
        found["previous"].fail(f"'previous' is not the hash of the version before, which is {previous.hash}")
    return previous.hash


def _options(entry: Entry, group: str) -> frozenset[str]:
    return _listed(entry, f"is no option of {group}", GROUPS[group])


def _seen(entry: Entry) -> frozenset[str]:
    """Read what a server may see of updates: rules by which it merges those that it sees are no members' affair."""
    return _listed(entry, "says nothing of what the server sees", SEEN)


def _listed(entry: Entry, objection: str, known: Collection[str]) -> frozenset[str]:
    names = entry.texts()
    for name in names:
        if name not in known:
            entry.fail(f"'{name[:60]}' {objection}: there are {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        entry.fail(f"'{entry.key}' must list at least one of {', '.join(known)}, each once")
    return frozenset(names)


def _code(entry: Entry) -> frozenset[Release] | None:
    from yaml import ScalarNode

    if isinstance(entry.node, ScalarNode):
        if entry.scalar() != "any":
            entry.fail(
                "'code' must be 'any', or a list of {bundle: HASH, sources: HASH} as `quire app hash` shows them"
            )
        return None
    items = entry.items()
    if not 1 <= len(items) <= MAX_LISTED:
        entry.fail(f"'code' must list from 1 to {MAX_LISTED} releases, or be 'any'")
    found = [item.mapping(["bundle", "sources"]) for item in items]
    return frozenset(Release(_hash(one["bundle"]), _hash(one["sources"])) for one in found)


def _approval(entry: Entry) -> str:
    value = entry.text()
    if value not in APPROVALS:
        entry.fail(f"'approval' must be {' or '.join(APPROVALS)}")
    return value


def _exit(entry: Entry) -> Exit:
    found = entry.mapping(["kept", "destroyed", "use"], ["use_until"])
    until = _moment(found["use_until"], last=True) if "use_until" in found else None
    return Exit(_text(found["kept"]), _text(found["destroyed"]), _text(found["use"]), until)


def read_attestation(entry: Entry) -> Attestation:
    """Read what a draft demands of enclaves."""
    lists = ["measurements", "signed_measurements", "signers", "statuses", "advisories"]
    found = entry.mapping(["of"], [*lists, "days", "root"])
    texts = {
        key: frozenset(found[key].texts()) for key in ("of", "measurements", "statuses", "advisories") if key in found
    }
    pairs = found["signed_measurements"].items() if "signed_measurements" in found else ()
    told = found["signers"].items() if "signers" in found else ()
    signed = [one.mapping(["measurement", "signer"]) for one in pairs]
    signers = [one.mapping(["signer", "product", "version"]) for one in told]
    return Attestation(
        of=texts["of"],
        measurements=texts.get("measurements", frozenset()),
        signed=frozenset((_hash(one["measurement"]), _hash(one["signer"])) for one in signed),
        signers=frozenset(
            (_hash(one["signer"]), one["product"].whole(0, 65535), one["version"].whole(0, 65535)) for one in signers
        ),
        statuses=texts.get("statuses", frozenset({"UpToDate"})),
        advisories=texts.get("advisories", frozenset()),
        days=found["days"].whole(1, MAX_DAYS) if "days" in found else DAYS,
        root=_hash(found["root"]) if "root" in found else INTEL,
    )


def _text(entry: Entry) -> str:
    # As editors leave it: one normal form, and no line feed at the end, which a block of YAML has and nobody means.
    return unicodedata.normalize("NFC", entry.text()).rstrip("\n")


def _hash(entry: Entry) -> str:
    value = entry.scalar()
    if not isinstance(value, str) or not is_hash(value):
        entry.fail(f"'{entry.key}' must be a hash or fingerprint: 64 digits 0-9 and letters a-f, in quotes")
    return value


def _begins(entry: Entry, now: int) -> int:
    moment = _moment(entry, last=False)
    if moment <= now:
        entry.fail(
            "'not_before' is past: members have to sign before a charter takes force, so name a time by which they can"
        )
    return moment


def _moment(entry: Entry, last: bool) -> int:
    """Return a time in seconds; of a day alone its first second, or its last."""
    value = entry.scalar()
    text = value if isinstance(value, str) else ""
    try:
        if _DAY.fullmatch(text):
            seconds = int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
            return seconds + (_LAST_SECOND if last else 0)
        if _MOMENT.fullmatch(text):
            return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        pass
    entry.fail(f"'{entry.key}' must be a day (2027-01-31) or a time in UTC (2027-01-31T12:00:00Z)")
