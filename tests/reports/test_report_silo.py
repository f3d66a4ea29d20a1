"""What a silo keeps to itself stands in a document only where its own file was named, and the document says so."""

from __future__ import annotations

import shutil
import stat

import pytest
from consenting import CONSENT, Consenting
from private_runs import write_run
from real_silo import RealSilo
from report_runs import CONSORTIUM, DAY, deployed, notices, read, residual, said
from typer.testing import CliRunner

from quire.cli import app
from quire.clients.data.consent.requests import record
from quire.reports.audit import audit
from quire.reports.checks import Keys
from quire.reports.details import Details
from quire.reports.document import Standing
from quire.reports.dpia import dpia
from quire.reports.inputs import Inputs
from quire.reports.markdown import markdown
from quire.reports.page import page
from quire.reports.run import read_run
from quire.reports.silo import read_own

RULES = (
    "columns: {allow: [patient, age, sick], rules: {age: {bucket: {width: 10}}, name: drop}, confirmed: "
    '"A. Vogel, 2026-11-22"}\n'
    "dataset: {sensitivity: confidential, purposes: [Only the heart.]}\n"
)
SECRET = ("p1", "population clinic", "withdrawn", "Only the heart.", "A. Vogel")
TITLE = "Contains the silo's own books: do not give away"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, and a silo of a run of the same number that has trained, was charged, and left rows out."""
    home = deployed(tmp_path_factory.mktemp("deployed"))
    (home / "silo").mkdir()
    silo = Consenting(home / "silo")
    silo.run = 7
    silo.withdraw("p1", "p2")
    RealSilo.write(silo, CONSENT)
    assert silo.code() == "ANSWERED"
    RealSilo.write(silo, f"{CONSENT}{RULES}")
    record(silo.place, "p3", "patient")
    return home


@pytest.fixture
def copy(place, tmp_path):
    return shutil.copytree(place, tmp_path / "place")


def made(place):
    inputs = Inputs()
    silo = read_own(place / "silo" / "silo.yaml", inputs)
    run, _ = read(place)
    return dpia(run, silo, Details(), None, inputs, DAY), audit([run], silo, [], inputs, DAY)


def test_the_silo_s_own_books_are_filled_in_and_the_document_is_marked(place):
    document, report = made(place)
    assert not document.failed
    assert not report.failed
    for one in (document, report):
        assert "no other party may see" in notices(one)[TITLE]
    assert said(document, "Columns that leave the connector").says[0] == "age, patient, sick."
    assert said(document, "Columns that leave the connector").says[2] == "Confirmed: A. Vogel, 2026-11-22."
    assert said(document, "Redaction rules").says == ("age: the middle of its interval, 10 wide.",)
    assert said(document, "Consent").says[1].startswith("Opt-out")
    lineage = said(document, "Lineage of this run")
    row = dict(zip(lineage.head, lineage.rows[0], strict=True))
    assert (row["Round"], row["Rows that came in"], row["left out: withdrawn"]) == ("1", "60", "2")
    assert said(document, "Requests for erasure").says == ("1 request recorded, 0 of them attested.",)
    ledger = said(document, "Privacy ledger of clinic")
    assert ledger.standing is Standing.VERIFIED
    assert "of 4, over all runs." in ledger.says[1]
    assert said(report, "Entries of clinic, by run").rows[0][3] == "1"
    assert residual(document, "Use against a person's will").says[0] == "Moderate."
    names = [row[0] for row in document.sections[-1].items[0].rows]
    assert {"silo: silo.yaml", "silo: schema.yaml", "silo: store/ledger/clinic.jsonl"} <= set(names)
    assert "silo: store/consent/lineage.jsonl" in names
    assert str(place) not in page(document) + markdown(report)


def test_without_it_no_document_tells_of_them(place):
    run, inputs = read(place)
    document, report = dpia(run, None, Details(), None, inputs, DAY), audit([run], None, [], inputs, DAY)
    for text in (page(document), markdown(document), page(report), markdown(report)):
        assert TITLE not in text
        assert not [one for one in SECRET if f" {one}" in text and one != "withdrawn"]
    assert {"Lineage", "Columns and redaction rules"} <= {one.title for one in document.gaps}
    inside, _ = made(place)
    shown = markdown(inside)
    assert all(one in shown for one in SECRET if one not in ("p1", "population clinic"))
    assert "p1" not in shown  # nobody's id, not even here


def test_a_ledger_that_was_changed_fails(copy):
    ledger = copy / "silo" / "store" / "ledger" / "clinic.jsonl"
    ledger.write_text(ledger.read_text().replace('"round":1', '"round":2'))
    document, report = made(copy)
    assert document.failed
    assert report.failed
    assert said(report, "Privacy ledger").standing is Standing.FAILED
    assert "It does not hold: " in said(report, "Privacy ledger").says[0]
    assert str(copy) not in page(report)


def test_lineage_that_was_changed_fails(copy):
    lineage = copy / "silo" / "store" / "consent" / "lineage.jsonl"
    lineage.write_text(lineage.read_text().replace('"came":60', '"came":61'))
    document, _ = made(copy)
    assert document.failed
    assert said(document, "Lineage").standing is Standing.FAILED
    assert str(copy) not in page(document)


def test_a_silo_without_books_has_gaps(tmp_path):
    write_run(tmp_path / "run", CONSORTIUM, rounds=1)
    (tmp_path / "silo").mkdir()
    RealSilo(tmp_path / "silo")
    inputs = Inputs()
    silo = read_own(tmp_path / "silo" / "silo.yaml", inputs)
    document = dpia(read_run(tmp_path / "run", Keys(), inputs), silo, Details(), None, inputs, DAY)
    gaps = {one.title for one in document.gaps}
    assert {"Labels of the data set", "Columns that leave the connector", "Consent", "Lineage"} <= gaps
    assert said(document, "Privacy ledger").says == ("The store has no ledger yet: nothing was charged.",)
    assert "There is no list of columns" in said(document, "Columns that leave the connector").says[0]


def test_only_the_owner_can_read_a_document_with_a_silo_s_books(place, tmp_path):
    out = tmp_path / "own.md"
    command = ["report", "dpia", str(place / "run"), "--silo", str(place / "silo" / "silo.yaml"), "--date", DAY]
    done = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert TITLE in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["own.md"]
