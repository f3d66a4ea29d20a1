"""Clipped sums against gradients taken one row at a time, by plain autograd."""

import numpy as np
import pytest
import torch
from torch import nn

from quire.clients.private.gradients import GHOST_SLACK, ClippedGradients
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


@pytest.mark.parametrize("method", ["hooks", "auto"])
@pytest.mark.parametrize("case", CASES)
def test_the_sum_is_that_of_gradients_taken_one_by_one(case, method):
    model, loss, x, y = build(case)
    rows = one_by_one(model, loss, x, y)
    clip = 1.01 * float(np.median(np.linalg.norm(rows, axis=1)))  # no norm is within rounding of it
    found = ClippedGradients(model, loss, method).sum(x, y, clip)
    expected = clipped_sum(rows, clip)
    assert found.clipped == (np.linalg.norm(rows, axis=1) > clip).sum()
    assert found.total == pytest.approx(expected, abs=1e-5 + 2 * GHOST_SLACK * clip * len(y) * (method == "auto"))
    if method == "auto":  # a little shorter where rows were clipped, never longer
        assert np.linalg.norm(found.total - expected) <= GHOST_SLACK * clip * found.clipped * 1.01 + 1e-5


@pytest.mark.parametrize("method", ["hooks", "ghost"])
def test_no_row_moves_the_sum_by_more_than_the_clip(method):
    model, loss, x, y = build("mlp")
    engine, clip = ClippedGradients(model, loss, method), 0.3
    whole = engine.sum(x, y, clip).total
    for row in range(len(y)):
        keep = torch.arange(len(y)) != row
        assert np.linalg.norm(whole - engine.sum(x[keep], y[keep], clip).total) <= clip * (1 + 1e-12)


@pytest.mark.parametrize("method", ["hooks", "ghost"])
def test_a_gradient_that_is_not_finite_adds_nothing_and_is_counted(method):
    model, loss, x, y = build("mlp")
    engine = ClippedGradients(model, loss, method)
    rest = engine.sum(x[2:], y[2:], 1.0).total
    x[0], x[1, 3] = float("nan"), float("inf")
    found = engine.sum(x, y, 1.0)
    assert found.broken == 2
    assert found.total == pytest.approx(rest, abs=1e-6)


def test_rows_that_are_all_broken_leave_zero():
    model, loss, x, y = build("mlp")
    found = ClippedGradients(model, loss).sum(torch.full_like(x, float("nan")), y, 1.0)
    assert found.broken == len(y)
    assert not found.total.any()


def test_an_empty_batch_is_zero():
    model, loss, x, y = build("mlp")
    assert not ClippedGradients(model, loss).sum(x[:0], y[:0], 1.0).total.any()


def test_ghost_clipping_serves_dense_models_and_hooks_the_others():
    assert ClippedGradients(*build("mlp")[:2]).ghost
    assert not ClippedGradients(*build("cnn")[:2]).ghost


def test_ghost_clipping_of_a_layer_without_a_rule_is_refused():
    with pytest.raises(SettingsError, match=r"no rule for the layer Conv2d: take privacy\.gradients=hooks"):
        ClippedGradients(*build("cnn")[:2], "ghost")


def test_batch_norm_is_refused_with_the_fix():
    model = nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(SettingsError, match="GroupNorm is the usual way"):
        ClippedGradients(model, binary)
