"""A report for an auditor: every check of some runs, what could not be checked, keys, rounds, epsilon, books."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quire.clients.data.consent.attest import check_attestation, read_attestation
from quire.errors import DataError
from quire.privacy.erasure import MAX_BYTES, ErasureAttestation
from quire.privacy.identity.roster import Roster
from quire.reports import charter, facts, parts
from quire.reports.document import Document, Item, Notice, Section, Standing, Statement
from quire.reports.errors import ReportInput
from quire.reports.inputs import Inputs
from quire.reports.run import Run, is_run
from quire.reports.silo import Silo
from quire.reports.values import counted, names, word
from quire.text import TEXT, visible

#: Runs in one document, and folders in which they are looked for.
MOST_RUNS, _MOST_FOLDERS, _DEPTH = 50, 5000, 3
_LEAD = (
    "What was checked of the files of a run, with which keys and with what result; what could not be checked, and why. "
    "It says what the files say: that nothing was left out of them altogether only a log and its witnesses can show."
)


def runs_in(places: Sequence[Path]) -> list[Path]:
    """Return the folders of runs that places name: runs themselves, or folders of runs, in the order of their names.

    Raises
    ------
    ReportInput
        If there is none, or there are too many.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            raise ReportInput(f"There is no folder '{place}': name the folder of a run, or a folder of runs.")
        below = [place] if is_run(place) else _below(place)
        if not below:
            raise ReportInput(f"'{place}' is no run, and holds none: name the folder of a run, or a folder of runs.")
        found += [one for one in below if one not in found]
    if len(found) > MOST_RUNS:
        raise ReportInput(f"There are {len(found)} runs; a document holds at most {MOST_RUNS}: name fewer.")
    return found


def _below(place: Path) -> list[Path]:
    found: list[Path] = []
    level, looked = [place], 0
    for _ in range(_DEPTH):
        below: list[Path] = []
        for folder in level:
            for one in sorted(folder.iterdir()):
                looked += 1
                if looked > _MOST_FOLDERS or one.is_symlink() or not one.is_dir() or one.name.startswith("."):
                    continue
                (found if is_run(one) else below).append(one)
        level = below
    return found


def audit(runs: Sequence[Run], silo: Silo | None, attestations: Sequence[Path], inputs: Inputs, date: str) -> Document:
    """Return the document.

    Parameters
    ----------
    runs : sequence of Run
        At least one.
    silo : Silo or None
        With it the document holds the silo's own books, and says so.
    attestations : sequence of pathlib.Path
        Attestations of erasure.
    inputs : Inputs
        Gets the attestations' files.
    date : str
        The day that the document bears.

    Raises
    ------
    ReportInput
        If an attestation cannot be read.
    """
    sections: list[Section] = []
    for run in runs:
        sections += _of_run(run, f"{run.name}: " if len(runs) > 1 else "")
    if silo is not None:
        items: list[Item] = [*silo.ledger(), silo.policy(), silo.decisions(), silo.requests()]
        items += [silo.lineage(run.about.get("run")) for run in runs]
        sections.append(Section(f"The books of {silo.name}", "Of this silo alone.", tuple(items)))
    if attestations:
        said = tuple(_attested(path, runs, inputs) for path in attestations)
        sections.append(Section("Attestations of erasure", "What silos say they did. None of them is a proof.", said))
    sections.append(parts.files(inputs))
    failed = parts.failed(sections, runs)
    every = [one for run in runs for one in run.checks.values()]
    counts = ", ".join(
        f"{sum(one.standing is standing for one in every)} {standing.value}"
        for standing in (Standing.VERIFIED, Standing.FAILED, Standing.UNCHECKED, Standing.ABSENT)
    )
    top = Notice("bad" if failed else "good", "Something failed" if failed else "Nothing failed", f"Checks: {counts}.")
    notices = dict.fromkeys(one for run in runs for one in parts.notices(run, silo is not None))
    title = runs[0].name if len(runs) == 1 else counted(len(runs), "run")
    return Document("Audit report", title, _LEAD, date, (top, *notices), tuple(sections), failed)


