"""``runtime=batched`` beside ``runtime=inline``: the same run, but for the order of sums of floating-point numbers."""

import json
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load_file

import quire
from quire.clients import training
from quire.clients.data.silo import Rows, SiloData
from quire.clients.private import work as private_work
from quire.clients.private.sgd import PrivateBench
from quire.clients.tasks.classification import Classification
from quire.clients.tasks.regression import Regression
from quire.simulation import batched_grid, foresight
from quire.simulation.batched_grid import divided

SMALL = "task=breast_cancer partition.silos=5 partition.alpha=1 strategy.rounds=3 output.report=false"
DIGITS = "task=digits partition.silos=6 partition=dirichlet partition.alpha=1 strategy.rounds=3 task.model=mlp"
# Silos of the same size: noise is calibrated once for all of these runs, which takes longer than they do.
RECORD = (
    "task=breast_cancer partition=iid partition.silos=5 strategy.rounds=3 output.report=false "
    "privacy=record privacy.epsilon=5 privacy.delta=0.005 training.batch_size=8"
)
RUNS = {
    "plain": SMALL,
    "mlp": DIGITS,
    "span": "task=synthetic data.rows=400 data.features=300 partition.silos=8 strategy.fraction=1 strategy.rounds=3",
    "fedprox": f"{DIGITS} strategy=fedprox strategy.mu=0.5",
    "fednova": f"{DIGITS} strategy=fednova training.momentum=0.5",
    "scaffold": f"{DIGITS} strategy=scaffold",
    "adam": f"{SMALL} strategy=fedadam",
    # With a step five times as long the run is chaotic: what differs in the last digit grows a thousandfold in a round.
    "decay": f"{DIGITS} training.lr=0.05 training.momentum=0.9 training.weight_decay=0.01 training.batch_size=7",
    "steps": f"{DIGITS} training.steps=5 training.batch_size=1000",
    "number": "task=diabetes partition.silos=4 strategy.rounds=3 task.model=mlp",
    "federated": f"{SMALL} data.preprocessing=federated",
    "record unit": RECORD,
    "record unit, mlp, fedprox": (
        f"{RECORD} task.model=mlp task.hidden=[9] strategy=fedprox strategy.mu=0.5 training.momentum=0.5"
    ),
    "record unit, no noise": f"{RECORD} privacy.gradients=ghost".replace("epsilon=5", "epsilon=inf"),
    "silo unit": f"{SMALL} privacy=silo privacy.epsilon=5 privacy.delta=0.01",
}


@pytest.fixture
def together(monkeypatch):
    """How many silos were trained together, part by part."""
    counts, train = [], foresight.train_ahead

    def watched(*args):
        counts.append(len(args[-1]))
        return train(*args)

    monkeypatch.setattr(foresight, "train_ahead", watched)
    train_privately = foresight.train_privately_ahead

    def watched_privately(*args):
        counts.append(len(args[-1]))
        return train_privately(*args)

    monkeypatch.setattr(foresight, "train_privately_ahead", watched_privately)
    return counts


@pytest.fixture
def scored(monkeypatch):
    """How many silos scored a model together, part by part."""
    counts, score = [], foresight.score_together

    def watched(*args):
        counts.append(len(args[-1]))
        return score(*args)

    monkeypatch.setattr(foresight, "score_together", watched)
    return counts


@pytest.fixture
def doubled(monkeypatch):
    """Let models and rows have double precision, at both runtimes."""
    for kind in (Classification, Regression):
        build, initial = kind.build_model, kind.initial_arrays
        monkeypatch.setattr(kind, "build_model", lambda self, build=build: build(self).double())
        monkeypatch.setattr(
            kind,
            "initial_arrays",
            lambda self, rng, initial=initial: {
                name: part.astype(np.float64) for name, part in initial(self, rng).items()
            },
        )
    from quire.clients import work
    from quire.clients.data import preprocess

    def wide(rows):
        return Rows(rows.x.astype(np.float64), rows.y)

    prepare, kept = preprocess.prepare, {}

    def prepared(loaded, how, statistics=None):
        data = prepare(loaded, how, statistics)
        if id(data) not in kept:
            kept[id(data)] = data, SiloData(wide(data.train), wide(data.test))
        return kept[id(data)][1]

    training._workbench.cache_clear()
    monkeypatch.setattr(work, "prepare", prepared)
    monkeypatch.setattr(foresight, "prepare", prepared)
    monkeypatch.setattr(private_work, "_private_bench", cache(private_bench))
    yield
    training._workbench.cache_clear()


