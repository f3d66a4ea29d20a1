"""ROC, AUC and rates against what their definitions say, counted slowly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.attacks import roc

SCORES = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({inside for _, inside in rows}) == 2
)


def arrays(rows):
    return np.array([score for score, _ in rows], float), np.array([inside for _, inside in rows])


@given(SCORES)
def test_auc_is_the_chance_that_a_member_scores_higher(rows):
    scores, members = arrays(rows)
    pairs = [(a > b) + (a == b) / 2 for a in scores[members] for b in scores[~members]]
    found = roc.auc(scores, members)
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.low <= found.value <= found.high
    fpr, tpr = roc.curve(scores, members)
    assert np.trapezoid(tpr, fpr) == pytest.approx(found.value)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


@given(SCORES, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_true_positives_are_those_of_the_best_threshold_that_keeps_to_the_rate(rows, rate):
    scores, members = arrays(rows)
    slow = [
        (scores[members] > threshold).mean()
        for threshold in [*scores, np.inf, -np.inf]
        if (scores[~members] > threshold).mean() <= rate + 1e-12
    ]
    assert roc.true_positives_at(scores, members, rate).value == pytest.approx(max(slow))


@given(SCORES)
def test_the_best_threshold_is_the_best(rows):
    scores, members = arrays(rows)
    best = roc.balanced_accuracy(scores > roc.best_threshold(scores, members), members).value
    for threshold in [*scores, *(scores - 0.5), np.inf, -np.inf]:
        assert best >= roc.balanced_accuracy(scores > threshold, members).value - 1e-12


def test_delong_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth, covered, tries = 0.7602, 0, 300  # of normal scores one standard deviation apart: Phi(1/sqrt 2)
    for _ in range(tries):
        scores = np.concatenate([rng.normal(1, 1, 60), rng.normal(0, 1, 80)])
        found = roc.auc(scores, np.arange(140) < 60)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / tries <= 0.98


def test_a_share_has_the_exact_interval():
    found = roc.share(0, 30)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert roc.share(30, 30).high == 1
    with pytest.raises(ValueError, match="between none and all"):
        roc.share(1, 0)


@pytest.mark.parametrize(
    ("scores", "members"),
    [([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False]), ([1.0, np.nan], [True, False]), ([1.0], [True, False])],
)
def test_what_is_no_question_is_refused(scores, members):
    with pytest.raises(ValueError, match="score"):
        roc.curve(np.array(scores), np.array(members))


@settings(max_examples=30)
@given(SCORES, st.floats(0.1, 10), st.floats(-5, 5))
def test_auc_does_not_care_for_the_scale(rows, scale, shift):
    scores, members = arrays(rows)
    assert roc.auc(scale * scores + shift, members).value == pytest.approx(roc.auc(scores, members).value)
