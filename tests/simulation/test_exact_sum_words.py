"""Nothing that a run leaves behind passes the short cut off as secure aggregation."""

import json

import pytest
import yaml
from secure_runs import ONE, PRIVATE

import quire
from quire.simulation.report import write_report
from quire.simulation.sweep_page import write_sweep_page
from quire.simulation.verify import verify_run
from quire.strategies.secure_words import NOT_SECURE

EXACT = "aggregation=secure aggregation.simulate=exact_sum"
SHARED = "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2"
#: What is said of masks, and may not be said of this.
CLAIMS = ("It sees no silo's update", "neither does anybody else", "it rests on the masks", "no update on its own")


@pytest.fixture(scope="module", params=["", PRIVATE, SHARED], ids=["plain", "record", "record_distributed"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    quire.run(f"{ONE} {EXACT} {request.param}", folder)
    return folder


def plain(page):
    return page.replace("&#39;", "'").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def test_run_json_and_the_journal_say_it(run):
    about = json.loads((run / "run.json").read_text())
    assert about["secure_aggregation"] == "none: aggregation.simulate=exact_sum, a short cut for simulations"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["secure"]["simulate"] for line in lines if line["event"] == "round"] == ["exact_sum"]


def test_the_report_says_it(run):
    text = plain(write_report(run).read_text())
    assert "No secure aggregation: a short cut" in text
    assert "no secure aggregation: exact_sum" in text
    assert NOT_SECURE in text
    assert "nothing was masked" in text
    assert not [claim for claim in CLAIMS if claim in text]


@pytest.mark.parametrize("run", [PRIVATE, SHARED], ids=["record", "record_distributed"], indirect=True)
def test_the_card_and_verify_say_it(run):
    card = json.loads((run / "privacy_card.json").read_text())
    assert card["standing"] == "simulation"
    assert card["run"]["aggregation"].startswith("not secure (aggregation.simulate=exact_sum")
    assert "It had no secure aggregation" in card["verdict"]
    assert "The same run with real silos and the whole protocol would state" in card["verdict"]
    assert card["words"]["sees"][0] == NOT_SECURE
    page = plain((run / "privacy_card.html").read_text())
    assert NOT_SECURE in page
    assert not [claim for claim in CLAIMS if claim in page]
    found = verify_run(run)
    assert found.wrong == []
    assert NOT_SECURE in found.notes
    assert card["verdict"] == found.notes[0]


@pytest.mark.parametrize("run", [PRIVATE, SHARED], ids=["record", "record_distributed"], indirect=True)
def test_a_journal_that_hides_it_does_not_verify(run, tmp_path):
    for name in run.iterdir():
        if name.is_file():
            (tmp_path / name.name).write_bytes(name.read_bytes())
    journal = tmp_path / "metrics.jsonl"
    journal.write_text(journal.read_text().replace(', "simulate": "exact_sum"', ""))
    assert any("not made as the settings say" in words for words in verify_run(tmp_path).wrong)
    settings = tmp_path / "settings.yaml"
    settings.write_text(settings.read_text().replace("exact_sum", "protocol"))
    assert any("the receipt's" in words for words in verify_run(tmp_path).wrong)


def test_the_page_of_a_sweep_says_it(run, tmp_path):
    sweep = tmp_path / "sweep"
    for number, exact in enumerate((True, False)):
        job = sweep / str(number)
        job.mkdir(parents=True)
        for name in ("run.json", "metrics.jsonl"):
            (job / name).write_bytes((run / name).read_bytes())
        tree = yaml.safe_load((run / "settings.yaml").read_text())
        tree["aggregation"]["simulate"] = "exact_sum" if exact else "protocol"
        (job / "settings.yaml").write_text(yaml.safe_dump(tree))
        record = {"job": number, "overrides": [f"seed={number}"], "pid": 1, "status": 0, "seconds": 1.0}
        (job / "job.json").write_text(json.dumps(record))
    (sweep / "sweep.json").write_text(json.dumps({"status": "completed", "args": ["-m", "seed=0,1"], "planned": 2}))
    assert (
        "1 of 2 jobs had NO secure aggregation: aggregation.simulate=exact_sum" in write_sweep_page(sweep).read_text()
    )
    (sweep / "0" / "settings.yaml").write_bytes((sweep / "1" / "settings.yaml").read_bytes())
    assert "NO secure aggregation" not in write_sweep_page(sweep).read_text()
