"""LiRA where the truth is known: statistics that really are Gaussian."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from quire.privacy.attacks import roc
from quire.privacy.attacks.membership import confidence, offline, online


def world(gap, shadows=200, records=400, seed=1):
    """Shadows of records with means of their own, ``gap`` spreads higher where they were trained on."""
    rng = np.random.default_rng(seed)
    level, trained = rng.normal(0, 5, records), rng.random((shadows, records)) < 0.5
    values = level + gap * trained + rng.normal(0, 1, (shadows, records))
    inside = rng.random(records) < 0.5
    return level + gap * inside + rng.normal(0, 1, records), values, trained, inside


def test_lira_is_as_good_as_it_can_be_where_a_threshold_is_blind():
    observed, shadows, trained, inside = world(2.0, records=3000)
    best = norm.cdf(2.0 / np.sqrt(2))  # of the test that knows everything
    assert roc.auc(online(observed, shadows, trained), inside).value == pytest.approx(best, abs=0.015)
    assert roc.auc(offline(observed, shadows, trained), inside).value == pytest.approx(best, abs=0.015)
    assert roc.auc(observed, inside).value < 0.65


def test_the_ratio_is_that_of_two_gaussians():
    observed, shadows, trained, _ = world(2.0, shadows=20_000, records=5)
    level = np.where(trained, 0, shadows).sum(axis=0) / (~trained).sum(axis=0)
    expected = norm.logpdf(observed, level + 2, 1) - norm.logpdf(observed, level, 1)
    assert online(observed, shadows, trained) == pytest.approx(expected, abs=0.3)
    assert offline(observed, shadows, trained) == pytest.approx(observed - level, abs=0.1)


def test_where_training_leaves_no_trace_nothing_is_found():
    observed, shadows, trained, inside = world(0.0, records=2000)
    found = roc.auc(online(observed, shadows, trained), inside)
    assert found.low <= 0.5 <= found.high


def test_a_record_that_no_shadow_knows_either_way_gets_no_score():
    trained = np.array([[True, True, False], [True, False, False], [True, True, False]])
    found = online(np.zeros(3), np.arange(9.0).reshape(3, 3), trained)
    assert found[0] == 0
    assert found[2] == 0
    assert np.isfinite(found).all()
    assert offline(np.ones(3), np.zeros((3, 3)), trained)[0] == 0


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.integers(0, 2))
def test_confidence_is_the_logit_of_the_probability(logits, label):
    found = confidence(np.array([logits]), np.array([label]))[0]
    shares = np.exp(np.array(logits) - max(logits))
    shares /= shares.sum()
    others = shares.sum() - shares[label]
    if others > 1e-9 and shares[label] > 1e-9:
        assert found == pytest.approx(np.log(shares[label] / others), rel=1e-6, abs=1e-6)
    assert np.isfinite(found)


def test_confidence_stays_finite_and_knows_two_classes_by_one_logit():
    assert confidence(np.array([[1000.0, 0.0]]), np.array([0]))[0] == 1000
    assert confidence(np.array([[3.0], [3.0]]), np.array([1, 0])).tolist() == [3, -3]
