"""Where silos train: chosen or refused in words, and the same work there as on the CPU.

No device is needed: a fake one is present, and stands for the CPU, so that all that is moved there and back again is
moved. What needs a real one says so and is skipped without it.
"""

import dataclasses

import numpy as np
import pytest
import torch

from quire.clients import device, training
from quire.clients.data.silo import Rows
from quire.clients.device import at_work, choose, device_of
from quire.clients.on_device import DeviceBench, DevicePrivateBench
from quire.clients.private import work
from quire.clients.private.plan import Plan
from quire.clients.private.sgd import PrivateBench
from quire.clients.simulation import simulated
from quire.clients.tasks.classification import Classification
from quire.clients.training import Workbench, workbench
from quire.conf.compose import compose
from quire.conf.schema import SgdTraining
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.randomness import key

MLP = Classification("t", 12, 3, "mlp", (7,))
CNN = Classification("t", 64, 3, "cnn", (5,), (1, 8, 8))
TRAINING = SgdTraining("sgd", 2, 0, 8, 0.05, 0.5, 0.01, local_layers=(), tuning_epochs=0, tuning_lr=None)
PLAN = Plan(Unit.RECORD, 1.0, 1.1, 0.4, 3, 8, True, 1e-3)
HERE = torch.device("cpu")
PRIVATE = "privacy=record privacy.epsilon=5"


@pytest.fixture
def fake(monkeypatch):
    """A machine with a CUDA device, which is the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "Fake 9000")
    monkeypatch.setattr(device, "torch_device", lambda kind: HERE)
    caches = training._workbench, work._private_bench
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def bare(monkeypatch):
    """A machine without either."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def apple(bare, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def data_of(task, seed=3, count=21):
    rng = np.random.default_rng(seed)
    rows = Rows(rng.normal(size=(count, task.features)).astype(np.float32), rng.integers(0, task.classes, count))
    return task.initial_arrays(rng), rows


def trained(bench, task, correction=False):
    model, rows = data_of(task)
    bench.load(model)
    extra = {name: np.full_like(part, 0.01) for name, part in model.items()} if correction else None
    loss = bench.train(rows, TRAINING, np.random.default_rng(1), 0.2, extra)
    return bench.difference(model), loss, bench.score(rows), bench.arrays()


def privately(bench, task):
    model, rows = data_of(task)
    bench.bench.load(model)
    steps = bench.train(rows, PLAN, TRAINING, Csprng(key(1, "source")), 0.2)
    return bench.bench.difference(model), dataclasses.asdict(steps)


def same(one, other):
    for mine, theirs in zip(one, other, strict=True):
        if isinstance(mine, dict):
            assert list(mine) == list(theirs)
            for name in mine:
                np.testing.assert_array_equal(mine[name], theirs[name])
        else:
            assert mine == theirs


@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("task", [MLP, CNN], ids=lambda task: task.model)
def test_training_and_scoring_are_what_they_are_on_the_cpu(task, correction):
    same(trained(DeviceBench(task, HERE), task, correction), trained(Workbench(task), task, correction))


@pytest.mark.parametrize(("task", "method"), [(MLP, "ghost"), (CNN, "auto"), (MLP, "hooks")])
def test_private_training_draws_clips_and_steps_as_on_the_cpu(task, method):
    same(
        privately(DevicePrivateBench(task, method, HERE), task), privately(PrivateBench(Workbench(task), method), task)
    )


def test_rows_are_moved_once_and_the_model_in_hand_is_a_copy():
    bench, (model, rows) = DeviceBench(MLP, HERE), data_of(MLP)
    assert bench.tensors(rows) is bench.tensors(rows)
    bench.load(model)
    bench.arrays()["0.bias"][:] = 7.0
    assert not np.any(bench.difference(model)["0.bias"])


def test_what_is_set_for_a_device_is_set_back_whatever_happens():
    def flags():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.allow_tf32,
            torch.get_default_device(),
        )

    def at_fault():
        with at_work(HERE):
            assert flags() == (True, False, False, False, HERE)
            raise KeyError

    before = flags()
    with pytest.raises(KeyError):
        at_fault()
    assert flags() == before


