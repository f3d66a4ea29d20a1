"""`quire report audit`: every check with its result; whatever was changed shows; what could not be checked is said."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest
from private_runs import SILOS, journal, rewrite
from report_runs import CHARTER, CONSORTIUM, DAY, LATE, deployed, read, trusted
from typer.testing import CliRunner

from quire.cli import app
from quire.privacy.erasure import ErasureAttestation, TouchedRun
from quire.privacy.identity.keys import PrivateIdentity
from quire.reports.audit import audit
from quire.reports.checks import CHECKS, Keys
from quire.reports.document import Standing
from quire.reports.errors import ReportInput
from quire.reports.inputs import Inputs
from quire.reports.markdown import markdown
from quire.reports.page import page
from quire.reports.run import read_run
from quire.transparency.reading import Entries
from quire.transparency.verify import Place


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return deployed(tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def place(original, tmp_path):
    return shutil.copytree(original, tmp_path / "place")


def report(place, keys=None, attestations=()):
    run, inputs = read(place, keys)
    return audit([run], None, list(attestations), inputs, DAY)


def item(document, section, title):
    (found,) = [one for one in document.sections if one.title == section]
    return next(one for one in found.items if one.title == title)


def standings(document):
    section = next(one for one in document.sections if one.title == "What was checked")
    return {one.title: one.standing for one in section.items}


def test_every_check_is_made_against_the_roster_that_was_named(original):
    document = report(original)
    assert not document.failed
    absent = {"Noise", "Transcripts"}
    assert standings(document) == {
        title: Standing.ABSENT if title in absent else Standing.VERIFIED for title, _ in CHECKS.values()
    }
    assert document.notices[0].title == "Nothing failed"
    assert document.notices[0].text == "Checks: 9 verified, 0 failed, 0 not checked, 2 not applicable."
    assert item(document, "What could not be checked", "Nothing")


def test_what_could_not_be_checked_is_said_with_why(original):
    document = report(original, Keys())
    assert not document.failed
    opened = next(one for one in document.sections if one.title == "What could not be checked")
    assert [one.title for one in opened.items] == ["Roster", "Charter"]
    assert "Name the consortium's with --roster" in opened.items[0].says[1]
    assert "name its versions with --charter" in opened.items[1].says[1]


def test_keys_rounds_and_epsilon(original):
    document = report(original)
    keys = item(document, "Keys", "Fingerprints of keys").rows
    assert ("member", "hospital-1", CONSORTIUM.keys["hospital-1"].public.fingerprint) in keys
    assert ("admin of the roster", "admin", CONSORTIUM.admin.public.fingerprint) in keys
    begin = Entries(Place.of(original / "run").entries).entry(0)
    assert any(row[0] == "transparency log" and len(row[2]) == 64 for row in keys), begin
    rounds = item(document, "Rounds", "Rounds")
    assert (len(rounds.rows), rounds.standing) == (4, Standing.VERIFIED)
    assert rounds.rows[2] == ("3", "done", "hospital-1, hospital-3", "hospital-2 in train: late")
    failures = item(document, "Rounds", "Refusals and failures").rows
    assert failures == ((LATE[0], "late", "no code of Quire's", "3"),)
    epsilons = item(document, "Epsilon", "Epsilon by silo")
    assert [row[0] for row in epsilons.rows] == list(SILOS)
    assert float(epsilons.rows[0][1]) == pytest.approx(3.0, abs=1e-3)
    assert epsilons.standing is Standing.VERIFIED


def test_it_names_every_input_by_its_hash(original):
    document = report(original)
    rows = {row[0]: row[2] for row in document.sections[-1].items[0].rows}
    for name in ("run.json", "settings.yaml", "metrics.jsonl", "log/entries.jsonl", "model.safetensors"):
        assert rows[name] == hashlib.sha256((original / "run" / name).read_bytes()).hexdigest()
    assert {"roster: roster.json", "charter: charter-1.json", "approvals.jsonl"} <= rows.keys()


def _journal(change):
    def apply(place):
        lines = journal(place / "run")
        change(next(line for line in lines if line.get("round") == 2))
        rewrite(place / "run", lines)

    return apply


def _text(name, old, new):
    def apply(place):
        file = place / "run" / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return apply


def _card(place):
    file = place / "run" / "privacy_card.json"
    card = json.loads(file.read_text())
    card["worst"]["rdp"] = 0.1
    file.write_text(json.dumps(card))


def _without(name):
    return lambda place: (place / "run" / name).unlink()


def _fewer_approvals(place):
    file = place / "run" / "approvals.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize(
    ("tamper", "check"),
    [
        (_card, "Privacy card"),
        (_text("settings.yaml", "epsilon: 3.0", "epsilon: 1.0"), "Settings"),
        (_journal(lambda line: line["receipts"].pop("hospital-1")), "Receipts"),
        (_journal(lambda line: line.update(model="0" * 64)), "Receipts"),
        (_text("run.json", '"rounds": 4', '"rounds": 5'), "Model chain"),
        (_text("run.json", '"version": 1', '"version": 2'), "Charter"),
        (_text("log/entries.jsonl", '"kind":"session"', '"kind":"sessiom"'), "Transparency log"),
        (_text("log/checkpoints.txt", "previous ", "previous f"), "Transparency log"),
        (_fewer_approvals, "Approvals"),
        (_without("model.safetensors"), "Model chain"),
        (_without("metrics.jsonl"), "Files"),
        (_text("metrics.jsonl", '"event": "start"', '"event": ['), "Files"),
        (lambda place: (place / "run" / "run.json").write_text("{"), "Files"),
        (lambda place: (place / "run" / "roster.json").write_bytes(b"{}"), "Files"),
    ],
)
def test_whatever_was_changed_shows(place, tamper, check):
    tamper(place)
    document = report(place)
    assert document.failed
    assert standings(document)[check] is Standing.FAILED
    assert document.notices[0].title == "Something failed"
    text = markdown(document)
    assert "It does not verify" in text
    assert f"- **{check}.** *(failed; quire verify)*" in text
    assert page(document).count('class="mark failed"') > 1


def test_another_roster_than_the_run_s_shows(place):
    stranger = PrivateIdentity.from_seed(b"s" * 32)
    from private_runs import Consortium

    other = Consortium(admin=stranger)
    (place / "roster.json").write_bytes(other.signed.encode())
    document = report(place, Keys(place / "roster.json"))
    assert standings(document)["Roster"] is Standing.FAILED
    document = report(place, Keys(None, "0" * 64))
    assert standings(document)["Roster"] is Standing.FAILED


def attestation(silo="hospital-1", key=None):
    runs = ([TouchedRun("7", False, 1, 3, None, "0" * 64)], ["8"], [])
    times = ("2026-11-20T00:00:00+00:00", "2026-11-22T00:00:00+00:00")
    made = ErasureAttestation.sign(silo, "0" * 16, times, 2, runs, "rows deleted", key or CONSORTIUM.keys[silo])
    return made.encode()


def test_attestations_are_checked_against_the_roster(place):
    file = place / "attestation.json"
    file.write_bytes(attestation())
    document = report(place, attestations=[file])
    said = item(document, "Attestations of erasure", f"Attestation {'0' * 16}")
    assert said.standing is Standing.VERIFIED
    assert "run 7, rounds 1 to 3" in said.says[2]
    assert "The operator says: rows deleted" in said.says
    assert any("An attestation, not a proof." in one for one in said.says)
    file.write_bytes(attestation(key=CONSORTIUM.keys["hospital-2"]))
    document = report(place, attestations=[file])
    assert document.failed
    assert item(document, "Attestations of erasure", f"Attestation {'0' * 16}").standing is Standing.FAILED
    file.write_bytes(attestation("hospital-9", CONSORTIUM.keys["hospital-1"]))
    assert report(place, attestations=[file]).failed


def test_a_folder_of_runs_is_one_document(place, tmp_path):
    runs = tmp_path / "runs" / "2026-11-22"
    runs.mkdir(parents=True)
    for name in ("first", "second"):
        shutil.copytree(place / "run", runs / name)
    (runs / "second" / "model.safetensors").unlink()
    (runs / "empty").mkdir()
    out = tmp_path / "audit.md"
    done = CliRunner().invoke(app, ["report", "audit", str(tmp_path / "runs"), "--out", str(out), "--date", DAY])
    assert done.exit_code == 1, done.output
    text = out.read_text()
    assert "# Audit report: 2 runs" in text
    assert re.findall(r"^## \d+\. (\w+): What was checked$", text, re.MULTILINE) == ["first", "second"]
    assert "2. second/metrics.jsonl" in text


def test_the_status_says_what_came_out(place, tmp_path):
    keys, out = trusted(place), tmp_path / "audit.html"
    known = ["--roster", str(keys.roster), "--pin", keys.pin, "--charter", str(keys.charter), "--date", DAY]
    command = ["report", "audit", str(place / "run"), *known, "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.output) == (0, f"Audit report: {out} (1 run)\n")
    before = out.read_bytes()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert out.read_bytes() == before
    _card(place)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "Something does not verify: the document says what." in done.output
    assert b"It does not verify" in out.read_bytes()


def test_a_self_test_of_the_noise_has_no_such_report(place):
    _text("run.json", '"status"', '"selftest": true, "status"')(place)
    with pytest.raises(ReportInput, match="self-test of the noise"):
        read_run(place / "run", Keys(), Inputs())


def test_the_charter_of_the_run_is_the_one_that_was_named(original):
    run, _ = read(original)
    assert run.charter is not None
    assert run.charter.hash == CHARTER.hash
