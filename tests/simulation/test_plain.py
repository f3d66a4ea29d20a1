"""The federation in clear beside a run with privacy or under masks: the product's own, and nothing is left of it."""

import json
import logging
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import quire
from quire.clients.training import Workbench
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy, PlainAggregation
from quire.simulation.baselines import compare
from quire.simulation.inline import run_inline
from quire.simulation.plain import PLAIN, STEPS, plain_overrides, train_plainly
from tests.support.shared_runs import RECORD

BASE = "task=breast_cancer partition=iid partition.silos=4 strategy.rounds=3"
PRIVATE = "privacy=record privacy.epsilon=4 privacy.clip=0.5"
RUNS = {
    "record": f"{BASE} {PRIVATE} strategy=fedprox seed=3",
    "silo": f"{BASE} privacy=silo privacy.delta=1e-5 strategy=fedadam",
    "masks": f"{BASE} aggregation=secure strategy=fednova training.epochs=2",
    "silo, shared": f"{BASE} aggregation=secure privacy=silo_distributed privacy.delta=1e-5",
    "regression": "task=diabetes strategy.rounds=3 aggregation=secure",
}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary folders go; nothing may be left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_it_has_the_settings_of_the_run_but_for_privacy_and_masks(overrides):
    settings = compose(f"{overrides} runtime.faults=[drop:mask:1:hospital-1] output.report=false tracking=tensorboard")
    found = plain_overrides(settings)
    assert list(found) == [PLAIN]
    expected = replace(settings, privacy=NoPrivacy("none"), aggregation=PlainAggregation("plain"))
    defaults = compose("")
    expected = replace(
        expected, runtime=defaults.runtime, output=defaults.output, tracking=defaults.tracking, overrides=found[PLAIN]
    )
    assert compose(found[PLAIN]) == expected


def test_a_run_in_clear_is_compared_with_none():
    assert plain_overrides(compose("task=digits strategy=scaffold training.momentum=0 seed=7")) == {}


def test_beside_one_step_a_round_there_is_one_with_as_many_rows_in_a_batch():
    more = "training.epochs=4 training.batch_size=7 runtime.threads=2 aggregation.colluders=1"
    settings = compose(f"{RECORD} {more}")
    found = {way: compose(overrides) for way, overrides in plain_overrides(settings).items()}
    assert list(found) == [PLAIN, STEPS]
    assert (found[PLAIN].training.epochs, found[PLAIN].training.batch_size) == (4, 7)
    assert (found[STEPS].training.steps, found[STEPS].training.batch_size) == (1, 18)  # 0.2 * 455 / 5
    assert all(one.runtime.threads == 2 and one.training.lr == settings.training.lr for one in found.values())


@pytest.mark.parametrize(
    "overrides",
    [
        f"{RECORD} strategy.rounds=2",
        RUNS["masks"],
        pytest.param(RUNS["record"], marks=pytest.mark.slow),
        pytest.param(RUNS["regression"], marks=pytest.mark.slow),
    ],
)
def test_its_model_is_that_of_a_run_without_privacy_hash_for_hash(overrides, tmp_path, scratch):
    settings = compose(overrides.replace("output.baselines=false", ""))
    run_inline(settings, tmp_path / "run")
    before = snapshot(tmp_path / "run")
    told = []
    written = compare(settings, tmp_path / "run", told.append)
    after = snapshot(tmp_path / "run")
    assert {path: after[path] for path in before} == before  # the run's own model, journal, card
    assert set(after) - set(before) == {tmp_path / "run" / "comparison.json"}
    ways = list(plain_overrides(settings))
    assert told[: len(ways) + 1] == [*["the same federation in clear"] * len(ways), "pooled"]
    assert list(written["plain"]) == ways
    for way in ways:
        about = written["plain"][way]
        alone = quire.run(about["overrides"], tmp_path / way)
        assert about == {"overrides": about["overrides"], "model": alone.model}
        scored = compare(compose(f"{about['overrides']} output.baselines=false"), alone.folder)
        assert written["everyone"][way] == scored["everyone"]["federated"]
        for silo in written["own"]:
            assert written["own"][silo][way] == scored["own"][silo]["federated"]


