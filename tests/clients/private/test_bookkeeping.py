"""Book-keeping against Opacus' per-sample gradients, for every layer that has a rule, and for models put together."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleModule
from torch import nn

from quire.clients.private import layer_rules
from quire.clients.private.bookkeeping import BookKept, clipped_sum, keeps_books
from quire.clients.private.layer_rules import NoRule

ROWS = 5


class Scored(nn.Module):
    """Some layers, and of what comes out one number for each row: a random weighting, which has no parameters."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        out = self.layers(x).flatten(1)
        weights = torch.linspace(-1.0, 1.0, out.shape[1], dtype=out.dtype).sin()
        return (out * weights).sum(1) + 0.1 * out.square().sum(1)


def squared(outputs, y):
    return (outputs - y).square().mean()


def drawn(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype) - 0.5)
    return model


def by_opacus(model, loss, x, y):
    """Each row's gradient, float64 of shape (rows, parameters)."""
    wrapped = GradSampleModule(model, loss_reduction="sum", strict=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows need no gradient themselves
            (loss(wrapped(x), y) * len(y)).backward()
        parts = [
            parameter.grad_sample.reshape(len(y), -1).double().numpy()
            if parameter.requires_grad
            else np.zeros((len(y), parameter.numel()))
            for parameter in model.parameters()
        ]
        for parameter in model.parameters():
            parameter.grad = None
            if parameter.requires_grad:
                del parameter.grad_sample
    finally:
        wrapped.remove_hooks()
        wrapped._close()
    return np.concatenate(parts, axis=1)


def by_autograd(model, loss, x, y):
    """The same by plain autograd, one row after the other."""
    rows = []
    for row in range(len(y)):
        found = torch.autograd.grad(loss(model(x[row : row + 1]), y[row : row + 1]), list(model.parameters()))
        rows.append(np.concatenate([part.double().numpy().ravel() for part in found]))
    return np.array(rows)


def hold(model, x, loss=squared, tolerance=1e-5, oracle=by_opacus):
    """Norms and clipped sum are those of the gradients that Opacus keeps, at a clip that half of the rows exceed."""
    y = torch.linspace(-1.0, 1.0, len(x), dtype=torch.float64).to(next(model.parameters()).dtype)
    assert keeps_books(model)
    rows = oracle(model, loss, x, y)
    norms = np.linalg.norm(rows, axis=1)
    clip = float(np.median(norms))
    total, found = clipped_sum(model, loss, None, x, y, clip)
    assert total.dtype == found.dtype == torch.float64
    assert found.numpy() == pytest.approx(norms, rel=tolerance)
    expected = (rows * np.minimum(1.0, clip / np.maximum(norms, 1e-300))[:, None]).sum(0)
    assert np.abs(total.numpy() - expected).max() <= tolerance * np.linalg.norm(expected)


def numbers(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ layers
@given(
    wide=st.integers(1, 9), out=st.integers(1, 9), between=st.lists(st.integers(1, 4), max_size=2), bias=st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_a_dense_layer_on_rows_and_on_sequences(wide, out, between, bias):
    model, x = Scored(nn.Linear(wide, out, bias=bias)), numbers(ROWS, *between, wide)
    hold(drawn(model).double(), x.double(), tolerance=1e-9)


@st.composite
def convolutions(draw):
    dimensions = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * dimensions))
    same = draw(st.booleans())
    options = {
        "kernel_size": kernel,
        "stride": 1 if same else draw(st.tuples(*[st.integers(1, 2)] * dimensions)),
        "padding": "same" if same else draw(st.one_of(st.just("valid"), st.tuples(*[st.integers(0, 2)] * dimensions))),
        "dilation": draw(st.tuples(*[st.integers(1, 2)] * dimensions)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    channels = groups * draw(st.integers(1, 3))
    layer = (nn.Conv1d, nn.Conv2d)[dimensions - 1](channels, groups * draw(st.integers(1, 4)), **options)
    return layer, (channels, *draw(st.tuples(*[st.integers(5, 8)] * dimensions)))


@given(case=convolutions())
@settings(max_examples=60, deadline=None)
def test_a_convolution(case):
    """In float64: with one weight, a row's gradient may cancel to nothing next to the terms that float32 rounds."""
    layer, shape = case
    hold(drawn(Scored(layer)).double(), numbers(ROWS, *shape).double(), tolerance=1e-9)


def test_a_convolution_of_volumes():
    hold(drawn(Scored(nn.Conv3d(2, 3, (2, 3, 2), stride=2, padding=1))), numbers(ROWS, 2, 5, 6, 4))


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 5), (4, 6)),
        (nn.Linear(6, 5, bias=False), (2, 3, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 6, 5)),
        (nn.Conv2d(4, 6, (2, 3), dilation=2, padding="same", bias=False), (4, 6, 5)),
    ],
)
def test_both_ways_to_a_norm_at_places(monkeypatch, ghost, layer, shape):
    monkeypatch.setattr(layer_rules, "ghostly", lambda *_: ghost)
    model = drawn(Scored(layer))
    books = BookKept(model, squared)
    books.norms(numbers(ROWS, *shape), torch.zeros(ROWS))
    assert (books.cells == 0) is ghost
    books.close()
    hold(model, numbers(ROWS, *shape))


