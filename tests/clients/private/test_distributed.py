"""What a silo adds to a sum under distributed noise, held against a plain loop over its rows; and a whole round."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from quire.clients.data.silo import Rows
from quire.clients.data.simulated import federation
from quire.clients.private import distributed
from quire.clients.private.distributed import GradientBench, batch_sum, clipped_vector, shaped
from quire.clients.tasks import task_of
from quire.clients.training import Workbench, WrongModel
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, words
from quire.privacy.dp.spending import Budget
from quire.privacy.randomness import key, stream
from quire.privacy.secagg.params import thresholds

RATE, CLIP = 0.2, 0.5


def federated(name="breast_cancer"):
    settings = compose(f"task={name} partition=iid")
    task = task_of(settings)
    return task, federation(settings), task.initial_arrays(stream(1, "model"))


def flat(arrays, names):
    return np.concatenate([np.ravel(arrays[name]).astype(np.float64) for name in names])


def by_loop(task, model, rows, batch, clip):
    """The sum as it is defined: one row at a time, by plain autograd."""
    plain = task.build_model()
    plain.load_state_dict({name: torch.from_numpy(part.copy()) for name, part in model.items()})
    total, clipped, losses = np.zeros(sum(part.size for part in model.values())), 0, []
    for row in batch:
        loss = task.loss(plain(torch.from_numpy(rows.x[[row]])), torch.from_numpy(rows.y[[row]]))
        named = dict(zip(dict(plain.named_parameters()), torch.autograd.grad(loss, plain.parameters()), strict=True))
        gradient = flat({name: part.numpy() for name, part in named.items()}, model)
        norm = np.linalg.norm(gradient)
        total += gradient * min(1.0, clip / norm)
        clipped += norm > clip
        losses.append(loss.item())
    return total, clipped, float(np.mean(losses))


@pytest.mark.parametrize("method", ["auto", "ghost", "hooks"])
@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_sum_is_that_of_a_loop_over_the_batch(name, method, backwards):
    task, silos, model = federated(name)
    if backwards:  # the layout is that of the arrays as they come
        model = dict(reversed(model.items()))
    rows = silos[0].train
    found = GradientBench(Workbench(task), method).sum(model, rows, RATE, CLIP, Csprng(key(1, "batch")))
    batch = Csprng(key(1, "batch")).poisson_sample(len(rows), RATE)
    total, clipped, loss = by_loop(task, model, rows, batch, CLIP)
    assert found.total.dtype == np.float64
    assert found.total == pytest.approx(total, abs=1e-5)
    assert (found.rows, found.clipped, found.broken) == (len(batch), clipped, 0)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.signal == pytest.approx(np.linalg.norm(total), rel=1e-5)


def test_batches_are_poisson_and_an_empty_one_is_zero():
    task, silos, model = federated()
    rows = silos[0].train
    sizes = []
    for attempt in range(200):
        found = batch_sum(task, "auto", model, rows, 0.01, CLIP, Csprng(key(1, "poisson", attempt)))
        sizes.append(found.rows)
        assert found.rows or not found.total.any()
        assert found.signal <= found.rows * CLIP * (1 + 1e-9)
    expected = 0.01 * len(rows)
    assert np.mean(sizes) == pytest.approx(expected, abs=4 * np.sqrt(expected / 200))
    assert np.var(sizes) == pytest.approx(expected, rel=0.5)
    assert 0 in sizes


def test_rows_whose_gradient_is_not_finite_add_nothing_and_are_counted():
    task, silos, model = federated()
    rows = silos[0].train
    spoilt = rows.x.copy()
    spoilt[3], spoilt[5] = np.nan, np.inf
    found = batch_sum(task, "auto", model, Rows(spoilt, rows.y), 1.0, CLIP, Csprng(key(1)))
    kept = [row for row in range(len(rows)) if row not in (3, 5)]
    assert found.broken == 2
    assert found.total == pytest.approx(by_loop(task, model, rows, kept, CLIP)[0], abs=1e-5)


def test_a_row_more_moves_the_sum_by_no_more_than_the_clip():
    task, silos, model = federated("digits")
    rows = silos[0].train
    model = {name: part * np.float32(1e6) for name, part in model.items()}  # as a lying server would have it
    whole = batch_sum(task, "auto", model, rows, 1.0, CLIP, Csprng(key(1))).total
    for row in range(0, len(rows), 40):
        left = np.delete(np.arange(len(rows)), row)
        rest = batch_sum(task, "auto", model, Rows(rows.x[left], rows.y[left]), 1.0, CLIP, Csprng(key(1))).total
        assert np.linalg.norm(whole - rest) <= CLIP * (1 + 2.0**-20)


def test_a_failure_leaves_no_half_made_pass_behind(monkeypatch):
    task, silos, model = federated()
    rows = silos[0].train
    before = batch_sum(task, "hooks", model, rows, RATE, CLIP, Csprng(key(2))).total
    with pytest.raises(WrongModel):
        batch_sum(task, "hooks", {"other": np.zeros(3)}, rows, RATE, CLIP, Csprng(key(2)))
    assert distributed._gradient_bench.cache_info().currsize == 0
    assert (batch_sum(task, "hooks", model, rows, RATE, CLIP, Csprng(key(2))).total == before).all()


def test_a_model_with_arrays_that_no_gradient_moves_is_refused():
    task, _, _ = federated()
    bench = Workbench(task)
    bench.model.register_buffer("scale", torch.ones(2))
    bench._views["scale"] = np.ones(2, dtype=np.float32)
    with pytest.raises(SettingsError, match=r"\(scale\)"):
        GradientBench(bench)


def test_a_model_that_mixes_rows_is_refused(monkeypatch):
    task, _, _ = federated()
    bench = Workbench(task)
    bench.model = nn.Sequential(bench.model, nn.Softmax(dim=0))
    bench._views = dict.fromkeys(dict(bench.model.named_parameters()), np.zeros(1))
    with pytest.raises(SettingsError, match="rows"):
        GradientBench(bench)


def test_a_silo_s_update_is_clipped_as_one():
    generator = np.random.default_rng(1)
    update = {"b": generator.normal(size=3).astype(np.float32), "a": generator.normal(size=(4, 5)).astype(np.float32)}
    vector, norm = clipped_vector(update, ["a", "b"], 1.0)
    whole = flat(update, ["a", "b"])
    assert norm == pytest.approx(np.linalg.norm(whole))
    assert vector == pytest.approx(whole / norm)
    assert clipped_vector(update, ["a", "b"], 100.0)[0] == pytest.approx(whole)
    back = shaped(vector, {"a": update["a"], "b": update["b"]})
    assert list(back) == ["a", "b"]
    assert back["a"].shape == (4, 5)
    assert (flat(back, ["a", "b"]) == vector).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_update_becomes_zero(broken):
    vector, norm = clipped_vector({"a": np.array([1.0, broken], dtype=np.float32)}, ["a"], 1.0)
    assert not vector.any()
    assert not np.isfinite(norm)


def test_a_round_over_five_silos_releases_the_central_batch_s_mean_and_the_promised_noise():
    """All of it but the masks: batches, sums, integers, shares, the ring, and the mean over the public denominator."""
    task, silos, model = federated("digits")
    records = [len(silo.train) for silo in silos]
    targets = [Budget(4.0, 1e-5)] * len(silos)
    limits = thresholds(len(silos), 1)
    noise = SharedNoise.plan(
        Unit.RECORD,
        CLIP,
        limits,
        rounds=50,
        targets=targets,
        sampling_rate=RATE,
        records=sum(records),
        largest=max(records),
    )
    for quiet in (True, False):
        numbers = replace(noise, noise_multiplier=0.0) if quiet else noise
        encoding = encoding_of(numbers, sum(part.size for part in model.values()))
        total, expected = np.zeros(encoding.length, dtype=np.uint32), np.zeros(encoding.dimension)
        for place, silo in enumerate(silos):
            part = batch_sum(task, "auto", model, silo.train, RATE, CLIP, Csprng(key(3, "batch", place)))
            expected += part.total
            plain, clamped = words(encoding, part.total, Csprng(key(3, "rounding", place)))
            assert clamped == 0
            total += add_share(encoding, plain, Csprng(key(3, "noise", place)))
        mean, probes = mean_of(numbers, encoding, total)
        error = mean - expected / (RATE * sum(records))
        if quiet:
            assert np.abs(error).max() <= len(silos) / encoding.scale / noise.denominator
        else:
            assert error.std() == pytest.approx(noise.noise(), rel=0.1)
            assert probes.std() == pytest.approx(encoding.noise_variance**0.5 * 5**0.5, rel=0.1)
