"""`quire verify` on rounds under masks that were lost: honest ones pass, and nothing released can be called lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shared_runs import BASE, RECORD, card_of, lines_of

import quire
from quire.simulation.verify import verify_run
from quire.strategies.card import write_card

MASKED = f"{BASE} privacy=record privacy.epsilon=8 privacy.delta=1e-5"
LOSING = "strategy.rounds=3 runtime.faults=[drop:unmask:2:hospital-1,drop:unmask:2:hospital-2]"


@pytest.fixture(scope="module", params=[RECORD, MASKED], ids=["shared", "masked"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    quire.run(f"{request.param} {LOSING}", folder)
    return folder


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "run")


def rewritten(run: Path, lines: list[dict[str, Any]]) -> str:
    """What is found once the journal is another, and the card made to suit it, as its forger would."""
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_card(run)
    return "\n".join(verify_run(run).wrong)


def test_an_honest_run_with_a_lost_round_verifies(run: Path) -> None:
    lines = [line for line in lines_of(run) if line["event"] == "round"]
    assert ["lost" in line for line in lines] == [False, True, False]
    assert verify_run(run).wrong == []
    silo = card_of(run)["silos"][0]
    assert silo["rounds"] == {"asked": 3, "released": 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lost": ""}, "without a word why"),
        ({"lost": None}, "without a word why"),
        ({"model": "0" * 64}, "another model than the round before"),
        ({"released": {"probes": 31.0}}, "replies, receipts or probes are told of it"),
    ],
)
def test_a_lost_round_that_is_none_is_found(change: dict[str, Any], words: str, run: Path) -> None:
    lines = lines_of(run)
    lines[2] |= change
    assert words in rewritten(run, lines)


def test_a_round_that_was_released_cannot_be_called_lost(run: Path) -> None:
    lines = lines_of(run)
    lines[3]["lost"] = "the server says so."
    assert "replies, receipts or probes are told of it" in rewritten(run, lines)
    lines[3] |= {"replied": [], "receipts": {}, "released": {}}
    assert "another model than the round before" in rewritten(run, lines)


def test_a_lost_round_that_is_not_called_so_is_found(run: Path) -> None:
    lines = lines_of(run)
    if "distributed" in lines[0]:
        del lines[2]["lost"]
        assert "does not say what the noise probes came to" in rewritten(run, lines)