@given(groups=st.integers(1, 3), each=st.integers(1, 3), space=st.lists(st.integers(2, 4), max_size=2))
@example(groups=2, each=3, space=[])
@settings(max_examples=15, deadline=None)
def test_group_norm(groups, each, space):
    channels = groups * each
    hold(drawn(Scored(nn.GroupNorm(groups, channels), nn.Tanh())), numbers(ROWS, channels, *space))


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 4, 6)])
def test_layer_norm(shape):
    hold(drawn(Scored(nn.LayerNorm(6), nn.Tanh())), numbers(ROWS, *shape))
    hold(drawn(Scored(nn.LayerNorm(shape), nn.Tanh())), numbers(ROWS, *shape))


@given(
    entries=st.lists(st.lists(st.integers(0, 6), min_size=4, max_size=4), min_size=1, max_size=6),
    padding=st.sampled_from([None, 0, 3]),
)
@settings(max_examples=20, deadline=None)
def test_an_embedding_that_a_row_looks_up_more_than_once(entries, padding):
    model = drawn(Scored(nn.Embedding(7, 3, padding_idx=padding), nn.Linear(3, 2)))
    # Opacus (1.6) gives the entry for padding a gradient, which by torch it has not: there, rows are taken one by one.
    hold(model, torch.tensor(entries), oracle=by_opacus if padding is None else by_autograd)


# ------------------------------------------------------------------------------------------------ models
@st.composite
def architectures(draw):
    layers, channels, side = [], draw(st.integers(1, 3)), draw(st.integers(6, 9))
    shape = (channels, side, side)
    for _ in range(draw(st.integers(0, 2))):
        wide = 2 * draw(st.integers(1, 3))
        layers.append(nn.Conv2d(channels, wide, 3, padding=1, bias=draw(st.booleans())))
        layers += [nn.GroupNorm(2, wide)] if draw(st.booleans()) else []
        layers += [nn.ReLU(inplace=draw(st.booleans()))] if draw(st.booleans()) else [nn.Tanh()]
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if draw(st.booleans()) else []
        channels = wide
    layers.append(nn.Flatten())
    size = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
    for _ in range(draw(st.integers(1, 3))):
        wide = draw(st.integers(1, 8))
        layers.append(nn.Linear(size, wide, bias=draw(st.booleans())))
        layers += [nn.LayerNorm(wide)] if draw(st.booleans()) and wide > 1 else []
        layers.append(nn.Tanh())
        size = wide
    return Scored(*layers), shape


@given(case=architectures(), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_models_put_together_at_random(case, seed):
    model, shape = case
    # Opacus' hooks do not work beside functions in place. By plain autograd a row takes a float32 pass of its own.
    in_place = any(getattr(layer, "inplace", False) for layer in model.modules())
    oracle = by_autograd if in_place else by_opacus
    hold(drawn(model, seed).double(), numbers(ROWS, *shape, seed=seed).double(), tolerance=1e-9, oracle=oracle)
    if not in_place:
        hold(model.float(), numbers(ROWS, *shape, seed=seed))


def test_parameters_from_elsewhere_and_no_trace_of_it():
    model, other = (drawn(Scored(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)), n) for n in (1, 2))
    x, y = numbers(ROWS, 2, 6, 6), torch.zeros(ROWS)
    before = [parameter.clone() for parameter in model.parameters()]
    found, norms = clipped_sum(model, squared, dict(other.named_parameters()), x, y, 0.5)
    expected, own = clipped_sum(other, squared, None, x, y, 0.5)
    assert torch.equal(found, expected)
    assert torch.equal(norms, own)
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
    assert not any(layer._forward_hooks for layer in model.modules())
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_frozen_parameters_have_no_part_in_the_norm_and_none_in_the_sum():
    model = drawn(Scored(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Conv1d(1, 2, 2), nn.LayerNorm(2)))
    model.layers.insert(4, nn.Unflatten(1, (1, 3)))
    for frozen in ("layers.0.weight", "layers.0.bias", "layers.2.bias", "layers.5.weight", "layers.6.weight"):
        model.get_parameter(frozen).requires_grad_(False)
        hold(model, numbers(ROWS, 4))
    model.get_parameter("layers.2.weight").requires_grad_(False)
    hold(model, numbers(ROWS, 4))


