"""Clipped sums against gradients taken one row at a time, by plain autograd."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from quire.clients.private.gradients import ClippedGradients
from quire.clients.tasks import models
from quire.errors import SettingsError


def binary(outputs, y):
    return nn.functional.binary_cross_entropy_with_logits(outputs.squeeze(1), y.float())


CASES = {
    "logistic": (lambda: models.mlp(7, (), 1), (90, 7), 2, binary),
    "mlp": (lambda: models.mlp(7, (16, 5), 3), (90, 7), 3, nn.functional.cross_entropy),
    "regression": (lambda: models.mlp(7, (4,), 1), (90, 7), 2, lambda o, y: ((o.squeeze(1) - y.float()) ** 2).mean()),
    "cnn": (lambda: models.cnn((1, 8, 8), (6,), 4), (9, 64), 4, nn.functional.cross_entropy),
}


def build(case, seed=0):
    make, shape, classes, loss = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    x = torch.randn(shape, generator=generator)
    return model, loss, x, torch.randint(0, classes, (shape[0],), generator=generator)


def one_by_one(model, loss, x, y):
    rows = []
    for row in range(len(y)):
        gradients = torch.autograd.grad(loss(model(x[row : row + 1]), y[row : row + 1]), list(model.parameters()))
        rows.append(np.concatenate([part.double().numpy().ravel() for part in gradients]))
    return np.array(rows)


def clipped_sum(rows, clip):
    return (rows * np.minimum(1.0, clip / np.linalg.norm(rows, axis=1))[:, None]).sum(axis=0)


def engine_of(case, model, loss, method="auto"):
    """The engine, with the model's parameters as they were: it tries itself out on others."""
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    _, shape, classes, _ = CASES[case]
    engine = ClippedGradients(model, loss, shape[1], 0 if case == "regression" else classes, method)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), kept, strict=True):
            parameter.copy_(value)
    return engine


@pytest.mark.parametrize("method", ["hooks", "auto", "rows"])
@pytest.mark.parametrize("case", CASES)
def test_the_sum_is_that_of_gradients_taken_one_by_one(case, method):
    model, loss, x, y = build(case)
    rows = one_by_one(model, loss, x, y)
    clip = 1.01 * float(np.median(np.linalg.norm(rows, axis=1)))  # no norm is within rounding of it
    found = engine_of(case, model, loss, method).sum(x, y, clip)
    assert found.clipped == (np.linalg.norm(rows, axis=1) > clip).sum()
    assert found.total == pytest.approx(clipped_sum(rows, clip), abs=1e-5)


@pytest.mark.parametrize("method", ["hooks", "ghost", "rows"])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e8, 1e18])
def test_no_row_moves_the_sum_by_more_than_the_clip_whatever_the_model(method, scale):
    """The server chooses the model: gradients that vanish in float32 squares, or cancel differently in two passes."""
    model, loss, x, y = build("mlp")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    engine, clip = engine_of("mlp", model, loss, method), 0.3
    whole = engine.sum(x, y, clip).total
    for row in range(0, len(y), 7):
        keep = torch.arange(len(y)) != row
        assert np.linalg.norm(whole - engine.sum(x[keep], y[keep], clip).total) <= clip * (1 + 1e-6) or (
            scale > 1.0 and method != "rows"
        )
        alone = engine.sum(x[row : row + 1], y[row : row + 1], clip)
        assert np.linalg.norm(alone.total) <= clip * (1 + 1e-12)


@pytest.mark.parametrize("method", ["hooks", "ghost", "rows"])
def test_a_gradient_too_small_to_be_squared_is_clipped(method):
    model = nn.Sequential(nn.Linear(1, 1))
    engine = ClippedGradients(model, binary, 1, 2, method)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-60.0)
    found = engine.sum(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), 1e-27)
    assert found.clipped == 3
    assert np.linalg.norm(found.total) == pytest.approx(3e-27, rel=1e-6)


@pytest.mark.parametrize("method", ["hooks", "ghost", "rows"])
def test_a_gradient_that_is_not_finite_adds_nothing_and_is_counted(method):
    model, loss, x, y = build("mlp")
    engine = engine_of("mlp", model, loss, method)
    rest = engine.sum(x[2:], y[2:], 1.0).total
    x[0], x[1, 3] = float("nan"), float("inf")
    found = engine.sum(x, y, 1.0)
    assert found.broken == 2
    assert found.total == pytest.approx(rest, abs=1e-6)


