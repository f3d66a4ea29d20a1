"""What a run did, in statements: each from the file that says so, with how far that was checked."""

from __future__ import annotations

import math

from quire.clients.tasks.schema import Categorical, Numeric, Schema
from quire.conf.asked import groups_in
from quire.reports.document import Standing, Statement, Table, gap
from quire.reports.run import Run
from quire.reports.values import counted, figure, mapping, names, number, part, text, word
from quire.simulation.report_words import spans
from quire.strategies.secure_words import NOT_SECURE

_SETTINGS, _JOURNAL, _ABOUT, _CARD = "settings.yaml", "metrics.jsonl", "run.json", "privacy_card.json"
_MOST_COLUMNS, _MOST_ROUNDS = 1000, 5000


def task(run: Run) -> Statement:
    """Say what was learned, and by which algorithm."""
    strategy, training = word(run.setting("strategy", "name")), word(run.setting("training", "name"))
    says = (
        f"Task {word(run.setting('task', 'name'))}, model {word(run.setting('task', 'model'))}, data "
        f"{word(run.setting('data', 'name'))}. Strategy {strategy}, local training {training}.",
        "Each silo trains on its own rows at home and sends an update of the model; rows never leave the silo.",
    )
    return Statement("What is learned", says, _SETTINGS, run.signed_settings)


def columns(run: Run, schema: Schema | None, source: str) -> Statement | Table:
    """Say of which columns a row consists, by the public schema, held against the hash that the run names."""
    title = "Columns of the public schema"
    named = part(run.about, "held_to", "schema")
    if schema is None:
        if run.setting("data", "name") != "files":
            says = f"The shipped data set {word(run.setting('data', 'dataset'), 'of the task')}; no schema of its own."
            return Statement(title, (says,), _SETTINGS, run.signed_settings)
        return gap(title, "--schema schema.yaml, the agreed form of the rows, or --silo.", "No schema was given.")
    same = schema.sha256 == named
    standing = Standing.VERIFIED if same else Standing.UNCHECKED if named is None else Standing.FAILED
    held = "the hash is the one that run.json names" if same else "run.json names another hash"
    where = f"{source}; {held if named is not None else 'run.json names no hash'}"
    if schema.image is not None:
        form = f"Images of {schema.image.height} by {schema.image.width}, {schema.image.channels} channels."
        return Statement(title, (form,), where, standing)
    rows = [(one.name, *_form(one)) for one in schema.columns[:_MOST_COLUMNS]]
    target = schema.target
    kind = f"{target.kind}, {len(target.classes)} classes" if target.classes else target.kind
    rows.append((target.name, "target", kind, "no"))
    shown = tuple(tuple(word(cell) for cell in row) for row in rows)
    left = max(0, len(schema.columns) - _MOST_COLUMNS)
    return Table(title, ("Column", "Kind", "Values", "May be missing"), shown, where, standing, left)


def _form(one: Numeric | Categorical) -> tuple[str, str, str]:
    missing = "yes" if one.missing else "no"
    if isinstance(one, Numeric):
        return "number", f"{one.low:g} to {one.high:g}", missing
    return "category", counted(len(one.categories), "category", "categories"), missing


def participants(run: Run) -> Statement | Table:
    """Say who took part, under which name, in how many rounds."""
    trained = run.journal.trained
    if not trained:
        return gap("Who takes part", "a journal with a first line: metrics.jsonl.", "metrics.jsonl names no silo.")
    stated = {str(part(one, "statement", "silo")): one for one in run.silos}
    rows = tuple(
        (word(name), str(count), figure(part(stated.get(name), "declared_records")) if name in stated else "not said")
        for name, count in trained.items()
    )
    head = ("Silo", "Rounds with its update", "Declared records")
    card = run.by("card") if run.card else Standing.VERIFIED
    standing = run.signed_rounds if card is Standing.VERIFIED else card
    return Table("Who takes part", head, rows, f"{_JOURNAL}, {_CARD}" if run.card else _JOURNAL, standing)