def test_without_clip_and_noise_the_run_takes_the_steps_of_the_one_beside_it(tmp_path, scratch):
    # No gradient of this task is as long as the clip, and every batch is all rows, but for one left out at times.
    overrides = f"{RECORD} strategy.rounds=6".replace("epsilon=8", "epsilon=inf privacy.clip=8")
    overrides = overrides.replace("sampling_rate=0.2", "sampling_rate=1").replace("lr=0.1", "lr=1")
    result = quire.run(overrides, tmp_path / "run")
    beside = train_plainly(plain_overrides(compose(overrides))[STEPS])
    mine = load_file(result.folder / "model.safetensors")
    far = train_plainly(plain_overrides(compose(overrides))[PLAIN])
    for name, part in mine.items():
        assert np.abs(part - beside.model[name]).max() < 0.03
    assert max(np.abs(part - far.model[name]).max() for name, part in mine.items()) > 0.5


def test_none_is_trained_without_baselines(tmp_path, scratch, monkeypatch):
    settings = compose(f"{RUNS['masks']} output.baselines=false")
    run_inline(settings, tmp_path / "run")
    monkeypatch.setattr(Workbench, "train", None)
    told = []
    written = compare(settings, tmp_path / "run", told.append)
    assert told == []
    assert set(written["everyone"]) == {"federated"}
    assert "plain" not in written


def test_a_run_in_clear_has_the_comparison_that_it_had(tmp_path, scratch):
    settings = compose(BASE)
    run_inline(settings, tmp_path / "run")
    written = compare(settings, tmp_path / "run")
    assert list(written["everyone"]) == ["federated", "pooled", "majority", "alone"]
    assert all(list(own) == ["federated", "pooled", "majority", "alone"] for own in written["own"].values())
    assert "plain" not in written


def test_its_rounds_stay_out_of_the_log(caplog, scratch):
    caplog.set_level(logging.INFO, logger="quire")
    train_plainly(BASE)
    assert "Training a federation in clear, to compare with: quire run task=breast_cancer" in caplog.text
    assert "Round 1" not in caplog.text
    assert logging.getLogger("quire").level == logging.INFO


def test_tuning_of_copies_that_nobody_scores_does_not_stop_it(scratch):
    base = "task=breast_cancer partition.silos=2 strategy.rounds=1"
    tuned = train_plainly(f"{base} training.tuning_epochs=1 training.tuning_lr=0.2")
    assert tuned.error is None
    assert tuned.fingerprint == train_plainly(base).fingerprint


def test_what_stops_it_is_said_and_stops_nothing_else(scratch):
    found = train_plainly(f"{BASE} strategy.min_silos=4 runtime.faults=[drop:train:2:hospital-1]")
    assert found.model is None
    assert found.about().keys() == {"overrides", "error"}
    assert "Round 2" in found.error


def test_ctrl_c_ends_it_and_whatever_called_it(scratch, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workbench, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_plainly(BASE)


def test_a_silo_whose_policy_accepts_private_runs_only_is_not_asked_for_more(tmp_path, scratch):
    """A rehearsal may read its rows, in runs that it accepts: what privacy cost there cannot be told."""
    folder = tmp_path / "silos"
    folder.mkdir()
    schema = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
    (folder / "schema.yaml").write_text(schema)
    rng = np.random.default_rng(1)
    for number in (1, 2, 3):
        age = rng.uniform(0, 100, 50)
        rows = "".join(f"{value:.1f},{int(value > 50)}\n" for value in age)
        (folder / f"rows-{number}.csv").write_text(f"age,sick\n{rows}")
        (folder / f"clinic-{number}.yaml").write_text(
            f"name: clinic-{number}\ndata: {{connector: csv, path: rows-{number}.csv}}\n"
            "population: {name: patients, records: 40}\n"
            "policy: {modes: [record], aggregation: [plain], code: [], epsilon: 4.0, delta: 1.0e-4, min_cohort: 2, "
            "colluders: 0, rehearsal: true}\n"
        )
    settings = compose("task=tabular partition.silos=3 strategy.rounds=2 privacy=record privacy.delta=1e-4")
    run_inline(settings, tmp_path / "run", silos=folder)
    before = snapshot(folder)
    written = compare(settings, tmp_path / "run", silos=folder)
    assert snapshot(folder) == before  # no store, no ledger
    assert list(written["everyone"]) == ["federated", "pooled", "majority", "alone"]
    assert "its own policy does not allow these settings" in written["plain"][PLAIN]["error"]
    assert json.loads((tmp_path / "run" / "comparison.json").read_text()) == written
