"""Deadlines of single exchanges, with silos that are slow on the runtime's virtual clock."""

import pytest
from secure_runs import ONE, SECURE_ONE, rounds_of

import quire
from quire.errors import RunFailed


@pytest.mark.parametrize("stage", ["pairs", "shares", "mask", "confirm", "unmask"])
def test_a_silo_that_is_slow_in_one_exchange_is_late_by_the_deadline_of_that_one(stage, tmp_path):
    slow = f"{SECURE_ONE} runtime.faults=[delay:{stage}:*:hospital-2:50]"
    quire.run(f"{slow} strategy.deadlines=[{stage}:60]", tmp_path / "long")
    quire.run(f"{slow} strategy.deadlines=[{stage}:30]", tmp_path / "short")
    (patient,), (short,) = rounds_of(tmp_path / "long"), rounds_of(tmp_path / "short")
    assert patient["failed"] == []
    assert [(one["silo"], one["stage"], one["code"]) for one in short["failed"]] == [("hospital-2", stage, "late")]
    assert len(short["replied"]) == (5 if stage in ("confirm", "unmask") else 4)


def test_deadlines_that_nobody_misses_change_no_model(tmp_path):
    one = quire.run(SECURE_ONE, tmp_path / "one").model
    same = "strategy.deadlines=[open:9,pairs:9,ready:9,shares:9,mask:9,confirm:9,unmask:9,train:9,evaluate:9]"
    assert quire.run(f"{SECURE_ONE} {same}", tmp_path / "other").model == one


def test_in_the_clear_training_and_scoring_have_deadlines_of_their_own(tmp_path):
    faults = "runtime.faults=[delay:train:*:hospital-1:50,delay:evaluate:*:hospital-3:50]"
    quire.run(f"{ONE} {faults} strategy.deadlines=[evaluate:30]", tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert [(one["silo"], one["stage"], one["code"]) for one in line["failed"]] == [("hospital-3", "evaluate", "late")]
    with pytest.raises(RunFailed, match="hospital-1: it did not answer before the deadline"):
        quire.run(f"{ONE} {faults} strategy.deadlines=[train:30] strategy.min_silos=5", tmp_path / "none")
