"""Private runs from end to end: a signed receipt with every reply, a card at the end, the same after a resume."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest

from quire.clients import client_app
from quire.conf.compose import compose
from quire.errors import QuireError
from quire.privacy.receipts import Receipt
from quire.simulation.inline import run_inline
from quire.simulation.report import write_report
from quire.simulation.verify import verify_run
from quire.strategies import card as cards
from tests.support.command_line import command_line
from tests.support.private_runs import Consortium, write_run

RUN = "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=3"
RECORD = f"{RUN} privacy=record privacy.epsilon=4"
SILO = f"{RUN} privacy=silo privacy.epsilon=9 privacy.delta=1e-5"


@pytest.fixture
def quire(monkeypatch, capsys):
    return command_line(monkeypatch, capsys)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rounds(folder):
    return [line for line in lines(folder) if line["event"] == "round"]


@pytest.mark.parametrize("overrides", [RECORD, SILO, RECORD.replace("=4", "=inf")])
def test_every_reply_carries_a_receipt_and_the_run_verifies(tmp_path, overrides):
    run_inline(compose(overrides), tmp_path / "run")
    for line in rounds(tmp_path / "run"):
        assert list(line["receipts"]) == line["replied"] == line["cohort"]
        body = Receipt.decode(base64.b64decode(line["receipts"]["hospital-1"])).body
        assert body["simulated"]
        assert not body["guarded"]
        assert body["records"] == line["silos"]["hospital-1"]["records"]
    found = verify_run(tmp_path / "run")
    assert found.wrong == []
    told = " ".join(found.notes)
    assert ("No guarantee" if "inf" in overrides else "Invalid as a guarantee") in told
    assert "whoever knows the seed" in told


def test_a_run_without_privacy_has_no_card_and_no_receipts(tmp_path):
    run_inline(compose("task=breast_cancer partition.silos=3 strategy.rounds=2"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("privacy_card*"))
    assert not (tmp_path / "run" / "roster.json").exists()
    assert all(line["receipts"] == {} for line in rounds(tmp_path / "run"))


@pytest.mark.parametrize("overrides", [RECORD, SILO])
def test_a_resumed_run_ends_with_the_card_of_one_that_was_never_interrupted(tmp_path, overrides, monkeypatch):
    settings = compose(overrides)
    run_inline(settings, tmp_path / "whole")

    def stopping(*args, **more):
        body = args[2]
        if body.number == 3:
            raise KeyboardInterrupt
        return genuine(*args, **more)

    genuine = client_app.receipt_of
    monkeypatch.setattr(client_app, "receipt_of", stopping)
    with pytest.raises(QuireError):
        run_inline(settings, tmp_path / "cut")
    cut = json.loads((tmp_path / "cut" / "privacy_card.json").read_text())
    assert cut["coverage"] == "It covers 2 of 3 planned rounds."
    assert verify_run(tmp_path / "cut").wrong == []
    monkeypatch.undo()
    run_inline(settings, tmp_path / "cut", resume=True)
    for name in ("privacy_card.json", "privacy_card.html", "roster.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert verify_run(tmp_path / "cut").wrong == []


def test_a_silo_with_a_wrong_receipt_is_a_dropout_by_name(tmp_path, monkeypatch):
    genuine = client_app.receipt_of

    def lying(settings, plan, about, stand):
        data = genuine(settings, plan, about, stand)
        return data.replace(b'"records":152', b'"records":999') if about.silo == "hospital-2" else data

    monkeypatch.setattr(client_app, "receipt_of", lying)
    run_inline(compose(RECORD), tmp_path / "run")
    for line in rounds(tmp_path / "run"):
        assert line["replied"] == ["hospital-1", "hospital-3"] == list(line["receipts"])
        assert [(entry["silo"], entry["code"]) for entry in line["failed"]] == [("hospital-2", "bad_receipt")]
        assert "its signature does not verify" in line["failed"][0]["words"]
    found = verify_run(tmp_path / "run")
    assert found.wrong == []
    card = json.loads((tmp_path / "run" / "privacy_card.json").read_text())
    assert card["coverage"].endswith("No receipt came from hospital-2.")


def test_a_killed_run_has_the_card_of_its_first_rounds(tmp_path):
    """A real kill, in the middle of a round."""
    folder = tmp_path / "run"
    code = (
        "import os, sys\n"
        "from quire.clients import client_app\n"
        "from quire.conf.compose import compose\n"
        "from quire.simulation.inline import run_inline\n"
        "from pathlib import Path\n"
        "genuine = client_app.receipt_of\n"
        "def deadly(settings, plan, about, stand):\n"
        "    if about.number == 3: os.kill(os.getpid(), 9)\n"
        "    return genuine(settings, plan, about, stand)\n"
        "client_app.receipt_of = deadly\n"
        "run_inline(compose(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, RECORD, str(folder)], env=os.environ, capture_output=True)
    assert ended.returncode == -9, ended.stderr.decode()[-2000:]
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    found = verify_run(folder)
    assert found.wrong == []
    assert json.loads((folder / "privacy_card.json").read_text())["run"]["rounds"]["done"] >= 1


def test_a_card_that_cannot_be_written_does_not_take_the_run_down(tmp_path, monkeypatch, caplog):
    def full(path, content, sync=True):
        raise OSError(28, "No space left on device")

    run_inline(compose(RECORD), tmp_path / "run")
    monkeypatch.setattr(cards.checkpoint, "replace", full)
    assert not cards.write_card(tmp_path / "run")
    assert "There is no privacy card" in caplog.text


def test_the_command_says_what_it_found_and_ends_with_1_where_something_is_wrong(tmp_path, quire):
    folder = tmp_path / "run"
    run_inline(compose(RECORD), folder)
    status, out, _ = quire("verify", str(folder))
    assert status == 0
    assert out.endswith("Verified.\n")
    status, _, err = quire("verify", str(folder), "--pin", "0" * 64)
    assert status == 1
    assert "the pin is 0000" in err
    card = json.loads((folder / "privacy_card.json").read_text())
    card["silos"][1]["figures"]["rdp"] = card["worst"]["rdp"] = 0.1
    (folder / "privacy_card.json").write_text(json.dumps(card))
    status, out, err = quire("verify", str(folder))
    assert status == 1
    assert "Verified" not in out
    assert "Does not verify: 2 discrepancies" in err
    assert "card.silos[1].figures.rdp is given as 0.1" in err
    assert "card.worst.rdp" in err
    status, _, err = quire("verify", str(tmp_path / "nothing"))
    assert status == 2
    assert "is not the folder of a run" in err


def test_verifying_imports_no_torch(tmp_path):
    run_inline(compose(RECORD), tmp_path / "run")
    code = (
        "import sys\nfrom quire import cli\nsys.argv = ['quire', 'verify', sys.argv[1]]\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'ray', 'opacus'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=os.environ, check=True)


@pytest.mark.parametrize("overrides", [RECORD, SILO])
def test_the_report_shows_privacy_and_labels_what_only_a_simulator_can_show(tmp_path, overrides):
    folder = tmp_path / "run"
    run_inline(compose(overrides), folder)
    page = write_report(folder).read_text()
    assert 'href="privacy_card.html"' in page
    assert "Invalid as a guarantee" in page
    assert "Signal-to-noise" in page
    assert "Clipped share" in page
    assert page.count("Simulator only: a deployment cannot show this") >= 4
    assert "no noise, no secure aggregation" not in page
    assert "no words of its own" not in page
    trusted = "The server is trusted" if overrides == SILO else "Nobody is trusted with the records"
    assert trusted in page


def test_the_report_of_a_deployment_leaves_out_what_only_a_simulator_can_show(tmp_path):
    page = write_report(write_run(tmp_path / "run", Consortium())).read_text()
    assert "Every record has epsilon" in page
    assert "quire verify" in page
    assert "Simulator only" not in page
    assert "Signal-to-noise" not in page
    assert "Learning, round by round" not in page
    assert "what it bought, only they can tell" in page
