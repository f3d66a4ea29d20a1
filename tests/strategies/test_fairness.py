"""How evenly scores fall to silos: the worst, the spread, and who they are."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quire.strategies.fairness import spread, spreads
from quire.strategies.reading import Failure
from quire.strategies.report import RoundReport

SCORES = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-10, 10), min_size=2, max_size=30)


@given(SCORES)
def test_figures_are_those_of_the_scores(scores):
    found, values = spread(scores, "accuracy"), sorted(scores.values())
    assert (found["worst"], found["best"], found["silos"]) == (values[0], values[-1], len(values))
    assert scores[found["worst_silo"]] == found["worst"]
    assert scores[found["best_silo"]] == found["best"]
    assert math.isclose(found["mean"], np.mean(values), abs_tol=1e-9)
    assert math.isclose(found["std"], np.std(values), abs_tol=1e-9)
    assert math.isclose(found["worst_tenth"], np.mean(values[: max(1, len(values) // 10)]), abs_tol=1e-9)


@given(SCORES)
def test_of_a_loss_the_largest_is_the_worst(scores):
    up, down = spread(scores, "tuned_loss"), spread({silo: -value for silo, value in scores.items()}, "tuned_accuracy")
    assert up["worst_silo"] == down["worst_silo"]
    assert up["worst"] == max(scores.values()) == -down["worst"]


def test_only_scores_that_are_known_and_finite_and_of_two_silos_count():
    silos = {
        "a": {"accuracy": 0.5, "rows": 7.0, "train_loss": 1.0, "loss": 1e308, "auc": 0.9, "made/up": 1.0},
        "b": {"accuracy": 0.75, "rows": 8.0, "train_loss": 2.0, "loss": 1.7e308},
    }
    found = spreads(silos)
    assert list(found) == ["accuracy"]
    assert found["accuracy"]["worst_silo"] == "a"


def test_a_round_is_journalled_with_it_and_without_it_where_nobody_scored():
    report = RoundReport(3, failed=[Failure("c", "train", "late", "it is late")])
    assert "fairness" not in report.journalled()
    report.silos = {"a": {"accuracy": 0.5}, "b": {"accuracy": 1.0}}
    line = report.journalled()
    assert line["fairness"]["accuracy"]["mean"] == 0.75
    assert line["failed"] == [{"silo": "c", "stage": "train", "code": "late", "words": "it is late"}]
    assert "lost" not in line
