"""DP-SGD steps: the sum, the noise and the step are what is accounted, and FedProx still pulls."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from quire.clients.data.simulated import federation
from quire.clients.private.plan import plan_of
from quire.clients.private.sgd import PrivateBench
from quire.clients.private.work import clipped_update
from quire.clients.tasks import task_of
from quire.clients.training import Workbench
from quire.conf.compose import compose
from quire.privacy.csprng import Csprng
from quire.privacy.randomness import key, stream

RUN = "task=breast_cancer partition=iid strategy.rounds=10 training.batch_size=16"


def train(overrides, mu=0.0, noise=None, source=None, start=None):
    settings = compose(f"{RUN} {overrides}")
    silo = federation(settings)[0]
    plan = plan_of(settings, len(silo.train))
    if noise is not None:
        plan = replace(plan, noise_multiplier=noise)
    task = task_of(settings)
    bench = PrivateBench(Workbench(task), settings.privacy.gradients)
    model = start or task.initial_arrays(stream(1, "model"))
    bench.bench.load(model)
    steps = bench.train(silo.train, plan, settings.training, source or Csprng(key(1, "test")), mu)
    return settings, plan, silo, task, model, bench.bench.arrays(), steps


def flat(arrays):
    return np.concatenate([part.ravel() for part in arrays.values()]).astype(np.float64)


def test_one_step_without_noise_is_the_clipped_sum_over_the_public_batch():
    source = Csprng(key(3, "batch"))
    settings, plan, silo, task, before, after, _ = train(
        "privacy=record privacy.epsilon=inf privacy.gradients=hooks training.epochs=1 training.steps=1", source=source
    )
    batch = Csprng(key(3, "batch")).poisson_sample(len(silo.train), plan.rate)
    model = task.build_model()
    model.load_state_dict({name: torch.from_numpy(part.copy()) for name, part in before.items()})
    total = np.zeros(31)
    for row in batch:
        loss = task.loss(model(torch.from_numpy(silo.train.x[[row]])), torch.from_numpy(silo.train.y[[row]]))
        gradient = np.concatenate([g.double().numpy().ravel() for g in torch.autograd.grad(loss, model.parameters())])
        total += gradient * min(1.0, plan.clip / np.linalg.norm(gradient))
    assert len(batch) != plan.batch  # the denominator is not the size that came out
    assert flat(after) - flat(before) == pytest.approx(-settings.training.lr * total / plan.batch, abs=1e-6)


@pytest.mark.parametrize("kind", ["discrete", "gaussian"])
def test_the_noise_has_the_planned_size(kind):
    source = Csprng(key(5, "noise"))
    _, plan, *_, steps = train(
        f"privacy=record privacy.noise={kind} training.epochs=1 training.steps=400 training.lr=1e-6", source=source
    )
    expected = plan.noise_multiplier * plan.clip * np.sqrt(31)
    assert steps.noise == pytest.approx(expected, rel=0.03)  # 12,400 draws: 3 % is five standard errors
    assert steps.rows == pytest.approx(400 * plan.batch, rel=0.1)


def test_the_same_source_gives_the_same_model_and_another_one_another():
    *_, one, _ = train("privacy=record")
    *_, again, _ = train("privacy=record")
    *_, other, _ = train("privacy=record", source=Csprng(key(2, "test")))
    assert np.array_equal(flat(one), flat(again))
    assert not np.array_equal(flat(one), flat(other))


def test_fedprox_pulls_towards_the_global_model():
    """Through a per-sample engine the proximal gradient is lost, and FedProx would be FedAvg."""
    _, _, _, _, before, free, _ = train("privacy=record privacy.epsilon=inf training.epochs=5")
    *_, held, _ = train("privacy=record privacy.epsilon=inf training.epochs=5", mu=0.7)
    assert np.linalg.norm(flat(held) - flat(before)) < 0.7 * np.linalg.norm(flat(free) - flat(before))


def test_a_whole_update_is_clipped_over_all_arrays_together():
    update = {"a": np.array([3.0, 0.0], np.float32), "b": np.float32(4.0).reshape(())}
    short, norm = clipped_update(update, 1.0)
    assert norm == pytest.approx(5.0)
    assert short["a"] == pytest.approx([0.6, 0.0])
    assert short["b"] == pytest.approx(0.8)
    assert short["b"].shape == ()
    assert flat(clipped_update(update, 10.0, 0.5)[0]) == pytest.approx(0.5 * flat(update))
    broken, _ = clipped_update({"a": np.array([np.nan, 1.0], np.float32)}, 1.0)
    assert not broken["a"].any()
