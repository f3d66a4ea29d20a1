"""One silo adds more than honest ones can: its round is rejected, the model stays, nobody is named, the run goes on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from giant_silos import adds, backwards, giant
from killing import die, killed, resumed
from secure_runs import BASE, rounds_of
from shared_runs import RECORD, SILO, card_of

import quire
from quire.errors import RunFailed
from quire.privacy.secagg.plausible import largest_norm
from quire.simulation import secure_section
from quire.simulation.report import write_report
from quire.simulation.report_data import read_run
from quire.simulation.verify import verify_run
from quire.simulation.verify_transcripts import audit_run
from quire.strategies.card import write_card
from quire.strategies.folder import RunFolder
from tests.simulation.test_report import page_of

BOUND = f"{BASE} aggregation=secure aggregation.norm_bound=0.5"
CLIPPED = f"{BOUND} strategy.rounds=3"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "robust-aggregation.md").read_text(encoding="utf-8")
KEPT = f"{CLIPPED} output.transcripts=true"
SHARED = f"{RECORD} strategy.rounds=3"


@pytest.fixture(scope="module", params=[KEPT, SHARED], ids=["clipped", "shared"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds of five silos, one of which adds an eighth of the ring to the second sum."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        adds(patch, "hospital-5", giant, (2,))
        quire.run(request.param, folder)
    return folder


def rewritten(original: Path, folder: Path, number: int, change: Any) -> Path:
    """The run with another line in its journal."""
    run = shutil.copytree(original, folder / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    change(next(line for line in lines if line["event"] == "round" and line["round"] == number))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_card(run)
    return run


def test_the_round_is_rejected_the_model_stays_and_the_run_goes_on(attacked: Path) -> None:
    first, second, third = rounds_of(attacked)
    assert first["model"] == second["model"] != third["model"]
    assert second["lost"].startswith("its sum was opened and rejected, because the sum is ")
    assert second["lost"].endswith("somebody adds what no honest silo adds; a sum does not tell who.") or (
        "many more records than were declared; a sum does not tell who." in second["lost"]
    )
    assert second["secure"]["rejected"] is True
    assert "reach" not in second["secure"]
    for line in (first, third):
        assert "lost" not in line
        assert "rejected" not in line["secure"]
        assert 0.0 < line["secure"]["reach"] <= 1.0
    assert [len(line["replied"]) for line in (first, second, third)] == [5, 5, 5]  # all follow the chain past it
    assert [line["failed"] for line in (first, second, third)] == [[], [], []]
    assert all(attempt["blame"] == [] for attempt in second["secure"]["attempts"])
    assert json.loads((attacked / "run.json").read_text())["status"] == "completed"


def test_the_report_says_so_and_how_far_the_other_sums_reached(attacked: Path) -> None:
    found = secure_section.section(read_run(attacked))
    assert found is not None
    (sentence,) = found["alarm"].rejected
    assert sentence == f"Round 2: {rounds_of(attacked)[1]['lost']}"
    assert [row["outcome"] for row in found["rounds"]] == ["opened", "opened, rejected", "opened"]
    assert found["verdict"].startswith("One sum a round was opened, over 5 of 5 hospitals: the server saw three sums")
    noisy = (attacked / "privacy_card.json").exists()
    by = "their clip, their number and their noise" if noisy else "aggregation.norm_bound=0.5"
    assert f"by {by}. The largest that was taken reached " in found["alarm"].quiet


def test_a_rejected_round_verifies_and_its_sum_counts_as_released(attacked: Path) -> None:
    if (attacked / "privacy_card.json").exists():
        assert verify_run(attacked).wrong == []
        assert card_of(attacked)["silos"][0]["rounds"] == {"asked": 3, "released": 3}
    else:
        found = audit_run(attacked)
        assert found.wrong == []
        assert [one.models for one in found.attempts] == [True, False, True]


def test_what_the_journal_says_of_it_cannot_be_changed(attacked: Path, tmp_path: Path) -> None:
    def wrong(name: str, number: int, change: Any) -> str:
        run = rewritten(attacked, tmp_path / name, number, change)
        return "\n".join((verify_run(run) if (run / "privacy_card.json").exists() else audit_run(run)).wrong)

    honest = wrong(
        "a", 3, lambda line: (line.update(lost="its sum was rejected."), line["secure"].update(rejected=True))
    )
    quiet = wrong("b", 2, lambda line: line.pop("lost"))
    other = wrong("c", 2, lambda line: line["secure"].pop("rejected"))
    if (attacked / "transcripts").exists():
        assert "Round 3: its sum is called rejected, and is one that honest silos can come to, with" in honest
        assert "The sum of round 2 is none: the sum is" in quiet
        assert "it is called lost, and its transcript opens a sum" in other
    else:
        assert "Round 3 is called lost by the alarm, and no sum is told of it, or probes of its noise are." in honest
        assert "Round 2 is called rejected, and not lost." in quiet
        assert "replies, receipts or probes are told of it" in other


def test_the_model_is_that_of_a_run_in_which_the_round_was_lost(attacked: Path, tmp_path: Path) -> None:
    """Nothing of the rejected sum is in it."""
    overrides = SHARED if (attacked / "privacy_card.json").exists() else CLIPPED
    faults = "runtime.faults=[drop:unmask:2:hospital-1,drop:unmask:2:hospital-2]"
    quire.run(f"{overrides} {faults}", tmp_path / "lost")
    assert [line["model"] for line in rounds_of(tmp_path / "lost")] == [line["model"] for line in rounds_of(attacked)]


def test_it_goes_off_under_the_silo_unit_and_in_the_short_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adds(monkeypatch, "hospital-2", giant, (1,))
    quire.run(f"{SILO} strategy.rounds=2 aggregation.simulate=exact_sum", tmp_path / "run")
    first, second = rounds_of(tmp_path / "run")
    assert "clipped vectors of 5 silos with their noise can be: somebody adds" in first["lost"]
    assert first["secure"]["rejected"] is True
    assert "lost" not in second


def test_an_attacker_in_every_round_ends_the_run_by_the_rule_for_lost_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adds(monkeypatch, "hospital-5", giant, (2, 3, 4))
    with pytest.raises(RunFailed, match=r"^Round 4 failed: its sum was .* rejected.*; 3 rounds in a row were lost"):
        quire.run(f"{BOUND} strategy.rounds=6", tmp_path / "run")
    kinds = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in kinds] == ["start", "round", "round", "round", "failed", "end"]
    assert kinds[4]["secure"]["rejected"] is True
    write_report(tmp_path / "run")
    text = page_of(tmp_path / "run").text("section")
    assert "Alarm. Round 2: its sum was opened and rejected, because the sum is" in text
    assert "Alarm. Round 4 failed: its sum was opened and rejected, because the sum is" in text


def test_a_run_in_which_no_round_moved_the_model_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adds(monkeypatch, "hospital-5", giant, (1,))
    with pytest.raises(RunFailed, match="no round of this run has moved its model"):
        quire.run(f"{BOUND} strategy.rounds=1", tmp_path / "run")


def test_an_attacker_just_below_the_bound_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And moves the model as far as all of them together could. It stands in the documentation."""

    def just_below(agreement: Any, honest: np.ndarray) -> np.ndarray:
        integers, size = honest.copy(), agreement.layout.size
        most = largest_norm(agreement.point, 150, 5, agreement.terms.norm_bound)
        integers[:size] = int(most / np.sqrt(size))
        return integers

    adds(monkeypatch, "hospital-5", just_below, (2,))
    quire.run(CLIPPED, tmp_path / "run")
    lines = rounds_of(tmp_path / "run")
    assert all("lost" not in line for line in lines)
    assert 0.3 < lines[1]["secure"]["reach"] <= 1.0


