"""A charter, and what an amendment changes, in plain words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from quire.charter.attestation import Attestation
from quire.charter.chain import expired
from quire.charter.document import Charter
from quire.charter.errors import CharterRefused
from quire.charter.parts import Member, Release
from quire.charter.signed import SignedCharter, signers

#: What a change does to what may be done.
LOOSER, STRICTER, OTHER = "looser", "stricter", "changed"
_DAY = 24 * 3600
_EACH_RUN = "each silo takes part only in runs that its own operator has approved"


@dataclass(frozen=True)
class Change:
    """One thing that an amendment says otherwise.

    Attributes
    ----------
    effect : {"looser", "stricter", "changed"}
        Whether more may be done than before, or less; ``changed`` where it is neither, or not for a program to say.
    words : str
    """

    effect: str
    words: str


def described(charter: Charter) -> list[str]:
    """Return what a charter says, a line for each thing."""
    end = charter.exit
    lines = [
        f"Charter {charter.charter_id}, version {charter.version}",
        f"Hash {charter.hash}",
        *([f"Follows {charter.previous}"] if charter.previous else []),
        "",
        *_text("Purpose", charter.purpose),
        f"In force: {moment(charter.not_before)} to {moment(charter.not_after)}",
        f"Tasks: {_listed(charter.tasks)}",
        f"Privacy: {_listed(charter.privacy)}; aggregation: {_listed(charter.aggregation)}",
        f"Cohort: at least {charter.min_cohort} silos, of which {charter.colluders} may side with the server",
        "Approval: " + (_EACH_RUN if charter.approval == "each_run" else "none needed"),
    ]
    if charter.attestation is not None:
        lines += _attestation(charter.attestation)
    if charter.code is None:
        lines.append("Code: any that a silo's own operator approves")
    else:
        lines.append("Code: these releases and no others")
        lines += [f"  bundle {one.bundle}\n  sources {one.sources}" for one in sorted(charter.code)]
    lines += [
        *_text("Kept", end.kept),
        *_text("Destroyed", end.destroyed),
        *_text("The model may be used by", end.use),
        f"The model may be used until: {moment(end.use_until) if end.use_until else 'for good'}",
        "",
        f"Signatures: {charter.needed} of {len(charter.members)} for this version, {charter.amendments} for the next",
    ]
    return lines


def signing(signed: SignedCharter, previous: Charter | None = None) -> list[str]:
    """Return who has signed and who is missing, a line for each member, with its caps and its fingerprint."""
    lines = []
    for member in signed.charter.members:
        caps = f", {capped(member)}" if capped(member) else ""
        where = f", records in {member.residency}" if member.residency else ""
        lines += [f"  {member.name}: {_state(signed, member)}{where}{caps}", f"    {member.identity.fingerprint}"]
    if previous is not None:
        lines.append(f"Of the members before, {previous.amendments} have to sign:")
        lines += [f"  {member.name}: {_state(signed, member)}" for member in previous.members]
    return lines


def capped(member: Member) -> str:
    """Say what a member's records may spend; nothing in a charter without privacy."""
    return f"epsilon {member.epsilon:g} at delta {member.delta:g}" if member.epsilon and member.delta else ""


def standing(charter: Charter, now: int) -> str:
    """Say whether a charter is in force at a time, and for how long."""
    if now < charter.not_before:
        return f"It takes force in {_days(charter.not_before - now)}; members can sign until then."
    if expired(charter, now):
        return f"It has expired {_days(now - charter.not_after)} ago."
    return f"It is in force for another {_days(charter.not_after - now)}."


def changes(old: Charter, new: Charter) -> list[Change]:
    """Return what a charter says otherwise than another, what is looser first.

    Notes
    -----
    ``looser`` is what lets a silo, a server or the members do more than before: more tasks, a larger cap, a smaller
    cohort, fewer signatures, a later end.
    """
    found = [
        *_sets("task", old.tasks, new.tasks),
        *_sets("privacy", old.privacy, new.privacy),
        *_sets("aggregation", old.aggregation, new.aggregation),
        *_code(old.code, new.code),
        *_number("fewest silos in a cohort", old.min_cohort, new.min_cohort, more_is=STRICTER),
        *_number("colluders tolerated", old.colluders, new.colluders, more_is=STRICTER),
        *_number("signatures for a version", old.needed, new.needed, more_is=STRICTER),
        *_number("signatures for an amendment", old.amendments, new.amendments, more_is=STRICTER),
        *_end(old.not_after, new.not_after),
        *_demands(old.attestation, new.attestation),
        *_members(old, new),
    ]
    if old.approval != new.approval:
        needed = new.approval == "each_run"
        found.append(
            Change(STRICTER, f"approval: {_EACH_RUN}")
            if needed
            else Change(LOOSER, "silos also take part in runs that their own operators have not approved")
        )
    if old.not_before != new.not_before:
        found.append(Change(OTHER, f"in force from {moment(new.not_before)}"))
    for what, before, after in (
        ("purpose", old.purpose, new.purpose),
        ("what is kept", old.exit.kept, new.exit.kept),
        ("what is destroyed", old.exit.destroyed, new.exit.destroyed),
        ("who may use the model", old.exit.use, new.exit.use),
    ):
        if before != after:
            found.append(Change(OTHER, f"{what}: {after!r} instead of {before!r}"))
    if old.exit.use_until != new.exit.use_until:
        found.append(_use(old.exit.use_until, new.exit.use_until))
    order = (LOOSER, STRICTER, OTHER)
    return sorted(found, key=lambda change: order.index(change.effect))


