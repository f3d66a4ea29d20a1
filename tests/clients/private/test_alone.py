"""Rows passed alone: what each adds is a function of the row and the model, whatever model a server has thought up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quire.clients.data.silo import Rows
from quire.clients.private.alone import ChainAlone, PlainAlone, alone, is_chain
from quire.clients.private.distributed import GradientBench
from quire.clients.private.gradients import ClippedGradients
from quire.clients.tasks import Task, models
from quire.clients.tasks.classification import Classification
from quire.clients.tasks.regression import Regression
from quire.clients.training import Workbench
from quire.privacy.csprng import Csprng
from quire.privacy.dp.rounding import MAX_SUMMANDS, SLACK

CLIP = 1.0
Model = dict[str, np.ndarray]


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def cancelling(task: Task, features: int, scale: float, seed: int) -> Model:
    """Hidden units that are one for every row, and output weights that the output's bias cancels, up to rounding."""
    width = 16
    out = (np.random.default_rng(seed).standard_normal((1, width)) * scale).astype(np.float32)
    shift = np.array([-out.astype(np.float64).sum()], np.float32)
    names = list(task.initial_arrays(np.random.default_rng(0)))
    parts = (np.zeros((width, features), np.float32), np.ones(width, np.float32), out, shift)
    return dict(zip(names, parts, strict=True))


def one_hot(task: Task, seed: int) -> Model:
    """Large weights on columns of which every row has one in each of three groups, and the three cancel."""
    draw = np.random.default_rng(seed)
    large, weights = np.float32(2.0 ** draw.integers(24, 40)), np.zeros((1, 20), np.float32)
    for group, sign in zip((slice(0, 4), slice(8, 12), slice(16, 20)), draw.permutation([1, 1, -2]), strict=True):
        weights[0, group] = sign * large * 1.1
    rest = (draw.standard_normal(8) * large * 2.0**-23).astype(np.float32)
    weights[0, 4:8], weights[0, 12:16] = rest[:4], rest[4:]
    bias = np.array([draw.standard_normal() * large * 2.0**-23], np.float32)
    return dict(zip(task.initial_arrays(draw), (weights, bias), strict=True))


def columns(count: int) -> np.ndarray:
    draw, rest = np.random.default_rng(5), numbers(1, count, 8)
    hot = [np.eye(4, dtype=np.float32)[draw.integers(0, 4, count)] for _ in range(3)]
    return np.concatenate([hot[0], rest[:, :4], hot[1], rest[:, 4:], hot[2]], 1)


def mlp() -> tuple[Task, Rows, list[Model]]:
    task = Classification("t", 30, 2, "mlp", (16,))
    rows = Rows(np.abs(numbers(2, 48, 30)), np.random.default_rng(3).integers(0, 2, 48))
    return task, rows, [cancelling(task, 30, 2.0**30, seed) for seed in range(40)]


def logistic() -> tuple[Task, Rows, list[Model]]:
    task = Classification("t", 20, 2, "logistic", ())
    rows = Rows(columns(48), np.random.default_rng(3).integers(0, 2, 48))
    return task, rows, [one_hot(task, seed) for seed in range(40)]


def regression() -> tuple[Task, Rows, list[Model]]:
    task = Regression("t", 10, "mlp", (16,), -1.0, 1.0)
    rows = Rows(numbers(4, 48, 10), numbers(6, 48))
    return task, rows, [cancelling(task, 10, 2.0**26, seed) for seed in range(40)]


CRAFTED = {"mlp": mlp, "logistic": logistic, "regression": regression}


def without(rows: Rows, row: int) -> Rows:
    keep = np.arange(len(rows)) != row
    return Rows(np.ascontiguousarray(rows.x[keep]), rows.y[keep])


def total(bench: GradientBench, model: Model, rows: Rows) -> np.ndarray:
    return bench.sum(model, rows, 1.0, CLIP, Csprng(bytes(32))).total


@pytest.mark.parametrize("case", CRAFTED)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_moves_the_sum_by_its_own_clipped_term_and_nothing_else(case: str, threads: int) -> None:
    task, rows, crafted = CRAFTED[case]()
    bench, before = GradientBench(Workbench(task)), torch.get_num_threads()  # `auto`, as a run has it
    torch.set_num_threads(threads)
    try:
        for model in crafted[:4]:
            whole = total(bench, model, rows)
            for row in (0, 7, 31, 32, 47):
                one = total(bench, model, Rows(rows.x[row : row + 1].copy(), rows.y[row : row + 1]))
                error = np.linalg.norm(whole - total(bench, model, without(rows, row)) - one)
                assert error <= 2 * len(rows) ** 2 * 2.0**-53 * CLIP
                assert np.linalg.norm(one) <= CLIP * (1 + 2.0**-50)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("case", CRAFTED)