def private_bench(task, method, device):
    """Return a private workbench in double precision: models are tried out in single precision before."""
    bench = training.Workbench(task)
    bench.model.float()
    private = PrivateBench(bench, method)
    bench.model.double()
    bench.parameters = list(bench.model.parameters())
    bench._views = {name: tensor.detach().numpy() for name, tensor in bench.model.state_dict().items()}
    return private


def both(tmp_path, overrides):
    one = quire.run(f"{overrides} runtime=inline", tmp_path / "inline")
    other = quire.run(f"{overrides} runtime=batched", tmp_path / "batched")
    return one, other, *(load_file(run.folder / "model.safetensors") for run in (one, other))


def journal(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_whole_runs_in_double_precision_agree_to_nine_digits(name, tmp_path, together, scored, doubled):
    one, other, inline, batched = both(tmp_path, f"{RUNS[name]} output.baselines=false")
    assert sum(together) >= 9
    assert sum(scored) >= 9
    for mine, theirs in zip(journal(one.folder), journal(other.folder), strict=True):
        assert theirs["evaluate"] == pytest.approx(mine["evaluate"], rel=1e-9)
    for part in inline:
        assert inline[part].dtype == np.float64
        np.testing.assert_allclose(batched[part], inline[part], rtol=1e-9, atol=1e-9 * np.abs(inline[part]).max())


def test_of_private_training_receipts_and_the_journal_tell_the_same(tmp_path, together):
    """But for sums of single precision: how many rows were drawn and clipped, what noise there was, what it cost."""
    one, other, *_ = both(tmp_path, RECORD)
    assert together == [2, 3] * 3
    for mine, theirs in zip(journal(one.folder), journal(other.folder), strict=True):
        assert theirs["train"] == pytest.approx(mine["train"], rel=1e-3)
        assert theirs["train"]["noise_norm"] == pytest.approx(mine["train"]["noise_norm"], rel=1e-6)  # the same draws
    told = [json.loads((run.folder / "privacy_card.json").read_text()) for run in (one, other)]
    for part in ("verdict", "coverage", "silos", "worst"):
        assert told[0][part] == told[1][part]


def test_the_journal_tells_the_same_of_both(tmp_path, together):
    one, other, inline, batched = both(tmp_path, SMALL)
    for part in inline:
        np.testing.assert_allclose(batched[part], inline[part], rtol=0, atol=1e-5)
    told = [journal(run.folder) for run in (one, other)]
    for mine, theirs in zip(*told, strict=True):
        assert [mine[key] for key in ("replied", "failed", "bytes_up")] == [
            theirs[key] for key in ("replied", "failed", "bytes_up")
        ]
        assert theirs["train"]["loss"] == pytest.approx(mine["train"]["loss"], rel=1e-4)
    assert together == [2, 3] * 3


def test_a_cohort_is_divided_by_its_size_alone():
    assert [len(part) for part in divided(range(100), 10)] == [10] * 10
    assert [len(part) for part in divided(range(10), 10)] == [5, 5]
    assert [len(part) for part in divided(range(25), 10)] == [8, 8, 9]
    assert [len(part) for part in divided(range(3), 10)] == [3]
    assert [len(part) for part in divided(range(1), 10)] == [1]
    assert [one for part in divided(range(33), 10) for one in part] == list(range(33))


def test_faults_and_a_silo_without_a_good_model_fail_as_they_do_inline(tmp_path, together):
    faults = "runtime.faults=[drop:train:2:hospital-2,error:train:3:hospital-1]"
    one = quire.run(f"{SMALL} runtime=inline {faults}", tmp_path / "inline")
    other = quire.run(f"{SMALL} runtime=batched {faults}", tmp_path / "batched")
    mine, theirs = journal(one.folder), journal(other.folder)
    assert [line["failed"] for line in mine] == [line["failed"] for line in theirs]
    assert [len(line["failed"]) for line in theirs] == [0, 1, 1]
    assert together == [2, 3, 3, 3]  # two are one too few once one of them is gone


def test_diverging_silos_are_refused_in_the_same_words(tmp_path, together):
    words = []
    for runtime in ("inline", "batched"):
        with pytest.raises(quire.errors.RunFailed) as why:
            quire.run(
                f"task=diabetes partition.silos=4 strategy.rounds=2 training.lr=1e30 runtime={runtime}",
                tmp_path / runtime,
            )
        words.append(str(why.value))
    assert words[0] == words[1]
    assert together


@pytest.mark.parametrize(
    "overrides",
    [
        "task=digits task.model=cnn partition.silos=3 strategy.rounds=1",
        f"{SMALL} strategy.rounds=1 aggregation=secure",
        f"{RECORD} strategy.rounds=1 privacy.gradients=hooks".replace("epsilon=5", "epsilon=inf"),
        f"{RECORD} strategy.rounds=1 privacy.gradients=rows".replace("epsilon=5", "epsilon=inf"),
    ],
)
def test_what_cannot_be_stacked_is_done_inline_bit_for_bit(overrides, tmp_path, together):
    overrides = overrides.replace("strategy.rounds=3 ", "")
    one, other, *_ = both(tmp_path, f"{overrides} output.baselines=false")
    assert one.model == other.model
    assert together == []


@pytest.mark.parametrize(
    "overrides",
    [
        "task=digits task.model=cnn partition.silos=3 strategy.rounds=1",
        f"{SMALL.replace('rounds=3', 'rounds=1')} aggregation=secure strategy.min_silos=3",
    ],
)
def test_silos_score_together_whatever_they_train(overrides, tmp_path, together, scored):
    one, other, *_ = both(tmp_path, f"{overrides} output.baselines=false")
    assert (one.model, together) == (other.model, [])
    assert sum(scored) == len(journal(other.folder)[0]["silos"])
    assert journal(other.folder)[0]["evaluate"] == pytest.approx(journal(one.folder)[0]["evaluate"], rel=1e-5)


def test_silos_that_score_together_tune_copies_as_they_would_by_themselves(tmp_path, scored):
    one, other, *_ = both(tmp_path, f"{SMALL} training.tuning_epochs=1 output.baselines=false")
    assert sum(scored) == 15
    for mine, theirs in zip(journal(one.folder), journal(other.folder), strict=True):
        assert theirs["failed"] == []
        assert "tuned_loss" in theirs["evaluate"]
        assert theirs["evaluate"] == pytest.approx(mine["evaluate"], rel=1e-3)


def test_of_a_silo_whose_operator_has_a_say_nothing_is_done_ahead(tmp_path, together, scored):
    """Its rows are not looked at before its policy has let it answer."""
    folder = tmp_path / "silos"
    folder.mkdir()
    (folder / "schema.yaml").write_text(
        "columns: {a: {low: 0, high: 1}}\ntarget: {name: y, kind: classification, classes: [0, 1]}\n"
    )
    for place in range(4):
        rows = "".join(f"{row % 7 / 7},{row % 2}\n" for row in range(20))
        (folder / f"{place}.csv").write_text(f"a,y\n{rows}")
        text = f"name: silo-{place}\ndata: {{connector: csv, path: {place}.csv}}\n"
        policy = "policy: {modes: [none], aggregation: [plain], code: [], min_cohort: 3, rehearsal: true}\n"
        (folder / f"silo-{place}.yaml").write_text(
            text + (f"population: {{name: p{place}, records: 20}}\n{policy}" if place == 2 else "")
        )
    run = quire.run(
        "task=tabular task.model=logistic partition.silos=4 strategy.fraction=1 strategy.min_silos=3 strategy.rounds=2 "
        "runtime=batched output.report=false output.baselines=false",
        tmp_path / "run",
        folder,
    )
    assert [len(line["replied"]) for line in journal(run.folder)] == [4, 4]
    assert together == [2, 2]  # of the second part one is left, who is at work by itself
    assert scored == [2, 2]


def test_large_models_are_not_stacked(tmp_path, together, monkeypatch):
    monkeypatch.setattr(foresight, "is_gain", lambda *about: False)
    one, other, *_ = both(tmp_path, SMALL)
    assert (one.model, together) == (other.model, [])


def test_the_parts_of_a_cohort_are_forgotten_once_delivered(tmp_path, monkeypatch):
    grids, begin = [], batched_grid.BatchedGrid.__init__
    monkeypatch.setattr(
        batched_grid.BatchedGrid, "__init__", lambda self, *args: (grids.append(self), begin(self, *args))[1]
    )
    quire.run(f"{SMALL} runtime=batched", tmp_path / "run")
    assert (grids[0]._parts, grids[0]._ahead) == ({}, {})
