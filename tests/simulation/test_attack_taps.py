"""What an attack is given is what the observer saw: checked against the run itself."""

import numpy as np
import pytest
import torch

from quire.clients.training import Workbench
from quire.simulation.attacks.batches import drawn
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.attacks.inversion import DEFAULTS
from quire.simulation.attacks.tap import observe
from quire.simulation.attacks.variants import facts, variants, words
from quire.simulation.silos import local_silos

SMALL = ["partition.silos=3", "task.model=logistic", "strategy.rounds=2"]


@pytest.fixture(scope="module")
def seen():
    made = variants([*SMALL, "privacy=record_distributed", "privacy.epsilon=3"], DEFAULTS)
    return {one.name: observe(one.overrides) for one in made}


def gradient(run, names):
    """The mean gradient of the rows that are said to be behind the first round, at the first model."""
    local = local_silos(run.settings)
    bench = Workbench(local.task(run.settings))
    bench.load(run.models[0])
    data = dict(zip(local.names, local.data(run.settings), strict=True))
    rows = [drawn(run.settings, name, data[name].train) for name in names]
    x, y = (torch.from_numpy(np.concatenate([getattr(part, key) for part in rows])) for key in ("x", "y"))
    loss = bench.task.loss(bench.model(x), y)
    parts = torch.autograd.grad(loss, bench.parameters)
    return dict(zip(run.models[0], (part.numpy() for part in parts), strict=True)), len(y)


def test_the_server_of_a_plain_run_sees_updates_that_make_the_model(seen):
    run = seen["plain"]
    assert not run.sums_only()
    assert [set(updates) for updates in run.updates] == [{"site-1", "site-2", "site-3"}] * 2
    for before, mean, after in zip(run.models, run.means, run.models[1:], strict=False):
        for name in before:
            assert after[name] == pytest.approx(before[name] + mean[name], abs=1e-6)
    low, high = (np.array([function(u["0.bias"][0] for u in run.updates[0].values())]) for function in (min, max))
    assert low <= run.means[0]["0.bias"][0] <= high


def test_under_masks_the_server_sees_the_sum_and_nothing_else(seen):
    run, plain = seen["secure"], seen["plain"]
    assert run.sums_only()
    assert len(run.models) == 3
    for name, mean in run.means[0].items():
        assert mean == pytest.approx(plain.means[0][name], abs=2e-4)  # the resolution of a coordinate
    assert facts(run)["epsilon"] is None


def test_noise_is_in_what_is_seen_and_epsilon_is_that_of_the_card(seen):
    run = seen["record_distributed"]
    assert run.sums_only()
    assert facts(run) == {"epsilon": pytest.approx(3, abs=0.05), "delta": 1e-5, "unit": "record"}
    assert words(facts(run)) == "epsilon 3, delta 1e-05 per record"
    noiseless, _ = gradient(run, ["site-1", "site-2", "site-3"])
    mean = np.concatenate([part.ravel() for part in run.means[0].values()])
    true = np.concatenate([part.ravel() for part in noiseless.values()])
    assert abs(np.corrcoef(mean, true)[0, 1]) < 0.9


@pytest.mark.parametrize("privacy", ["none", "record", "record_distributed"])
def test_the_rows_that_an_attack_is_marked_by_are_those_behind_what_was_seen(privacy):
    noise = "privacy.epsilon=inf privacy.clip=30" if privacy != "none" else ""
    masks = "aggregation=secure" if privacy == "record_distributed" else ""
    defaults = DEFAULTS.replace("silos=10", "silos=3").replace("task.model=mlp", "task.model=logistic")
    run = observe(f"{defaults} privacy={privacy} {noise} {masks} strategy.fraction_evaluate=0")
    names = ["site-1", "site-2", "site-3"] if run.sums_only() else ["site-1"]
    given = run.means[0] if run.sums_only() else run.updates[0]["site-1"]
    expected, count = gradient(run, names)
    mine = np.concatenate([part.ravel() for part in given.values()])
    true = -np.concatenate([expected[name].ravel() for name in given])
    assert np.corrcoef(mine, true)[0, 1] > 0.9999
    if privacy == "none":
        assert count == 8
        assert mine == pytest.approx(0.1 * true, abs=1e-6)


def test_each_mode_is_run_as_the_user_asked_for_it():
    names = [one.name for one in variants([], DEFAULTS)]
    assert names == ["plain", "secure", "record", "record_distributed"]
    asked = variants(["privacy=record", "aggregation=secure", "privacy.epsilon=4", "training.batch_size=4"], DEFAULTS)
    assert [one.name for one in asked] == ["plain", "secure", "record"]
    assert asked[2].title == "the sum of noisy updates"
    assert "privacy.epsilon=4" in asked[2].overrides
    assert "privacy.epsilon" not in asked[0].overrides
    assert all("training.batch_size=4" in one.overrides and "batch_size=8" not in one.overrides for one in asked)
    assert asked[0].seeded(9).endswith("seed=9")
    mixed = "task=digits partition=dirichlet partition.alpha=0.5 partition.silos=4 training.epochs=10"
    (plain, _, _) = variants(["partition=iid", "training.steps=2", "privacy=record"], mixed)
    assert "alpha" not in plain.overrides
    assert "epochs" not in plain.overrides
    assert "partition.silos=4" in plain.overrides


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["task=diabetes"], "task=diabetes is not attacked"),
        (["task=synthetic"], "task=synthetic is not attacked"),
        (["compression=top_k"], "Compressed updates are not attacked"),
        (["runtime=flower"], "'runtime' is set by the attack itself"),
        (["output.report=true"], "'output.report' is set by the attack itself"),
        (["data.preprocessing=per_silo", "privacy=none"], "data.preprocessing=per_silo is not attacked"),
        (["strategy.fraction_evaluate=1"], "is set by the attack itself"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_words(given, words):
    with pytest.raises(AttackInput, match=words):
        variants(given, DEFAULTS)