def privacy(run: Run) -> Statement:
    """Say which privacy the run had."""
    if run.privacy == "none":
        none = "privacy=none: no update was clipped or noised; epsilon is infinite."
        return Statement("Differential privacy", (none,), _SETTINGS, run.signed_settings)
    if not run.silos:
        asked = figure(run.setting("privacy", "epsilon"))
        return gap(
            "Differential privacy",
            "a round that is finished, after which the run has a privacy card.",
            f"privacy={run.privacy} with epsilon {asked} was asked for, and there is no card.",
        )
    first = mapping(part(run.silos[0], "statement"))
    told = (number(part(one, "statement", "noise_multiplier")) for one in run.silos)
    noise = sorted(one for one in told if one is not None)
    several = dict.fromkeys(figure(one) for one in (noise[0], noise[-1])) if noise else {"unknown": None}
    says = (
        f"privacy={run.privacy}: {text(run.card.get('verdict'))}",
        f"Unit: one {word(first.get('unit'))}. Delta {figure(first.get('delta'))}, clip {figure(first.get('clip'))}, "
        f"noise multiplier {' to '.join(several)}.",
        text(run.card.get("coverage"), "How many rounds it covers is not said."),
    )
    return Statement("Differential privacy", says, _CARD, run.by("card", "receipts"))


def aggregation(run: Run) -> Statement:
    """Say what the server received."""
    if run.short_cut:
        noise = ""
        if run.privacy == "record":
            noise = ", with that silo's noise in it"
        elif run.privacy.endswith("_distributed"):
            noise = ", with no more than its own share of the noise"
        says = (NOT_SECURE, f"The server saw each silo's update on its own{noise}.")
        return Statement("Aggregation", says, _SETTINGS, run.signed_settings)
    if run.masked:
        groups = groups_in(run.settings)
        what = f"a sum for each of {groups} groups of silos" if groups else "one sum"
        words = f"Updates were summed under masks: the server opened {what} for each round."
        sums = text(part(run.card, "words", "sees", 0), words)
        standing = run.by("card", "receipts") if run.card else run.signed_settings
        return Statement("Aggregation", (sums,), _CARD if run.card else _SETTINGS, standing)
    how = "with that silo's noise in it" if run.privacy == "record" else "in clear"
    one = f"aggregation={run.aggregation}: the server receives each silo's update on its own, {how}."
    return Statement("Aggregation", (one,), _SETTINGS, run.signed_settings)


def rounds(run: Run) -> Statement:
    """Say how many rounds there were, and when."""
    journal = run.journal
    planned = figure(journal.planned if journal.planned is not None else run.setting("strategy", "rounds"))
    says = [f"{counted(len(journal.rounds), 'round')} of {planned} done."]
    if journal.bad:
        says.append(f"{counted(journal.bad, 'line')} of metrics.jsonl cannot be read.")
    return Statement("Rounds", tuple(says), _JOURNAL, run.signed_rounds)


def status(run: Run) -> Statement:
    """Say how the run ended, and when it was."""
    times = f"from {word(run.about.get('started'))} to {word(run.about.get('finished'), 'no end')}"
    says = [f"Status {word(run.about.get('status'))}, {times}, by the server's clock. The server says so."]
    if isinstance(run.about.get("error"), str):
        says.append(f"Why it ended: {text(run.about.get('error'))}")
    return Statement("Status and time", tuple(says), _ABOUT, Standing.UNCHECKED)


def software(run: Run) -> Statement:
    """Say what ran."""
    versions = mapping(run.about.get("versions"))
    if not versions:
        return gap("Software", "run.json with 'versions' and 'code'.", "run.json names no versions.")
    listed = ", ".join(f"{word(name)} {word(version)}" for name, version in list(versions.items())[:20])
    says = f"{listed}. Door: {word(run.about.get('runtime'))}. The server says so."
    return Statement("Software", (says,), _ABOUT, Standing.UNCHECKED)


def code(run: Run) -> Statement:
    """Say which code ran, and whether silos signed for it."""
    guarded = [part(one, "guarded") for one in run.silos]
    says = [f"SHA-256 of the code: {word(run.about.get('code'))}."]
    if guarded:
        says.append(f"{sum(one is True for one in guarded)} of {len(guarded)} silos had a gate that checked it.")
    return Statement("Code", tuple(says), f"{_ABOUT}, receipts", run.by("files", any_of=run.signers))


def preprocessing(run: Run) -> Statement:
    """Say what is computed of rows beside training."""
    way = word(run.setting("data", "preprocessing"))
    words = {
        "public": "data.preprocessing=public: columns are scaled by public bounds; no moment of one leaves a silo.",
        "per_silo": "data.preprocessing=per_silo: each silo scales by its own moments, which stay there.",
        "federated": "data.preprocessing=federated: silos sent moments of their columns, in clear.",
    }.get(way, f"data.preprocessing={way}.")
    return Statement("What leaves a silo beside updates", (words,), _SETTINGS, run.signed_settings)


