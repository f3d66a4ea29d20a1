"""The regression behind property inference, and what makes shares of its answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.attacks.properties import as_shares, distance, fit

ROWS = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


def test_a_linear_truth_is_learned():
    rng = np.random.default_rng(1)
    x, slopes = rng.normal(3, 2, (80, 5)), rng.normal(0, 1, (5, 2))
    y = x @ slopes + 1 + rng.normal(0, 0.01, (80, 2))
    unseen = rng.normal(3, 2, (20, 5))
    assert fit(x, y).predict(unseen) == pytest.approx(unseen @ slopes + 1, abs=0.1)


def test_where_there_is_nothing_to_learn_the_mean_is_said():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (60, 30)), rng.normal(0.3, 0.1, (60, 1))
    said = fit(x, y).predict(rng.normal(0, 1, (200, 30)))
    assert np.abs(said - y.mean()).mean() < 0.03
    with pytest.raises(ValueError, match="two rows"):
        fit(x[:1], y[:1])


@given(ROWS)
def test_shares_are_shares_and_the_nearest(values):
    row = np.array([values])
    found = as_shares(row)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    for other in rng.dirichlet(np.ones(len(values)), 20):
        assert np.linalg.norm(found - row) <= np.linalg.norm(other - row) + 1e-9
    assert as_shares(found) == pytest.approx(found)


def test_the_distance_is_total_variation():
    assert distance(np.array([[1.0, 0], [0.5, 0.5]]), np.array([[0.0, 1], [0.5, 0.5]])).tolist() == [1, 0]
