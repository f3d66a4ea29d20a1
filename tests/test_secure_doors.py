"""Secure aggregation in earnest, through two doors: Flower's simulation engine, and a SuperLink with three SuperNodes.

On the SuperLink one SuperNode is killed in the middle of a round. The model is the plain mean of what the others
train, worked out here without a server's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
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
    made.start()
    yield made
    made.close()


@pytest.mark.timeout(1800)
def test_a_supernode_is_killed_in_the_middle_of_a_round(hospitals: Hospitals) -> None:
    overrides = overrides_of(SILOS, 1, "runtime.join_timeout=300 output.transcripts=true")
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