def test_rows_that_are_all_broken_leave_zero():
    model, loss, x, y = build("mlp")
    found = engine_of("mlp", model, loss).sum(torch.full_like(x, float("nan")), y, 1.0)
    assert found.broken == len(y)
    assert not found.total.any()


def test_an_empty_batch_is_zero():
    model, loss, x, y = build("mlp")
    assert not engine_of("mlp", model, loss).sum(x[:0], y[:0], 1.0).total.any()


class Doubled(nn.Module):
    """A parameter of its own, and layers in a subclass: no rule for either."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(7, 7), nn.PReLU(7), nn.Linear(7, 1)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Twice(nn.Module):
    """One layer in two places."""

    def __init__(self):
        super().__init__()
        self.dense, self.out = nn.Linear(7, 7), nn.Linear(7, 1)

    def forward(self, x):
        return self.out(self.dense(torch.tanh(self.dense(x))))


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.out = nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 1)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.out(self.other(torch.tanh(self.one(x))))


class Turned(nn.Module):
    """Rows second where the layer sees them."""

    def __init__(self):
        super().__init__()
        self.dense, self.out = nn.Linear(1, 3), nn.Linear(21, 1)

    def forward(self, x):
        return self.out(self.dense(x.T.unsqueeze(2)).transpose(0, 1).flatten(1))


def test_books_are_kept_of_dense_and_convolutional_models():
    for case in CASES:
        assert engine_of(case, *build(case)[:2]).ghost
        assert not engine_of(case, *build(case)[:2], "rows").ghost
        assert not engine_of(case, *build(case)[:2], "hooks").ghost


@pytest.mark.parametrize("make", [Twice, Doubled])
def test_what_has_no_rule_falls_back_to_hooks_by_itself(make):
    _, loss, x, y = build("logistic")
    model = make()
    twin = copy.deepcopy(model)
    engine = ClippedGradients(model, loss, 7, 2)
    assert not engine.ghost
    model.load_state_dict(twin.state_dict())  # it tried itself out on others
    rows = one_by_one(twin, loss, x, y)
    clip = 1.01 * float(np.median(np.linalg.norm(rows, axis=1)))
    assert engine.sum(x, y, clip).total == pytest.approx(clipped_sum(rows, clip), abs=1e-5)


@pytest.mark.parametrize("make", [Tied, Turned])
def test_what_neither_serves_is_right_or_refused(make):
    """Opacus' hooks serve some of these; what they do not serve is found out before a model is trained."""
    _, loss, x, y = build("logistic")
    model = make()
    twin = copy.deepcopy(model)
    try:
        engine = ClippedGradients(model, loss, 7, 2)
    except SettingsError:
        return
    assert not engine.ghost
    model.load_state_dict(twin.state_dict())
    rows = one_by_one(twin, loss, x, y)
    assert engine.sum(x, y, 0.1).total == pytest.approx(clipped_sum(rows, 0.1), abs=1e-5)


@pytest.mark.parametrize(("make", "words"), [(Doubled, "this model has others"), (Twice, "more than once")])
def test_ghost_clipping_of_what_has_no_rule_is_refused(make, words):
    with pytest.raises(SettingsError, match=rf"{words}.* take privacy\.gradients=hooks"):
        ClippedGradients(make(), binary, 7, 2, "ghost")


def test_a_frozen_parameter_is_refused():
    model = models.mlp(7, (4,), 1)
    model[0].bias.requires_grad_(False)
    with pytest.raises(SettingsError, match=r"'0\.bias' is frozen"):
        ClippedGradients(model, binary, 7, 2)


class Mixing(nn.Module):
    """Takes the mean of the batch away: nothing in it is a layer that a validator knows."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(7, 1)

    def forward(self, x):
        return self.dense(x - x.mean(0))


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(7, 1)

    def forward(self, x):
        return self.dense(nn.functional.dropout(x, 0.5, True))


class Borrowing(nn.Module):
    """Uses one layer's weight in a second place, where no hook sees it."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(7, 7)
        self.out = nn.Linear(7, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.dense(x)) @ self.dense.weight.T)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("method", ["hooks", "auto"])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Mixing, "depends on the rows beside it"),
        (Dropping, "it draws random numbers"),
        (Borrowing, "a parameter is used where it is not seen"),
        (Normed, "GroupNorm is the usual way"),
    ],
)
def test_a_model_without_gradients_of_single_rows_is_refused(model, words, method):
    with pytest.raises(SettingsError, match=words):
        ClippedGradients(model(), binary, 7, 2, method)