def test_auto_takes_what_is_there(fake):
    assert choose(compose("runtime.device=auto")) == device.Choice("auto", "cuda", "Fake 9000")
    assert choose(compose("runtime.device=cuda")).words() == "cuda (Fake 9000)"
    assert choose(compose("")) == device.Choice("cpu", "cpu")  # nobody asked


def test_without_any_auto_is_the_cpu_and_says_why(bare):
    choice = choose(compose("runtime.device=auto"))
    assert choice.used == "cpu"
    assert choice.words() == "cpu (auto: this machine has no CUDA device and no Apple GPU that torch can use)"


def test_an_apple_gpu_is_taken_but_not_where_double_precision_is_needed(apple):
    assert choose(compose("runtime.device=auto")).used == "mps"
    choice = choose(compose(f"runtime.device=auto {PRIVATE}"))
    assert (choice.used, "no double precision" in choice.why) == ("cpu", True)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("runtime=batched", "runtime=batched"),
        ("runtime.workers=2", "runtime.workers"),
        ("runtime.workers=0", "runtime.workers"),
        (f"{PRIVATE} privacy.gradients=rows", "privacy.gradients=rows"),
    ],
)
def test_what_needs_the_cpu_keeps_auto_there_and_refuses_a_device(more, why, monkeypatch):
    # Before processes are forked CUDA must not even be asked for: they could not use it, or would hang.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("CUDA was asked for"))
    choice = choose(compose(f"{more} runtime.device=auto"))
    assert choice.used == "cpu"
    assert why in choice.words()
    with pytest.raises(SettingsError, match=why):
        compose(f"{more} runtime.device=cuda")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (f"runtime.device=mps {PRIVATE}", "no double precision"),
        ("runtime.device=gpu", "auto"),
        ("runtime.device=cuda:1", "auto"),
        ("runtime=flower runtime.device=cuda", "runtime.device"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_looked_for(overrides, why):
    with pytest.raises(SettingsError, match=why):
        compose(overrides)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_one_sentence(kind, bare):
    with pytest.raises(SettingsError) as why:
        choose(compose(f"runtime.device={kind}"))
    assert f"runtime.device={kind}: this machine has no" in str(why.value)
    assert str(why.value).count("\n") == 0


def test_a_real_silo_trains_on_its_cpu_whatever_a_server_says(fake):
    settings = compose("runtime.device=cuda")
    assert device_of(settings) == "cpu"
    with simulated():
        assert device_of(settings) == "cuda"
        assert isinstance(workbench(MLP, device_of(settings)), DeviceBench)
    assert not isinstance(workbench(MLP), DeviceBench)


# ------------------------------------------------------------------------------------------ with a device
GPU = next((kind for kind, there in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if there.is_available()), "")
NO_GPU = "this machine has no CUDA device and no Apple GPU that torch can use"


def close(one, other):
    for mine, theirs in zip(one, other, strict=True):
        for name in mine if isinstance(mine, dict) else ():
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not GPU, reason=NO_GPU)
@pytest.mark.parametrize("task", [MLP, CNN], ids=lambda task: task.model)
def test_a_real_device_gives_what_the_cpu_gives_and_the_same_bits_again(task):
    there = torch.device(GPU)
    found = trained(DeviceBench(task, there), task)
    close(found, trained(Workbench(task), task))
    same(found, trained(DeviceBench(task, there), task))


@pytest.mark.skipif(GPU != "cuda", reason="this machine has no CUDA device that torch can use")
@pytest.mark.parametrize(("task", "method"), [(MLP, "ghost"), (CNN, "auto"), (MLP, "hooks")])
def test_a_real_device_clips_as_the_cpu_does(task, method):
    found = privately(DevicePrivateBench(task, method, torch.device("cuda")), task)
    close(found, privately(PrivateBench(Workbench(task), method), task))
    same(found, privately(DevicePrivateBench(task, method, torch.device("cuda")), task))