def moment(seconds: int) -> str:
    """Return a time in words: ``2027-01-31 12:00:00 UTC``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(title: str, text: str) -> list[str]:
    """Return a text of the charter's under a title, its other lines indented: none of them passes for one of ours."""
    first, *others = text.split("\n")
    return [f"{title}: {first}", *(" " * (len(title) + 2) + line for line in others)]


def _state(signed: SignedCharter, member: Member) -> str:
    try:
        if not signers(signed, (member,)):
            return "not signed"
    except CharterRefused as error:
        return f"BAD: {error}"
    one = next(item for item in signed.signatures if item.fingerprint == member.identity.fingerprint)
    return f"signed {moment(one.signed_at)}"


def _days(seconds: int) -> str:
    days, hours, minutes = seconds // _DAY, seconds // 3600, seconds // 60
    for count, word in ((days, "day"), (hours, "hour"), (minutes, "minute"), (seconds, "second")):
        if count or word == "second":
            return f"{count} {word}{'' if count == 1 else 's'}"
    return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _sets(what: str, old: frozenset[str], new: frozenset[str]) -> list[Change]:
    added = [Change(LOOSER, f"{what} {name} is admitted") for name in sorted(new - old)]
    return added + [Change(STRICTER, f"{what} {name} is no longer admitted") for name in sorted(old - new)]


def _code(old: frozenset[Release] | None, new: frozenset[Release] | None) -> list[Change]:
    if old == new:
        return []
    if new is None:
        return [Change(LOOSER, "any code may run that a silo's own operator approves")]
    if old is None:
        return [Change(STRICTER, f"only {len(new)} listed releases of the code may run")]
    return _sets("code", frozenset(one.bundle for one in old), frozenset(one.bundle for one in new)) or [
        Change(OTHER, "the sources of a listed release have another hash")
    ]


def _attestation(found: Attestation) -> list[str]:
    lines = [f"Attestation: of {_listed(found.of)}, verified within {found.days} days, up to the root {found.root}"]
    lines += [f"  enclave {one}" for one in sorted(found.measurements)]
    lines += [f"  enclave {one}\n  signed by {by}" for one, by in sorted(found.signed)]
    lines += [
        f"  signer {by}, product {product}, version {least} or later" for by, product, least in sorted(found.signers)
    ]
    more = f"; although {_listed(found.advisories)} applies" if found.advisories else ""
    return [*lines, f"  platforms {_listed(found.statuses)}{more}"]


def _demands(old: Attestation | None, new: Attestation | None) -> list[Change]:
    """Say what is demanded of enclaves otherwise: for each party, and for each enclave or platform that is let in."""
    before, after = (frozenset() if one is None else one.of for one in (old, new))
    whom = {"silos": "every silo", "server": "the server"}
    found = [Change(STRICTER, f"attestation is demanded of {whom[one]}") for one in sorted(after - before)]
    found += [Change(LOOSER, f"attestation is no longer demanded of {whom[one]}") for one in sorted(before - after)]
    if old is None or new is None or old == new:
        return found
    for what, one, other in (
        ("the enclave", old.measurements, new.measurements),
        ("the signed enclave", frozenset(map("/".join, old.signed)), frozenset(map("/".join, new.signed))),
        ("the signer", frozenset(map(_signer, old.signers)), frozenset(map(_signer, new.signers))),
        ("a platform in the state", old.statuses, new.statuses),
        ("a platform with", old.advisories, new.advisories),
    ):
        found += _sets(what, one, other)
    if old.root != new.root:
        found.append(Change(OTHER, f"attestation goes up to the root {new.root} instead of {old.root}"))
    return found + _number("days for which an attestation counts", old.days, new.days, more_is=LOOSER)


def _signer(one: tuple[str, int, int]) -> str:
    return f"{one[0]}, product {one[1]}, version {one[2]} or later"


def _number(what: str, old: float, new: float, more_is: str) -> list[Change]:
    if old == new:
        return []
    less_is = LOOSER if more_is == STRICTER else STRICTER
    return [Change(more_is if new > old else less_is, f"{what}: {new:g} instead of {old:g}")]


def _end(old: int, new: int) -> list[Change]:
    if old == new:
        return []
    return [Change(LOOSER if new > old else STRICTER, f"in force until {moment(new)} instead of {moment(old)}")]


def _use(old: int | None, new: int | None) -> Change:
    longer = new is None or (old is not None and new > old)
    words = f"the model may be used {'for good' if new is None else f'until {moment(new)}'}"
    return Change(LOOSER if longer else STRICTER, f"{words} instead of {'for good' if old is None else moment(old)}")


def _members(old: Charter, new: Charter) -> list[Change]:
    before = {member.name: member for member in old.members}
    after = {member.name: member for member in new.members}
    found = [Change(OTHER, f"member added: {name}") for name in after if name not in before]
    found += [Change(OTHER, f"member removed: {name}") for name in before if name not in after]
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if one.identity != other.identity:
            found.append(Change(OTHER, f"{name} has other keys: {other.identity.fingerprint}"))
        if one.residency != other.residency:
            found.append(Change(OTHER, f"residency of {name}: {other.residency} instead of {one.residency}"))
        for cap in ("epsilon", "delta"):
            low, high = getattr(one, cap), getattr(other, cap)
            if low is None or high is None:
                if low != high:
                    found.append(
                        Change(LOOSER, f"{cap} of {name} has no cap any more")
                        if high is None
                        else Change(STRICTER, f"{cap} of {name} is capped at {high:g}")
                    )
                continue
            found += _number(f"{cap} of {name}", low, high, more_is=LOOSER)
    return found