def _of_run(run: Run, prefix: str) -> list[Section]:
    checks = parts.checks(run)
    opened = tuple(one for one in checks if one.standing is Standing.UNCHECKED)
    timeline, codes, epsilons = facts.timeline(run), facts.codes(run), facts.epsilons(run)
    about: list[Item] = [facts.task(run), facts.privacy(run), facts.aggregation(run), facts.rounds(run)]
    about += [facts.code(run), facts.status(run), facts.software(run), _settings(run)]
    epsilon: list[Item] = [epsilons] if epsilons is not None else [facts.privacy(run)]
    agreed: list[Item] = [charter.purpose(run), charter.residency(run), *charter.terms(run)]
    if run.settings.get("charter") is None and run.checks["charter"].standing is Standing.ABSENT:
        agreed = [Statement("Charter", run.checks["charter"].words, "settings.yaml", Standing.ABSENT)]
    nothing = Statement("Nothing", ("Every check that concerns the run was made.",), "quire verify", Standing.FOLLOWS)
    rounds: list[Item] = [one for one in (timeline, codes) if one is not None]
    none = Statement("Rounds", ("There is no journal with rounds in it.",), "metrics.jsonl", Standing.UNCHECKED)
    return [
        Section(f"{prefix}What was checked", "Each check of quire verify.", tuple(checks)),
        Section(f"{prefix}What could not be checked", "And why.", opened or (nothing,)),
        Section(f"{prefix}Which run", "", tuple(about)),
        Section(f"{prefix}Keys", facts.roster_line(run), (facts.keys(run, parts.log_key(run)),)),
        Section(f"{prefix}Rounds", "Failures by the fixed words of their codes.", tuple(rounds) or (none,)),
        Section(f"{prefix}Epsilon", "", tuple(epsilon)),
        Section(f"{prefix}Charter", "", tuple(agreed)),
    ]


def _settings(run: Run) -> Statement:
    says = (f"The overrides that compose to all settings: {visible(str(run.settings.get('overrides')), TEXT)}",)
    return Statement("Settings", says, "settings.yaml", run.signed_settings)


def _attested(path: Path, runs: Sequence[Run], inputs: Inputs) -> Statement:
    name = f"attestation: {path.name}"
    if not path.is_file():
        raise ReportInput(f"There is no file '{path}': --attestation names an attestation of erasure.")
    inputs.look(path, name, MAX_BYTES)
    made = read_attestation(path)
    body = made.body
    touched = [f"run {one['run']}, rounds {one['first']} to {one['last']}" for one in body["runs"]]
    says = [
        f"{word(body['silo'])} about request {word(body['request'])} of {word(body['requested'])}, attested "
        f"{word(body['attested'])}; {counted(body['rounds'], 'round')} trained since.",
        f"Trained on the subject before: {names(touched)}. May have gone on with such a model: "
        f"{names(body['continued'])}. Cannot be told: {names(body['unknown'])}.",
        *((f"The operator says: {visible(body['said'], TEXT)}",) if body["said"] is not None else ()),
        body["statement"],
    ]
    roster = next((run.roster for run in runs if run.roster is not None), None)
    standing, why = _signed(made, roster, any(run.keys.named for run in runs))
    return Statement(f"Attestation {word(body['request'])}", (why, *says), visible(name), standing)


def _signed(made: ErasureAttestation, roster: Roster | None, named: bool) -> tuple[Standing, str]:
    if roster is None:
        return Standing.UNCHECKED, "There is no roster, so that nobody knows whose signature it is."
    member = next((one for one in roster.members if one.name == made.body["silo"]), None)
    if member is None:
        return Standing.FAILED, "The roster has no member of the name under which it is signed."
    try:
        check_attestation(made, member.identity)
    except DataError as error:
        return Standing.FAILED, str(error)
    whose = "the roster that you named" if named else "the run folder's own roster, which nobody has compared"
    return Standing.VERIFIED if named else Standing.UNCHECKED, f"Its signature holds, by {whose}."
