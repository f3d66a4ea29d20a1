"""What both documents have: notices at the top, what was verified, and the files that it was made of."""

from __future__ import annotations

from collections.abc import Sequence

from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PublicIdentity
from quire.reports import facts
from quire.reports.document import Notice, Section, Standing, Statement, Table
from quire.reports.inputs import Inputs
from quire.reports.run import Run
from quire.reports.values import counted, without
from quire.strategies.secure_words import NOT_SECURE, SHORT_CUT
from quire.transparency.errors import LogError
from quire.transparency.reading import Entries
from quire.transparency.verify import Place

OWN_BOOKS = Notice(
    "bad",
    "Contains the silo's own books: do not give away",
    "--silo was given: columns, counts of rows, ledger and decisions stand here that no other party may see. Under "
    "differential privacy counts of rows are covered by no epsilon.",
)
_SIMULATION = Notice(
    "level",
    "A simulation: it guarantees nothing",
    "All rows were read on one machine, and noise and keys come from a seed. What stands here describes what the same "
    "run with real silos would have had.",
)


def notices(run: Run, own: bool) -> list[Notice]:
    """Return what stands at the top about a run."""
    found = [OWN_BOOKS] if own else []
    failed = [one.title for one in run.checks.values() if one.standing is Standing.FAILED]
    if failed:
        text = f"{counted(len(failed), 'check')} failed: {', '.join(failed)}. Rely on nothing here until that is told."
        found.append(Notice("bad", "It does not verify", text))
    if run.simulated:
        found.append(_SIMULATION)
    if run.attack:
        found.append(
            Notice(
                "bad",
                "Attacked on purpose",
                f"A simulation of attack={run.attack}: some of its silos sent what no honest silo sends. Its model is "
                "no result, and no assessment of a run with real silos follows from this one.",
            )
        )
    if run.short_cut:
        found.append(Notice("bad", "No secure aggregation", NOT_SECURE))
    if run.privacy == "none" and not run.masked:
        found.append(_unprotected(run))
    named = run.keys.named and run.by("roster") is Standing.VERIFIED
    found.append(Notice("good" if named else "level", "Whose keys", facts.roster_line(run)))
    return found


def _unprotected(run: Run) -> Notice:
    how = f"privacy=none and {SHORT_CUT}," if run.short_cut else f"privacy=none and aggregation={run.aggregation}"
    return Notice(
        "bad",
        "No privacy, and no masks",
        f"With {how} the server saw every silo's update in clear: the run protected nothing beyond keeping the rows at "
        "home.",
    )


def checks(run: Run) -> list[Statement]:
    """Return every check with what came of it, in words."""
    folders = [run.folder, *(path.parent for path in (run.keys.roster, run.keys.charter) if path is not None)]
    return [
        Statement(
            one.title, (one.asks, *(without(words, *folders) for words in one.words)), "quire verify", one.standing
        )
        for one in run.checks.values()
    ]


def files(inputs: Inputs) -> Section:
    """Return the files that a document was made of."""
    rows = tuple((one.name, str(one.size), one.sha256 or one.trouble or "unreadable") for one in inputs.found)
    bad = any(one.sha256 is None for one in inputs.found)
    table = Table(
        "Input files", ("File", "Bytes", "SHA-256"), rows, "the files", Standing.FAILED if bad else Standing.VERIFIED
    )
    intro = "The same files, with the same date, give this document again, byte for byte."
    return Section("What this was made of", intro, (table,))


def log_key(run: Run) -> str | None:
    """Return the fingerprint of the key that the run's log names; None where there is no log that can be read."""
    if run.troubles or not (run.folder / "log").is_dir():
        return None
    try:
        begin = Entries(Place.of(run.folder / "log").entries).entry(0)
        return PublicIdentity.decode(bytes.fromhex(begin.body["identity"])).fingerprint
    except (LogError, IdentityError, OSError, KeyError, TypeError, ValueError):
        return None


def failed(sections: Sequence[Section], runs: Sequence[Run]) -> bool:
    """Tell whether anything failed to verify."""
    standings = [item.standing for section in sections for item in section.items if isinstance(item, Statement | Table)]
    return Standing.FAILED in standings or any(run.failed for run in runs)
