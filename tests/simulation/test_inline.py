"""Whole federations in this process: reproducible, fault-tolerant, truthful."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import quire
from quire import compose
from quire.clients.arrays import fingerprint
from quire.clients.training import Workbench, steps
from quire.errors import DataError, RunFailed, SettingsError
from quire.simulation.baselines import compare
from quire.simulation.inline import run_inline
from quire.strategies.folder import read_about

SMALL = "task=breast_cancer partition.silos=4 partition.alpha=1 strategy.rounds=3"


def rounds_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


def test_the_same_settings_give_the_same_bits_and_every_setting_matters(tmp_path):
    first = quire.run(SMALL, tmp_path / "a")
    assert quire.run(SMALL, tmp_path / "b").model == first.model
    assert fingerprint(load_file(tmp_path / "a" / "model.safetensors")) == first.model
    changes = [
        "seed=2",
        "training.lr=0.9",
        "strategy.rounds=2",
        "strategy=fedprox",
        "partition=iid",
        "task.model=mlp",
        "training.momentum=0.5",
    ]
    models = {first.model}
    for place, change in enumerate(changes):
        base = SMALL.replace("strategy.rounds=3", "") if change.startswith("strategy.rounds") else SMALL
        base = base.replace("partition.alpha=1", "") if change == "partition=iid" else base
        models.add(quire.run(f"{base} {change}", tmp_path / str(place)).model)
    assert len(models) == len(changes) + 1


def test_fedprox_with_mu_zero_is_fedavg(tmp_path):
    prox = quire.run(f"{SMALL} strategy=fedprox strategy.mu=0", tmp_path / "prox")
    assert prox.model == quire.run(SMALL, tmp_path / "avg").model


def test_a_round_equals_the_round_written_out(tmp_path):
    """FedAvg from data to model in a few lines of numpy, beside the whole house."""
    from quire.clients.data.simulated import federation
    from quire.clients.tasks import task_of
    from quire.privacy.randomness import stream

    result = quire.run(SMALL, tmp_path / "run")
    settings = compose(SMALL)
    bench, silos = Workbench(task_of(settings)), federation(settings)
    model = bench.task.initial_arrays(stream(settings.seed, "model"))
    for number in range(1, 4):
        total = sum(len(silo.train) for silo in silos)
        mean = {name: np.zeros(array.shape) for name, array in model.items()}
        for place, silo in enumerate(silos):
            bench.load(model)
            bench.train(
                silo.train, settings.training, stream(settings.seed, "batches", number, f"hospital-{place + 1}")
            )
            for name, part in bench.difference(model).items():
                mean[name] += len(silo.train) / total * part.astype(np.float64)
        model = {name: (array.astype(np.float64) + mean[name]).astype(np.float32) for name, array in model.items()}
    assert fingerprint(model) == result.model


def test_a_silo_that_drops_out_is_named_and_the_others_go_on(tmp_path):
    faults = "[drop:train:2:hospital-3,error:evaluate:1:hospital-1,delay:train:3:hospital-2:9999]"
    run_inline(compose(f"{SMALL} runtime.faults={faults}"), tmp_path)
    failed = [[(f["silo"], f["stage"], f["code"]) for f in line["failed"]] for line in rounds_of(tmp_path)]
    assert failed == [
        [("hospital-1", "evaluate", "app_raised")],
        [("hospital-3", "train", "node_gone")],
        [("hospital-2", "train", "late")],
    ]
    assert [len(line["replied"]) for line in rounds_of(tmp_path)] == [4, 3, 3]


def test_a_delay_within_the_deadline_changes_nothing(tmp_path):
    slow = run_inline(compose(f"{SMALL} runtime.faults=[delay:train:*:hospital-2:9]"), tmp_path / "slow")
    assert slow.model == quire.run(SMALL, tmp_path / "plain").model
    with pytest.raises(RunFailed, match="did not answer before the deadline"):
        quire.run(
            f"{SMALL} strategy.min_silos=4 strategy.deadline=5 runtime.faults=[delay:train:*:hospital-2:9]",
            tmp_path / "late",
        )


def test_a_silo_that_never_enrols_is_left_out(tmp_path):
    quire.run(f"{SMALL} runtime.faults=[drop:query:*:hospital-4]", tmp_path)
    assert [line["cohort"] for line in rounds_of(tmp_path)] == [["hospital-1", "hospital-2", "hospital-3"]] * 3


@pytest.mark.parametrize(
    ("fault", "words", "rounds"),
    [
        (
            "error:train:2:*",
            r"Round 2 failed: 0 of 4 silos gave a usable answer, 2 are needed \(hospital-1: its app raised",
            1,
        ),
        ("drop:query:*:*", r"0 of 4 silos could be enrolled, 2 are needed", 0),
    ],
)
def test_when_all_silos_fail_the_run_ends_in_a_sentence_and_nothing_is_lost(tmp_path, fault, words, rounds):
    with pytest.raises(RunFailed, match=words) as failure:
        quire.run(f"{SMALL} runtime.faults=['{fault}']", tmp_path)
    about = read_about(tmp_path)
    assert (about["status"], about["error"], about["rounds"]) == ("failed", str(failure.value), rounds)
    assert len(rounds_of(tmp_path)) == rounds
    if rounds:
        assert fingerprint(load_file(tmp_path / "model.safetensors")) == rounds_of(tmp_path)[-1]["model"]


def test_diverging_silos_are_said_so(tmp_path):
    with pytest.raises(RunFailed, match="diverged to values that are not finite"):
        quire.run(f"{SMALL} training.lr=1e30 training.epochs=5 task.model=mlp", tmp_path)


def test_data_that_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No Dirichlet draw gave each of 5 silos 100 rows: raise partition\.alpha"):
        quire.run("task=breast_cancer partition.alpha=0.001 partition.min_rows=100 strategy.rounds=1", tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_a_folder_with_a_run_is_refused(tmp_path):
    quire.run(SMALL, tmp_path)
    with pytest.raises(SettingsError, match="already holds a run"):
        quire.run(SMALL, tmp_path)


def test_only_a_sampled_part_of_the_silos_is_asked(tmp_path):
    quire.run(
        "task=synthetic partition.silos=20 data.rows=400 data.features=5 strategy.fraction=0.25 strategy.rounds=4",
        tmp_path,
    )
    cohorts = [line["cohort"] for line in rounds_of(tmp_path)]
    assert all(len(cohort) == 5 for cohort in cohorts)
    assert len({tuple(cohort) for cohort in cohorts}) == 4
    order = [f"silo-{place}" for place in range(1, 21)]
    assert all(cohort == sorted(cohort, key=order.index) for cohort in cohorts)


def test_the_comparison_scores_every_model_on_the_same_rows(tmp_path):
    settings = compose(SMALL)
    run_inline(settings, tmp_path)
    told = []
    written = compare(settings, tmp_path, told.append)
    assert json.loads((tmp_path / "comparison.json").read_text()) == written
    names = [f"hospital-{place}" for place in range(1, 5)]
    assert told == ["pooled", *names]
    assert list(written["silos"]) == list(written["own"]) == list(written["everyone"]["alone"]) == names
    assert written["rows"]["train"] + written["rows"]["test"] == 569
    assert sum(sum(silo["labels"].values()) for silo in written["silos"].values()) == written["rows"]["train"]
    # The federated score on everybody's rows is the row-weighted mean of the silos' own, as the rounds reported it.
    assert written["everyone"]["federated"]["accuracy"] == pytest.approx(
        rounds_of(tmp_path)[-1]["evaluate"]["accuracy"]
    )
    assert written["everyone"]["majority"]["balanced_accuracy"] == 0.5
    assert written["everyone"]["pooled"]["accuracy"] > 0.85
    assert written["everyone"]["pooled"]["auc"] > 0.95


def test_baselines_take_as_many_steps_as_the_federation_does(tmp_path, monkeypatch):
    taken, original = [], Workbench.train

    def train(self, rows, plan, *rest):
        taken.append(steps(plan, len(rows)))
        return original(self, rows, plan, *rest)

    monkeypatch.setattr(Workbench, "train", train)
    settings = compose(f"{SMALL} training.steps=8 strategy.fraction=0.5")
    run_inline(settings, tmp_path)
    assert taken == [8] * 6  # three rounds of two silos each
    compare(settings, tmp_path)
    assert taken[6:] == [sum(taken[:6]), 12, 12, 12, 12]  # pooled, then each silo: half of three rounds of eight
