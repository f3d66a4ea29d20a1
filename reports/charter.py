"""What a run's charter says, for a document: purpose, members, places, limits, exit rules; gaps where there is none."""

from __future__ import annotations

from quire.charter.document import Charter
from quire.charter.errors import CharterRefused
from quire.charter.parts import Member
from quire.charter.signed import SignedCharter, signers
from quire.charter.words import capped, moment
from quire.reports.document import Standing, Statement, Table, gap
from quire.reports.run import Run
from quire.reports.values import counted, names, word
from quire.text import TEXT, visible

_TEXT = 2 * TEXT
_NAMED = "--charter, the folder of the charter's versions, to be looked at"
_NONE = "a charter that the members sign (quire charter propose), and runs with charter=HASH"


def source(run: Run) -> str:
    """Return what the document calls the charter."""
    charter = run.charter
    return "charter" if charter is None else f"charter {charter.charter_id}, version {charter.version}"


def missing(run: Run, title: str) -> Statement:
    """Return the gap or the failure that there is in the place of what a charter says, where none is at hand."""
    named = run.settings.get("charter")
    if run.checks["charter"].standing is Standing.FAILED:
        return Statement(title, run.checks["charter"].words, "charter", Standing.FAILED)
    if named is None:
        return gap(title, _NONE, "The run was under no charter, in which members agree on it.")
    return gap(title, _NAMED, f"The run names the charter {word(named)}, which was not given.")


def purpose(run: Run) -> Statement:
    """Say what the run was for."""
    title = "Purpose, as the members signed it"
    if run.charter is None:
        return missing(run, title)
    return Statement(title, (visible(run.charter.purpose, _TEXT),), source(run), run.by("charter"))


def residency(run: Run) -> Statement:
    """Say where the members' records lie."""
    title = "Where records lie"
    if run.charter is None:
        return missing(run, title)
    members = run.charter.members
    if not any(one.residency for one in members):
        return gap(title, "'residency' of each member in the charter.", "The charter says it of no member.")
    says = [f"{visible(one.name)}: {visible(one.residency) if one.residency else 'not said'}." for one in members]
    return Statement(title, (*says, "Declared by the members; no program sees it."), source(run), Standing.DECLARED)


def terms(run: Run) -> list[Statement | Table]:
    """Return all else that the charter says: terms, exit rules, members with their caps and who signed."""
    charter = run.charter
    if charter is None:
        return [missing(run, "Charter")]
    standing, where = run.by("charter"), source(run)
    code = "any that a silo's operator approves"
    if charter.code is not None:
        code = counted(len(charter.code), "listed release")
    approval = "each run, by each silo's operator" if charter.approval == "each_run" else "none needed"
    says = (
        f"Charter {visible(charter.charter_id)}, version {charter.version}, hash {charter.hash}.",
        f"In force from {moment(charter.not_before)} to {moment(charter.not_after)}.",
        f"Tasks: {names(sorted(charter.tasks))}. Privacy: {names(sorted(charter.privacy))}. "
        f"Aggregation: {names(sorted(charter.aggregation))}.",
        f"At least {charter.min_cohort} silos in a sum, of which {charter.colluders} may side with the server.",
        f"Code: {code}. Approval: {approval}.",
        f"{charter.needed} of {len(charter.members)} members have to sign it.",
    )
    end = charter.exit
    until = "for good" if end.use_until is None else f"until {moment(end.use_until)}"
    exit_says = (
        f"Kept: {visible(end.kept, _TEXT)}",
        f"Destroyed: {visible(end.destroyed, _TEXT)}",
        f"The model may be used by: {visible(end.use, _TEXT)}",
        f"The model may be used {until}.",
        "These are declarations of the members; no program enforces them.",
    )
    return [
        Statement("Terms of the charter", says, where, standing),
        Statement("Exit rules of the charter", exit_says, where, Standing.DECLARED),
        _members(run, charter),
    ]


def _members(run: Run, charter: Charter) -> Table:
    chain = run.chain
    signed = None if chain is None else chain.versions[charter.version - 1]
    rows = tuple(
        (
            visible(one.name),
            visible(one.residency) if one.residency else "not said",
            capped(one) or "none",
            _signed(signed, one),
            one.identity.fingerprint,
        )
        for one in charter.members
    )
    head = ("Member", "Records in", "Cap", "Signature", "Fingerprint")
    return Table("Members of the charter", head, rows, source(run), run.by("charter"))


def _signed(signed: SignedCharter | None, member: Member) -> str:
    if signed is None:
        return "unknown"
    try:
        return "holds" if signers(signed, (member,)) else "none"
    except CharterRefused:
        return "does not hold"