def epsilons(run: Run) -> Table | None:
    """Return epsilon by silo, as on the card; None where there is none."""
    if not run.silos:
        return None
    rows = tuple(
        (
            word(part(one, "statement", "silo")),
            figure(part(one, "figures", "rdp")),
            figure(part(one, "figures", "pld")),
            figure(part(one, "statement", "delta")),
            figure(part(one, "statement", "epsilon")),
            f"{figure(part(one, 'rounds', 'released'))} of {figure(part(one, 'rounds', 'asked'))}",
            figure(part(one, "if_all_asked", "rdp")),
            figure(part(one, "ledger", "epsilon")) if part(one, "ledger") is not None else "no ledger",
        )
        for one in run.silos
    )
    head = ("Silo", "Epsilon (RDP)", "tight (PLD)", "at delta", "Target", "Rounds", "of all asked", "By its ledger")
    return Table("Epsilon by silo", head, rows, _CARD, run.by("card", "receipts"))


def timeline(run: Run) -> Table | None:
    """Return every round: who took part, who failed and how; None where there is no journal."""
    if not run.journal.lines:
        return None
    rows = []
    for one in run.journal.lines[:_MOST_ROUNDS]:
        event = {"round": "done", "failed": "failed, and ended the run", "resume": "the run went on after this"}[
            one.event
        ]
        event = ("its sum was rejected" if one.replied else "no sum was opened") if one.lost else event
        failed = "; ".join(f"{word(bad.silo)} in {word(bad.stage)}: {word(bad.code)}" for bad in one.failed[:60])
        more = f"; and {len(one.failed) - 60} more" if len(one.failed) > 60 else ""
        rows.append((str(one.number), event, names(() if one.lost else one.replied), (failed + more) or "none"))
    left = max(0, len(run.journal.lines) - _MOST_ROUNDS)
    head = ("Round", "What came of it", "Whose updates were used", "Who failed, by code")
    return Table("Rounds", head, tuple(rows), _JOURNAL, run.signed_rounds, left)


def codes(run: Run) -> Table | None:
    """Return the codes by which silos failed, in the fixed words; None where none did."""
    found: dict[tuple[str, str], list[int]] = {}
    words: dict[str, str] = {}
    for line in run.journal.lines:
        for one in line.failed:
            found.setdefault((one.silo, one.code), []).append(line.number)
            words[one.code] = one.words
    for one in run.journal.enrolment:
        found.setdefault((one.silo, one.code), [])
        words[one.code] = one.words
    if not found:
        return None
    rows = tuple(
        (word(silo), word(code), words[code] or "no code of Quire's", spans(at) if at else "before the first")
        for (silo, code), at in list(found.items())[:500]
    )
    head = ("Silo", "Code", "Which says", "Rounds")
    return Table("Refusals and failures", head, rows, _JOURNAL, run.signed_rounds, max(0, len(found) - 500))


def keys(run: Run, log_key: str | None) -> Table:
    """Return the fingerprints of all keys that anything was signed with."""
    rows: list[tuple[str, str, str]] = []
    if run.roster is not None:
        rows += [("member", word(one.name), one.identity.fingerprint) for one in run.roster.members]
        rows += [("admin of the roster", word(one.name), one.identity.fingerprint) for one in run.roster.admins]
    rows += [("signer of receipts", word(part(one, "statement", "silo")), word(one.get("signer"))) for one in run.silos]
    if log_key is not None:
        rows.append(("transparency log", "the log", log_key))
    where = "roster named" if run.keys.roster is not None else "roster.json"
    standing = run.by("roster") if run.roster is not None else Standing.UNCHECKED
    return Table("Fingerprints of keys", ("What it signs", "Whose", "Fingerprint"), tuple(rows), where, standing)


def roster_line(run: Run) -> str:
    """Say what signatures were held against."""
    if run.simulated:
        return "A simulation's keys follow from its seed: whoever knows the seed can make every signature."
    if run.roster is None:
        return "There is no roster, so that nobody knows whose signatures there are."
    if run.by("roster") is Standing.FAILED:
        return f"Signatures were held against the roster {run.roster.hash}, which does not hold: see the check of it."
    named = "that was named" if run.keys.named else "that lies in the run folder itself, and that nobody has compared"
    return f"Signatures were held against the roster {run.roster.hash}, {named}."


def colluders(run: Run) -> int | None:
    """Return how many silos may side with a lying server, as settings say; None where they leave it to the number."""
    found = number(run.setting("aggregation", "colluders"))
    return None if found is None or math.isinf(found) else int(found)
