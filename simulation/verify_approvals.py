"""What ``quire verify`` asks of approvals: signed by whom the roster says, about this run, and those that were logged.

The server logs what operators have decided before it puts their statements into the run folder. So a statement that
lies there and is not in the log came there by another way, and one that is in the log and not in the folder was taken
away, unless the server was killed between the two: then the run that it is about has no rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quire.conf.schema import Settings
from quire.privacy.approval import MAX_BYTES, ApprovalStatementError, Statement
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.roster import Roster
from quire.privacy.receipts import settings_hash
from quire.strategies.approvals import APPROVALS_FILE
from quire.strategies.run_log import word
from quire.transparency.entries import Entry

#: A decision as a log has it: Flower's number of the run, silo, decision, and the hash that binds it to the run.
_Decision = tuple[str, str, str, str]


def check_approvals(
    folder: Path,
    about: Mapping[str, Any],
    settings: Settings | None,
    roster: Roster | None,
    entries: Sequence[Entry] | None,
) -> tuple[list[str], list[str]]:
    """Hold the approvals in a run folder against settings, code, roster and log.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.
    about : mapping
        What ``run.json`` says.
    settings : Settings or None
        As composed anew; None if they cannot be trusted, which is said elsewhere.
    roster : Roster or None
        With the keys that sign; None where there is none, which is said elsewhere.
    entries : sequence of quire.transparency.entries.Entry or None
        Of the run's log, once that is verified; None where there is none.

    Returns
    -------
    list of str
        Every discrepancy in one sentence.
    list of str
        What holds, and what a reader has to know.
    """
    statements, wrong = _read(folder / APPROVALS_FILE)
    for statement in statements:
        wrong += [f"{_words(statement)} {what}." for what in _contradictions(statement, about, settings, roster)]
    told = Counter(_decision(statement) for statement in statements)
    twice = Counter((run, silo) for run, silo, _, _ in told.elements())
    wrong += [
        f"{APPROVALS_FILE} has more than one decision of {silo} about run {run}."
        for (run, silo), count in twice.items()
        if count > 1
    ]
    notes = [f"Approvals: {len(statements)} statements, signed by their silos."] if statements and not wrong else []
    if entries is None:
        others = sorted({statement.body["run"] for statement in statements} - {str(about.get("run"))})
        if others:
            notes.append(
                f"{APPROVALS_FILE} has decisions about run {', '.join(others)}, and there is no log that tells whether "
                "the run in this folder once had that number."
            )
        return wrong, notes
    logged = {_logged(entry) for entry in entries if entry.kind == "approval"}
    wrong += [
        f"{_words(statement)} is not in the log." for statement in statements if _decision(statement) not in logged
    ]
    begun = _with_rounds(entries)
    for run, silo, decision, what in sorted(logged - set(told)):
        words = f"The log says that {silo} has {decision} run {run} ({what[:16]}), and {APPROVALS_FILE} does not"
        if run in begun:
            wrong.append(f"{words}: its statement was taken away, or changed.")
        else:
            notes.append(f"{words}: the server stopped before that run had a round.")
    return wrong, notes


def _with_rounds(entries: Sequence[Entry]) -> set[str]:
    """Return the runs that had rounds of their own.

    A run that goes on where another one was killed logs first, under its own number, what that one's last round left in
    the journal: before its session come another run's rounds, and behind it their lines of the journal alone.
    """
    opened, found = set(), set()
    for entry in entries:
        if entry.kind == "session":
            opened.add(entry.run)
        elif entry.round and entry.kind != "journal" and entry.run in opened:
            found.add(entry.run)
    return found


def _read(path: Path) -> tuple[list[Statement], list[str]]:
    """Read the statements of a run folder, and say which lines are none."""
    found: list[Statement] = []
    wrong: list[str] = []
    if not path.exists():
        return found, wrong
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_BYTES + 1):
            number += 1
            try:
                found.append(Statement.decode(line.removesuffix(b"\n")))
            except ApprovalStatementError as error:
                wrong.append(f"Line {number} of {APPROVALS_FILE} is not what a silo has stated: {error}")
                if not line.endswith(b"\n"):
                    break
    return found, wrong


def _contradictions(
    statement: Statement, about: Mapping[str, Any], settings: Settings | None, roster: Roster | None
) -> Iterator[str]:
    binding = statement.binding
    if binding.code != about.get("code"):
        yield "is about a run of other code than run.json names"
    if settings is not None and binding.settings != settings_hash(settings.as_dict()):
        yield "is about a run with other settings"
    if roster is None:
        return
    if binding.roster not in (None, roster.hash):  # None: that silo has pinned none
        yield "is about a run under another roster"
    try:
        member = roster.member(statement.body["silo"])
        statement.check(member.identity)
        if not member.active(statement.body["time"]):
            yield "was signed when the silo's key was not valid"
    except (ApprovalStatementError, IdentityError) as error:
        yield f"does not hold: {str(error).rstrip('.')}"


def _decision(statement: Statement) -> _Decision:
    told = statement.body
    return told["run"], word(told["silo"]), told["decision"], statement.binding.hash


def _logged(entry: Entry) -> _Decision:
    return entry.run, entry.body["silo"], entry.body["decision"], entry.body["what"]


def _words(statement: Statement) -> str:
    told = statement.body
    return f"In {APPROVALS_FILE}: that {told['silo'][:80]} has {told['decision']} run {told['run']}"
