"""What a round cost that ended the run: the card counts its sum where one was opened, and its attempts in any case."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shared_runs import BASE, RECORD, card_of, lines_of

import quire
from quire.errors import RunFailed
from quire.simulation.verify import verify_run
from quire.strategies.card import write_card
from quire.strategies.secure_circle import Circle

MASKED = f"{BASE} privacy=record privacy.epsilon=8 privacy.delta=1e-5"
#: The first round that is lost ends the run.
ONCE = "aggregation.attempts=1"


def implausible(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sum of one round be one that no honest silos come to."""
    finish = Circle._finish

    def huge(self: Circle, one: Any, *rest: Any) -> Any:
        silos, total = finish(self, one, *rest)
        if one.line.round == number:
            total[: one.agreement.layout.size] = 2 ** (one.agreement.point.bits - 1) - 1
        return silos, total

    monkeypatch.setattr(Circle, "_finish", huge)


def failing(overrides: str, folder: Path) -> dict[str, Any]:
    with pytest.raises(RunFailed):
        quire.run(overrides, folder)
    (line,) = [line for line in lines_of(folder) if line["event"] == "failed"]
    return line


@pytest.mark.parametrize("run", [RECORD, MASKED], ids=["shared", "masked"])
def test_a_sum_that_was_opened_and_not_used_counts_as_released(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        implausible(3, patch)
        failed = failing(f"{run} strategy.rounds=4 {ONCE}", tmp_path / "failed")
    assert (failed["round"], len(failed["replied"]), len(failed["receipts"])) == (3, 5, 5)
    card = card_of(tmp_path / "failed")
    assert card["run"]["rounds"] == {"planned": 4, "done": 2}
    assert "Round 3 failed and ended the run: its sum was opened, and counts as released." in card["coverage"]
    quire.run(
        f"{run} strategy.rounds=4 runtime.faults=[drop:unmask:4:hospital-1,drop:unmask:4:hospital-2]", tmp_path / "lost"
    )
    lost = card_of(tmp_path / "lost")  # of three sums as well
    for silo, other in zip(card["silos"], lost["silos"], strict=True):
        assert silo["rounds"] == {"asked": 3, "released": 3}
        assert silo["figures"] == other["figures"]
        assert silo["if_all_asked"]["rdp"] == pytest.approx(silo["figures"]["rdp"])
        assert silo["if_all_asked"]["rdp"] < other["if_all_asked"]["rdp"]
    assert verify_run(tmp_path / "failed").wrong == []


def test_of_a_run_that_ends_with_its_first_sum_there_is_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    implausible(1, monkeypatch)
    failing(f"{RECORD} strategy.rounds=4 {ONCE}", tmp_path / "run")
    card = card_of(tmp_path / "run")
    assert card["coverage"].startswith("It covers 0 of 4 planned rounds. Round 1 failed")
    assert card["silos"][0]["rounds"] == {"asked": 1, "released": 1}
    assert card["run"]["model"] == lines_of(tmp_path / "run")[0]["model"]
    assert verify_run(tmp_path / "run").wrong == []


def test_attempts_at_a_round_that_came_to_nothing_are_counted(tmp_path: Path) -> None:
    faults = "runtime.faults=[drop:mask:2:hospital-1,drop:mask:2:hospital-2] aggregation.attempts=3"
    failed = failing(f"{RECORD} strategy.rounds=4 {faults}", tmp_path / "run")
    assert (failed["replied"], failed["receipts"], failed["released"]) == ([], {}, {})
    cohorts = [attempt["cohort"] for attempt in failed["secure"]["attempts"]]
    tried = 1 + sum("hospital-3" in cohort for cohort in cohorts)
    assert tried > 2
    card = card_of(tmp_path / "run")
    assert "no sum of it was opened; the attempts at it count where all attempts do" in card["coverage"]
    quire.run(f"{RECORD} strategy.rounds=4 strategy.fraction_evaluate=0", tmp_path / "whole")
    whole = {silo["statement"]["silo"]: silo for silo in card_of(tmp_path / "whole")["silos"]}
    one = next(silo for silo in card["silos"] if silo["statement"]["silo"] == "hospital-3")
    assert one["rounds"] == {"asked": 2, "released": 1}
    assert tried == 4  # as many as all rounds of the other run
    assert one["if_all_asked"] == whole["hospital-3"]["if_all_asked"]
    assert one["if_alone"] == whole["hospital-3"]["if_alone"]
    assert one["figures"]["rdp"] < whole["hospital-3"]["figures"]["rdp"]
    assert verify_run(tmp_path / "run").wrong == []


def test_nothing_of_it_can_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    implausible(2, monkeypatch)
    failing(f"{RECORD} strategy.rounds=3 {ONCE}", tmp_path / "genuine")

    def found(change: Any) -> str:
        run = shutil.copytree(tmp_path / "genuine", tmp_path / "run", dirs_exist_ok=True)
        lines = lines_of(run)
        change(next(line for line in lines if line["event"] == "failed"))
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        write_card(run)
        return "\n".join(verify_run(run).wrong)

    assert found(lambda line: None) == ""
    assert "not those with a receipt" in found(lambda line: line["receipts"].popitem())
    assert "not those that replied or failed" in found(lambda line: line["cohort"].pop())
    assert "Round 3, hospital-1: the receipt's round" in found(lambda line: line.update(round=3))
    assert "no 'replied' of the right form" in found(lambda line: line.pop("replied"))