@pytest.mark.parametrize(
    "middle",
    [nn.Linear(4, 4), nn.LayerNorm(4), nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 4, 1), nn.Flatten())],
)
def test_a_layer_that_is_frozen_between_two_others_has_no_part_in_the_norm(middle):
    model = drawn(Scored(nn.Linear(4, 4), nn.Tanh(), middle, nn.Tanh(), nn.Linear(4, 3)))
    middle.requires_grad_(False)
    hold(model, numbers(ROWS, 4))


# ------------------------------------------------------------------------------------------------ rows
def test_no_rows_give_zero_and_broken_rows_add_zero():
    model = drawn(Scored(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    x, y = numbers(ROWS, 1, 6), torch.zeros(ROWS)
    total, norms = clipped_sum(model, squared, None, x[:0], y[:0], 1.0)
    assert (total.shape, norms.shape, float(total.abs().sum())) == ((26,), (0,), 0.0)
    rest, _ = clipped_sum(model, squared, None, x[2:], y[2:], 1.0)
    x[0, 0, 3], x[1, 0, 1] = float("nan"), float("inf")
    total, norms = clipped_sum(model, squared, None, x, y, 1.0)
    assert torch.isfinite(norms).tolist() == [False, False, True, True, True]
    assert total.numpy() == pytest.approx(rest.numpy(), abs=1e-6)
    total, _ = clipped_sum(model, squared, None, torch.full_like(x, float("nan")), y, 1.0)
    assert not total.any()


@given(scale=st.sampled_from([1e-18, 1e-6, 1.0, 1e6, 1e15]), seed=st.integers(0, 20), ghost=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_row_adds_no_more_than_the_clip_even_where_its_places_cancel(scale, seed, ghost):
    """What goes in is nearly constant and its pulls add up to nearly nothing: the norm is a difference of the like."""
    given = (1.0 + 1e-7 * numbers(3, 6, 8, seed=seed)) * scale
    pull = numbers(3, 6, 7, seed=seed + 1)
    pull -= pull.mean(1, keepdim=True)
    if ghost:
        part = layer_rules.Places(given, pull, bias=True)
    else:
        part = layer_rules.Kept({"weight": torch.bmm(pull.transpose(1, 2), given), "bias": pull.sum(1)})
    norms, clip = part.squares().sqrt(), 0.3
    for row in range(3):
        factors = torch.zeros(3, dtype=torch.float64)
        factors[row] = torch.clamp(clip / norms[row].clamp(min=1e-300), max=1.0)
        weight, bias = torch.empty(7, 8, dtype=torch.float64), torch.empty(7, dtype=torch.float64)
        part.write(factors, weight, bias)
        assert float(torch.cat([weight.reshape(-1), bias]).norm()) <= clip * (1 + 1e-7)


class Stepping(nn.Module):
    """Changes in place what a layer has seen: the gradient of the layer would be that of something else."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 1)

    def forward(self, x):
        seen = x * 2.0
        out = self.dense(seen)
        seen.add_(1.0)
        return out.squeeze(1)


class Folding(nn.Module):
    """Shows a layer two rows of each row."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(2, 1)

    def forward(self, x):
        return self.dense(x.reshape(-1, 2)).reshape(len(x), -1).sum(1)


class Skipping(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.other = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x):
        return self.dense(x).squeeze(1)


@pytest.mark.parametrize(
    ("make", "words"), [(Stepping, "changed in place"), (Folding, "something else than rows"), (Skipping, "not used")]
)
def test_a_use_without_a_rule_is_told(make, words):
    with pytest.raises(NoRule, match=words):
        clipped_sum(make(), squared, None, numbers(ROWS, 4), torch.zeros(ROWS), 1.0)


def scaled():
    """A dense layer as hooks of torch's leave it that make its weight of other parameters."""
    layer = nn.Linear(2, 2)
    layer.register_parameter("weight_g", nn.Parameter(torch.ones(2, 1)))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(1, 1, 3),
        nn.Embedding(3, 2, max_norm=1.0),
        nn.Embedding(3, 2, scale_grad_by_freq=True),
        nn.BatchNorm1d(3),
        nn.PReLU(),
        nn.GRU(2, 2),
        nn.ReLU(),
        nn.Bilinear(2, 2, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        scaled(),
    ],
)
def test_other_layers_have_no_rule(layer):
    assert not keeps_books(nn.Sequential(layer))
