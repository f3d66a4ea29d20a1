"""``compression``: fewer bytes in a real run, the same in every runtime, and resumed to the same bits."""

import json
import re

import pytest
from killing import die, killed, resumed

import quire
from quire import compose
from quire.errors import SettingsError
from quire.simulation.launch import launch
from quire.strategies.folder import RunFolder

RUN = (
    "task=digits task.model=mlp task.hidden=[16] partition.silos=4 partition.alpha=1 strategy.rounds=6 "
    "strategy.fraction_evaluate=0 output.progress=none output.report=false output.baselines=false"
)


def sent(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["bytes_up"] for line in lines if line["event"] == "round"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    quire.run(RUN, folder)
    return sum(sent(folder))


@pytest.mark.parametrize(("how", "share"), [("eight_bit", 0.45), ("top_k", 0.2)])
def test_fewer_bytes_are_sent_and_any_number_of_workers_sends_the_same(how, share, whole, tmp_path):
    """Small arrays: the headers of three of them are a good part of what is sent."""
    one = quire.run(f"{RUN} compression={how}", tmp_path / "one")
    two = quire.run(f"{RUN} compression={how} runtime.workers=2", tmp_path / "two")
    assert one.model == two.model
    assert sent(tmp_path / "one") == sent(tmp_path / "two")
    assert sum(sent(tmp_path / "one")) < share * whole


def test_a_killed_run_goes_on_with_what_its_silos_had_not_sent_yet(tmp_path):
    overrides, written = f"{RUN} compression=top_k strategy.fraction=0.75", []
    expected = quire.run(overrides, tmp_path / "whole").model

    def arm():
        original = RunFolder._line

        def line_then_die(self, event):
            original(self, event)
            written.append(event)
            if len(written) == 4:
                die()

        RunFolder._line = line_then_die

    killed(overrides, tmp_path / "killed", arm)
    assert resumed(overrides, tmp_path / "killed") == expected


def test_the_report_says_how_many_bytes_were_saved_and_what_that_cost(tmp_path):
    overrides = RUN.replace("output.report=false output.baselines=false", "")
    launch(compose(f"{overrides} compression=top_k compression.kept=0.02"), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "% saved" in page
    assert "Federated, uncompressed" in page
    assert re.search(r"Sending 2\.0\s%\sof each update", page)
    assert "Without compression, the same settings, updates sent whole" in page
    kept = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert "compression" not in kept["plain"]["federated_plain"]["overrides"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("aggregation=secure strategy.min_silos=3", "take compression=none"),
        ("privacy=silo privacy.delta=1e-5", "clipping of privacy=silo"),
        ("privacy=record", "clipping of privacy=record"),
        ("strategy=scaffold", "strategy=scaffold sends more"),
        ("strategy=fednova", "strategy=fednova sends more"),
        ("compression.kept=0", "compression.kept"),
        ("compression.kept=1.5", "compression.kept"),
    ],
)
def test_what_it_cannot_serve_is_refused(more, words):
    with pytest.raises(SettingsError, match=words):
        compose(f"task=digits compression=top_k {more}")