def test_a_run_that_is_killed_after_a_rejected_round_goes_on_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adds(monkeypatch, "hospital-5", giant, (2,))
    overrides = f"{CLIPPED} output.progress=none"
    whole = quire.run(overrides, tmp_path / "whole").model

    def arm() -> None:
        original = RunFolder._line

        def line_then_die(self: RunFolder, event: Any) -> None:
            original(self, event)
            if event.get("round") == 2:
                die()

        RunFolder._line = line_then_die  # type: ignore[method-assign]

    killed(overrides, tmp_path / "run", arm)
    assert resumed(overrides, tmp_path / "run") == whole
    assert ["lost" in line for line in rounds_of(tmp_path / "run")] == [False, True, False]


@pytest.mark.parametrize(
    ("silenced", "after", "rounds", "words"),
    [
        ((1, 2), 1, 2, "Round 2 failed: .*; no round of this run has moved its model"),
        ((2, 3, 4), 3, 6, "Round 4 failed: .*; 3 rounds in a row were lost"),
    ],
)
def test_a_run_that_is_killed_after_a_rejected_round_fails_as_the_whole_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silenced: tuple[int, ...], after: int, rounds: int, words: str
) -> None:
    """The rounds lost before the kill count: else who can have the server started anew goes on for ever."""
    adds(monkeypatch, "hospital-5", giant, silenced)
    overrides = f"{BOUND} strategy.rounds={rounds} output.progress=none"

    def arm() -> None:
        original = RunFolder._line

        def line_then_die(self: RunFolder, event: Any) -> None:
            original(self, event)
            if event.get("round") == after:
                die()

        RunFolder._line = line_then_die  # type: ignore[method-assign]

    killed(overrides, tmp_path / "run", arm)
    with pytest.raises(RunFailed, match=words):
        resumed(overrides, tmp_path / "run")


def test_an_attacker_below_the_bound_in_every_round_is_not_resisted_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = next(text for text in PAGE.splitlines() if text.startswith("quire run") and "norm_bound=0.5" in text)
    page = PAGE.partition("## Groups of silos")[0]
    overrides = f"{command.removeprefix('quire run ')} output.report=false output.baselines=false"
    quire.run(overrides, tmp_path / "honest")
    adds(monkeypatch, "site-5", backwards(4), (1, 2, 3, 4, 5))
    quire.run(overrides, tmp_path / "attacked")
    found = []
    for name in ("honest", "attacked"):
        lines = rounds_of(tmp_path / name)
        assert all("lost" not in line for line in lines)
        found.append(f"{lines[-1]['evaluate']['accuracy']:.2f}")
    assert re.findall(r"accuracy\s(0\.\d\d)", page) == found
