"""A data protection impact assessment of one run, and its record of processing.

Sections follow Article 35(7) of Regulation (EU) 2016/679, the record Article 30(1). What files tell is filled in; what
only people can say is asked; what nobody has said is a gap.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quire.clients.data.silo_file import SiloFile
from quire.clients.tasks.schema import Schema, read_schema
from quire.reports import charter, facts, parts
from quire.reports.details import Details
from quire.reports.document import Document, Item, Notice, Section, Standing, Statement, gap
from quire.reports.inputs import Inputs
from quire.reports.risks import risks
from quire.reports.run import Run
from quire.reports.silo import Silo
from quire.reports.values import counted
from quire.strategies.secure_words import NOT_SECURE

_MB = 2**20
_LEAD = (
    "A draft for the people who answer for the processing. It gathers what the files of one run say, how far that was "
    "verified, and what nobody has said yet. It is no legal advice, and filling every gap does not make it sufficient."
)
_DECISIONS = (
    "What a program cannot decide: whether the purpose justifies the processing, and whether what is left of the risks "
    "is accepted."
)


def dpia(run: Run, silo: Silo | None, details: Details, schema: Path | None, inputs: Inputs, date: str) -> Document:
    """Return the document.

    Parameters
    ----------
    run : Run
    silo : Silo or None
        With it the document holds the silo's own books, and says so.
    details : Details
        What people answered.
    schema : pathlib.Path or None
        The agreed form of the rows; the silo's by default.
    inputs : Inputs
        Gets the schema's file.
    date : str
        The day that the document bears.

    Raises
    ------
    QuireError
        If the schema cannot be read.
    """
    found, source = _schema(silo, schema, inputs)
    sections = (
        _responsible(details),
        _description(run, found, source),
        _record(run, details),
        _necessity(run, silo, details),
        _rights(silo, details),
        Section(
            "Risks and measures (Art. 35(7)(c) and (d))",
            "Each with what stood against it in this run, and what is left in one of five words: low, moderate, high, "
            "not bounded, open. The words follow from the facts by a fixed table and are ours; no law has them.",
            risks(run, silo),
        ),
        _people(details),
        Section("What was verified", "Each check of quire verify, made anew for this document.", (*parts.checks(run),)),
        parts.files(inputs),
    )
    failed = parts.failed(sections, (run,))
    document = Document("Data protection impact assessment", run.name, _LEAD, date, (), sections, failed)
    missing = len(document.gaps)
    top = Notice(
        "level" if missing else "good",
        counted(missing, "gap"),
        "Each is marked below, with what would close it." if missing else "Every question has an answer.",
    )
    return replace(document, notices=(top, *parts.notices(run, silo is not None)))


def _schema(silo: Silo | None, given: Path | None, inputs: Inputs) -> tuple[Schema | None, str]:
    if given is not None:
        inputs.look(given, f"schema: {given.name}", _MB)
        return read_schema(given), f"schema: {given.name}"
    if silo is not None and isinstance(silo.own, SiloFile):
        return silo.own.schema, f"silo: {silo.own.schema_path.name}"
    return None, ""


def _responsible(details: Details) -> Section:
    keys = ("controller", "joint_controllers", "representative", "dpo", "processors")
    return Section("Who is responsible (Art. 26 to 28, 30(1)(a))", "", tuple(map(details.statement, keys)))


def _description(run: Run, schema: Schema | None, source: str) -> Section:
    items: list[Item] = [
        charter.purpose(run),
        facts.task(run),
        facts.columns(run, schema, source),
        facts.participants(run),
        charter.residency(run),
        facts.aggregation(run),
        facts.privacy(run),
        facts.preprocessing(run),
        facts.rounds(run),
        facts.status(run),
        facts.software(run),
        facts.code(run),
        *charter.terms(run),
    ]
    return Section("Systematic description of the processing (Art. 35(7)(a))", "", tuple(items))


def _record(run: Run, details: Details) -> Section:
    keys = (
        "purpose",
        "data_subjects",
        "data_categories",
        "sources",
        "recipients",
        "transfers",
        "retention",
        "security",
    )
    told = Statement(
        "Technical measures (g)",
        (
            f"privacy={run.privacy}, aggregation={run.aggregation}; rows stay at each silo. What each does is said "
            "under the risks.",
            *((NOT_SECURE,) if run.short_cut else ()),
        ),
        "settings.yaml",
        run.signed_settings,
    )
    intro = "Of each controller. Its name stands above."
    return Section("Record of processing (Art. 30(1))", intro, (*map(details.statement, keys), told))


def _necessity(run: Run, silo: Silo | None, details: Details) -> Section:
    keys = ("legal_basis", "special_categories", "necessity", "alternatives")
    items: list[Item] = [details.statement(key) for key in keys]
    if silo is None:
        closes = "--silo silo.yaml, at each silo; then the document holds the silo's own books."
        items.append(gap("Columns and redaction rules", closes, "Each silo alone knows what leaves its connector."))
        items.append(gap("Lineage", closes, "Each silo alone knows how many rows were left out, and why."))
    else:
        rules = silo.rules()
        items += [silo.labels(), silo.columns(), *([rules] if rules is not None else ())]
        items += [silo.policy(), silo.lineage(run.about.get("run")), *silo.ledger(), silo.decisions()]
    return Section("Necessity and proportionality (Art. 35(7)(b))", "", tuple(items))


def _rights(silo: Silo | None, details: Details) -> Section:
    items: list[Item] = [details.statement("information"), details.statement("rights")]
    if silo is None:
        closes = "--silo silo.yaml, at each silo: what it leaves out, and how it knows."
        items.append(gap("Consent, withdrawals, erasure", closes, "Each silo alone knows whose rows it leaves out."))
    else:
        items += [silo.consent(), silo.requests()]
    says = (
        "A request for erasure leaves the subject's rows out of every later message. A model that learned from them is "
        "not mended by that: the silo's lineage names the runs, and a signed attestation says what was done. It is no "
        "proof."
    )
    items.append(Statement("What erasure does", (says,), "docs/consent.md", Standing.FOLLOWS))
    return Section("Rights of data subjects (Art. 12 to 22)", "", tuple(items))


def _people(details: Details) -> Section:
    keys = ("consultation", "dpo_advice", "prior_consultation", "decision", "review")
    return Section("What people decide (Art. 35(2), (9), (11), 36)", _DECISIONS, tuple(map(details.statement, keys)))
