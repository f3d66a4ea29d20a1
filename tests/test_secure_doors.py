"""Secure aggregation in earnest, through two doors: Flower's simulation engine, and a SuperLink with three SuperNodes.

On the SuperLink one SuperNode is killed in the middle of a round. The model is the plain mean of what the others
train, worked out here without a server's code. On another one SuperNode adds more than honest silos can, beside two
silos in one process each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cheat import variables
from giant_silos import adds, giant
from hospitals import SILOS, Hospitals
from safetensors.numpy import load_file
from secure_runs import BASE, apart, bound_of, rounds_of
from secure_silos import first_model, overrides_of, plain_mean

import quire
from quire.conf.compose import compose
from quire.privacy.secagg.state import Stage
from quire.simulation.flower import run_flower
from quire.simulation.verify_transcripts import audit_run
from quire.strategies.folder import read_about

pytestmark = pytest.mark.slow
OTHERS, VICTIM = ["hospital-1", "hospital-2"], "hospital-3"


@pytest.mark.timeout(600)
def test_flowers_simulation_engine_comes_to_the_inline_model(tmp_path: Path) -> None:
    overrides = f"{BASE} partition.silos=3 strategy.rounds=2 aggregation=secure"
    inline = quire.run(overrides, tmp_path / "inline")
    found = run_flower(compose(f"{overrides} runtime=flower"), tmp_path / "flower")
    assert found.model == inline.model
    assert read_about(tmp_path / "flower")["runtime"] == "flower"
    for mine, theirs in zip(rounds_of(tmp_path / "flower"), rounds_of(tmp_path / "inline"), strict=True):
        assert mine["replied"] == theirs["replied"]
        assert (mine["train"], mine["evaluate"]) == (theirs["train"], theirs["evaluate"])
        (attempt,) = mine["secure"]["attempts"]
        assert attempt["error"] is None
        assert attempt["u3"] == [f"hospital-{place}" for place in (1, 2, 3)]


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(1800)
def test_a_supernode_is_killed_in_the_middle_of_a_round(hospitals: Hospitals) -> None:
    overrides = overrides_of(SILOS, 1, "runtime.join_timeout=300 output.transcripts=true")
    hospitals.start()
    hospitals.submit(overrides)
    # It has begun the round, and dies while it trains, deals or masks.
    hospitals.wait(lambda: Stage.SHARED in hospitals.stages(VICTIM), 800.0)
    hospitals.kill(VICTIM)
    hospitals.wait(lambda: (hospitals.run / "run.json").exists(), 10.0)
    hospitals.wait(lambda: read_about(hospitals.run)["status"] != "running", 800.0)
    about, (line,) = read_about(hospitals.run), rounds_of(hospitals.run)
    assert (about["status"], about["error"], about["runtime"]) == ("completed", None, "deployment"), hospitals.logs()

    assert line["replied"] in (OTHERS, [*OTHERS, VICTIM])  # with it, if its vector had left before it was killed
    expected = plain_mean(overrides, first_model(overrides), line["replied"], 1)
    bound = bound_of(overrides, 120 * len(line["replied"]), len(line["replied"]))  # each silo has more than 120 rows
    assert apart(expected, load_file(hospitals.run / "model.safetensors")) <= bound + 1e-6  # float32
    assert {one["silo"] for one in line["failed"]} == {VICTIM}

    assert line["silos"] == {}  # no silo's own figures: not its rows, its loss nor its scores
    assert line["evaluate"] is None
    assert [hospitals.stages(name).count(Stage.UNMASKED) for name in (*OTHERS, VICTIM)] == [1, 1, 0]

    audit = audit_run(hospitals.run, roster=hospitals.files["hospital-1"].parents[1] / "roster.json")
    assert (audit.wrong, [one.models for one in audit.attempts]) == ([], [True])


@pytest.mark.timeout(900)
def test_a_sum_with_more_in_it_than_honest_silos_add_costs_its_round_and_not_the_run(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overrides = overrides_of(SILOS, 2, "runtime.join_timeout=300 aggregation.norm_bound=0.5")
    hospitals.own[VICTIM] = {**variables(tmp_path / "changed", VICTIM, 1), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}
    hospitals.in_one_process = set(OTHERS)
    hospitals.start()
    hospitals.submit(overrides)
    hospitals.wait(lambda: (hospitals.run / "run.json").exists(), 300.0)
    hospitals.wait(lambda: read_about(hospitals.run)["status"] != "running", 500.0)
    about, (first, second) = read_about(hospitals.run), rounds_of(hospitals.run)
    assert (about["status"], about["error"], about["runtime"]) == ("completed", None, "deployment"), hospitals.logs()

    assert first["lost"].startswith("its sum was opened and rejected, because the sum is ")
    assert first["lost"].endswith("somebody adds what no honest silo adds; a sum does not tell who.")
    assert first["secure"]["rejected"] is True
    assert "lost" not in second
    assert 0.0 < second["secure"]["reach"] <= 1.0
    for line in (first, second):  # nobody is named, and all are asked again
        assert line["replied"] == [*OTHERS, VICTIM]
        assert all(attempt["blame"] == [] for attempt in line["secure"]["attempts"])
        assert {one["code"] for one in line["failed"]} <= {"not_awaited"}  # the others are as quick as one process is

    adds(monkeypatch, VICTIM, giant, (1,))
    inline = quire.run(overrides, tmp_path / "inline")
    assert about["model"] == inline.model
    assert [line["model"] for line in rounds_of(tmp_path / "inline")] == [first["model"], second["model"]]
    assert first["model"] != second["model"]