def test_rows_that_are_passed_together_have_a_say_in_each_other(
    case: str, record_property: Callable[..., None]
) -> None:
    """Why ``rows`` is there: with the same models, on most machines, the other ways move the sum by several clips."""
    task, rows, crafted = CRAFTED[case]()
    bench, worst = GradientBench(Workbench(task), "ghost"), 0.0
    for model, count in itertools.product(crafted, range(30, 48)):
        first = Rows(rows.x[:count].copy(), rows.y[:count])
        moved = total(bench, model, first) - total(bench, model, without(first, 0))
        worst = max(worst, float(np.linalg.norm(moved)))
        if worst > 1.0 + SLACK:
            break
    record_property("moved by one row of a pass over many, in clips", worst)
    if worst <= 1.0 + SLACK:
        pytest.skip("the kernels of this machine round a row alike wherever it stands: nothing to see here")


def test_what_is_left_to_rounding_is_within_what_is_accounted_for() -> None:
    """Two float64 sums of n terms err by n^2 2^-53 clips each at most; n may come out above what is expected."""
    drawn = MAX_SUMMANDS * 1.1  # more than that come out with a probability below 2^-200
    assert 2 * drawn**2 * 2.0**-53 <= SLACK


# ------------------------------------------------------------------------------------------------ bit for bit
class Branching(nn.Module):
    """No chain: the sum of two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + torch.tanh(self.other(x))


MODELS: dict[str, tuple[Callable[[], nn.Module], type]] = {
    "logistic": (lambda: models.mlp(64, (), 4), ChainAlone),
    "mlp": (lambda: models.mlp(64, (33, 7), 4), ChainAlone),
    "without bias": (lambda: nn.Sequential(nn.Linear(64, 5, bias=False), nn.Tanh(), nn.Linear(5, 4)), ChainAlone),
    "cnn": (lambda: models.cnn((1, 8, 8), (6,), 4), PlainAlone),
    "branching": (Branching, PlainAlone),
}


def drawn(name: str) -> nn.Module:
    model, draw = MODELS[name][0](), torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=draw)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_row_has_the_same_bits_wherever_it_stands(name: str) -> None:
    model = drawn(name)
    engine = alone(model, nn.functional.cross_entropy, 64)
    assert type(engine) is MODELS[name][1]
    x, y = torch.from_numpy(numbers(8, 37, 64)), torch.arange(37) % 4
    norms, _ = engine.norms(x, y)
    unit = np.eye(37)
    terms = [engine.weighted(torch.from_numpy(unit[row])) for row in range(37)]
    for seed in range(3):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(37)[: 37 - 11 * seed])
        again, _ = engine.norms(x[order], y[order])
        assert again.numpy().tobytes() == norms[order].numpy().tobytes()
        for place, row in enumerate(order.tolist()):
            found = engine.weighted(torch.from_numpy(np.eye(len(order))[place]))
            assert (found == terms[row]).all()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_plain_autograd(name: str) -> None:
    model = drawn(name)
    x, y = torch.from_numpy(numbers(9, 5, 64)), torch.arange(5) % 4
    rows = []
    for row in range(5):
        loss = nn.functional.cross_entropy(model(x[row : row + 1]), y[row : row + 1])
        rows.append(np.concatenate([part.numpy().ravel() for part in torch.autograd.grad(loss, [*model.parameters()])]))
    engine = alone(model, nn.functional.cross_entropy, 64)
    norms, loss = engine.norms(x, y)
    assert norms.numpy() == pytest.approx(np.linalg.norm(rows, axis=1), rel=1e-5)
    assert loss == pytest.approx(nn.functional.cross_entropy(model(x), y, reduction="sum").item(), rel=1e-5)
    factors = np.linspace(0.1, 1.0, 5)
    assert engine.weighted(torch.from_numpy(factors)) == pytest.approx(factors @ np.array(rows), abs=1e-5)


def chains() -> Iterator[tuple[nn.Module, bool]]:
    shared = nn.Linear(4, 4)
    yield nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), True
    yield nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 1)), True
    yield nn.Sequential(shared, nn.ReLU(), shared), False
    yield nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 1), nn.Flatten()), False  # two places for one weight
    yield nn.Sequential(nn.Sequential(nn.Linear(4, 3)), nn.Linear(3, 1)), False
    yield nn.Linear(4, 1), False


@pytest.mark.parametrize(("model", "expected"), chains())
def test_what_is_no_plain_chain_goes_by_autograd(model: nn.Module, expected: bool) -> None:
    assert is_chain(model, 4) == expected
    assert isinstance(alone(model, nn.functional.mse_loss, 4), ChainAlone) == expected


def test_a_layer_used_twice_is_served_as_well() -> None:
    shared = nn.Linear(7, 7)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(7, 1))
    found = ClippedGradients(model, lambda o, y: ((o.squeeze(1) - y) ** 2).mean(), 7, 0, "rows")
    assert np.isfinite(found.sum(torch.randn(9, 7), torch.randn(9), 1.0).total).all()
