"""Rows back from gradients: exactly, where mathematics says so."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.attacks import reconstruction as rec


def network(units, features=12, classes=4, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(features, units), torch.nn.ReLU(), torch.nn.Linear(units, classes)
    ).double()


def gradient_of(model):
    parameters = list(model.parameters())

    def gradient(x, y):
        loss = torch.nn.functional.cross_entropy(model(x.to(parameters[0].dtype)), y)
        return torch.autograd.grad(loss, parameters, create_graph=True)

    return gradient


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3).filter(lambda scale: abs(scale) > 1e-3))
def test_the_gradient_of_one_row_gives_the_row(seed, scale):
    row = np.random.default_rng(seed).random((1, 12))
    weight, bias, *_ = gradient_of(network(16, seed=seed))(torch.from_numpy(row), torch.tensor([1]))
    found = rec.by_division(scale * weight.detach().numpy(), scale * bias.detach().numpy(), 3)
    assert found.shape[1] == 12
    assert np.abs(found[0] - row[0]).max() < 1e-6


def test_a_row_that_alone_moves_a_unit_comes_before_mixtures():
    rows = np.array([[1.0, 0, 0, 0.2], [0, 1.0, 0, 0.4], [0, 0.5, 1.0, 0.1]])
    pulls = np.array([[0.3, 0, 0], [0.2, 0, 0], [0.1, 0.3, 0.1], [0, 0.2, 0.3]])  # the first row moves two units alone
    found = rec.by_division(pulls @ rows, pulls.sum(axis=1), 4)
    assert np.allclose(found[0], rows[0])
    assert len(found) == 3


def test_units_that_nothing_moved_and_impossible_rows_give_nothing():
    assert rec.by_division(np.zeros((3, 5)), np.zeros(3), 8).shape == (0, 5)
    assert rec.by_division(np.array([[9.0, 0.0]]), np.array([1.0]), 8).shape == (0, 2)


def test_labels_come_from_the_last_bias():
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    for labels in itertools.combinations_with_replacement(range(4), 3):
        counts = np.bincount(labels, minlength=4)
        assert rec.labels_from(shares - counts / 3, shares, 3).tolist() == list(labels)
    assert rec.labels_from(np.full(4, 9.0), shares, 5).shape == (5,)


def test_the_search_finds_the_rows_of_a_batch():
    model = network(48, features=16).float()
    rows = np.random.default_rng(3).random((2, 16)).astype(np.float32)
    labels = np.array([0, 2])
    gradient = gradient_of(model)
    target = [part.detach().numpy() for part in gradient(torch.from_numpy(rows), torch.from_numpy(labels))]
    scaled = [-0.1 * part for part in target]  # an update: the attack may not look at its size
    given_back, short = [-part for part in scaled], rec.Search(steps=250, tries=1)
    found, distance = rec.by_search(gradient, given_back, labels, 16, np.random.default_rng(1), (4, 4), short)
    assert rec.matched(found, rows).similarity.min() > 0.98
    assert distance < 1e-2
    noise = [np.random.default_rng(2).normal(0, 1, part.shape) for part in target]
    lost, far = rec.by_search(
        gradient, noise, labels, 16, np.random.default_rng(1), None, rec.Search(steps=50, tries=1)
    )
    assert rec.matched(lost, rows).similarity.max() < 0.98
    assert far > 0.3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 999))
def test_the_assignment_is_the_best_there_is(truths, guesses, seed):
    rng = np.random.default_rng(seed)
    truth, guess = rng.random((truths, 6)), rng.random((guesses, 6))
    table = rec.correlation(truth, guess)
    found = rec.matched(guess, truth)
    slow = max(
        sum(table[row, column] for row, column in zip(rows, columns, strict=True))
        for size in [min(truths, guesses)]
        for rows in itertools.combinations(range(truths), size)
        for columns in itertools.permutations(range(guesses), size)
    )
    assert found.similarity.sum() == pytest.approx(slow)
    assert (found.guess >= 0).sum() == min(truths, guesses)
    assert table == pytest.approx(np.corrcoef(truth, guess)[:truths, truths:])


def test_no_guess_and_a_blank_guess_are_like_nothing():
    truth = np.random.default_rng(1).random((2, 6))
    assert rec.matched(np.zeros((0, 6)), truth).similarity.tolist() == [0, 0]
    assert rec.correlation(np.ones((1, 6)), truth).tolist() == [[0, 0]]
