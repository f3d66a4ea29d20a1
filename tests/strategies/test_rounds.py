"""The round core against few-line references and against Flower's own strategies."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Averaging, Proximal
from quire.strategies.rounds import Cohort, RoundState, Update, advance

numbers = st.floats(-1e3, 1e3, width=32)
cohorts = st.lists(
    st.tuples(hnp.arrays(np.float32, (3,), elements=numbers), st.integers(1, 10**6)), min_size=1, max_size=6
)


def updates_of(cohort):
    return [Update(f"silo-{place}", {"w": array}, float(weight)) for place, (array, weight) in enumerate(cohort)]


@given(cohorts, hnp.arrays(np.float32, (3,), elements=numbers), st.floats(0.1, 2.0))
def test_a_round_is_the_weighted_mean_written_out(cohort, model, server_lr):
    state = advance(RoundState(4, {"w": model}), updates_of(cohort), Averaging(server_lr), PlainMean())
    arrays, weights = np.array([a for a, _ in cohort], np.float64), np.array([w for _, w in cohort], np.float64)
    expected = model + server_lr * (weights @ arrays) / weights.sum()
    np.testing.assert_allclose(state.model["w"], expected, rtol=1e-6, atol=1e-4)
    assert state.model["w"].dtype == np.float32
    assert state.round == 5


@given(cohorts)
def test_the_mean_lies_between_the_smallest_and_the_largest_update(cohort):
    mean = PlainMean().mean(updates_of(cohort), Cohort(1, ()))["w"]
    arrays = np.array([a for a, _ in cohort], np.float64)
    assert mean.dtype == np.float64
    assert (mean >= arrays.min(axis=0) - 1e-9).all()
    assert (mean <= arrays.max(axis=0) + 1e-9).all()


@settings(max_examples=25)
@given(cohorts)
def test_fedavg_agrees_with_flowers_own_class(cohort):
    """Flower averages whole models, we average updates: the same up to float32 rounding."""
    model = {"w": np.array([1.0, -2.0, 3.0], np.float32)}
    ours = advance(RoundState(0, model), updates_of(cohort), Averaging(), PlainMean()).model["w"]
    replies = []
    for array, weight in cohort:
        content = RecordDict(
            {"arrays": ArrayRecord([model["w"] + array]), "metrics": MetricRecord({"num-examples": weight})}
        )
        replies.append(Message(content, reply_to=Message(RecordDict(), 10, "train")))
    theirs, _ = FlowerFedAvg().aggregate_train(1, replies)
    np.testing.assert_allclose(ours, theirs.to_numpy_ndarrays()[0], rtol=1e-5, atol=1e-3)


def test_sums_run_in_float64():
    """In float32 the small updates would be lost beside the large ones."""
    big, small = np.array([2.0**24], np.float32), np.array([1.0], np.float32)
    updates = [
        Update("a", {"w": big}, 1.0),
        *(Update(f"s{i}", {"w": small}, 1.0) for i in range(6)),
        Update("z", {"w": -big}, 1.0),
    ]
    assert PlainMean().mean(updates, Cohort(1, ()))["w"][0] == pytest.approx(6 / 8, abs=1e-9)


def test_the_algorithms_say_what_silos_are_told():
    assert dict(Averaging().client_config()) == {}
    assert dict(Proximal(mu=0.25).client_config()) == {"proximal-mu": 0.25}


def test_memory_is_carried_along_and_the_old_state_is_untouched():
    before = RoundState(0, {"w": np.ones(3, np.float32)}, {"moment": np.full(3, 7.0)})
    after = advance(before, [Update("a", {"w": np.ones(3, np.float32)}, 1.0)], Averaging(), PlainMean())
    assert (after.memory["moment"] == 7.0).all()
    assert (before.model["w"] == 1.0).all()
    assert (after.model["w"] == 2.0).all()
