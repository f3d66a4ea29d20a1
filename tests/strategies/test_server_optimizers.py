"""Server optimisers against few-line references over many rounds, and against Flower's own classes."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quire.privacy.randomness import stream
from quire.strategies.aggregators import PlainMean
from quire.strategies.rounds import RoundState, Update, advance
from quire.strategies.server_optimizers import Adagrad, Adam, Momentum, Yogi

ETA, B1, B2, TAU = 0.3, 0.8, 0.95, 0.01
runs = st.lists(hnp.arrays(np.float64, (3,), elements=st.floats(-10, 10)), min_size=1, max_size=6)


def stepped(algorithm, means):
    state = RoundState(0, {"w": np.zeros(3)})
    for mean in means:
        state = algorithm.step(state, {"w": mean}, share=1.0)
    return state


def reference(kind, means):
    x, m, v = np.zeros(3), np.zeros(3), np.full(3, TAU**2)
    for d in means:
        if kind == "momentum":
            m = 0.7 * m + d
            x = x + ETA * m
            continue
        m = (0.0 if kind == "adagrad" else B1) * m + (1 - (0.0 if kind == "adagrad" else B1)) * d
        v = {
            "adagrad": v + d**2,
            "adam": B2 * v + (1 - B2) * d**2,
            "yogi": v - (1 - B2) * d**2 * np.sign(v - d**2),
        }[kind]
        x = x + ETA * m / (np.sqrt(v) + TAU)
    return x


OURS = {
    "momentum": Momentum(ETA, 0.7),
    "adagrad": Adagrad(server_lr=ETA, tau=TAU),
    "adam": Adam(ETA, B1, B2, TAU),
    "yogi": Yogi(ETA, B1, B2, TAU),
}


@pytest.mark.parametrize("kind", OURS)
@settings(max_examples=50)
@given(means=runs)
def test_rounds_are_the_papers_formulas_written_out(kind, means):
    state = stepped(OURS[kind], means)
    np.testing.assert_allclose(state.model["w"], reference(kind, means), rtol=1e-9, atol=1e-9)
    assert state.round == len(means)
    assert all(array.dtype == np.float64 for array in state.memory.values())


FLOWERS = {
    "momentum": lambda: flower.FedAvgM(server_learning_rate=ETA, server_momentum=0.7),
    "adagrad": lambda: flower.FedAdagrad(eta=ETA, tau=TAU),
    "adam": lambda: flower.FedAdam(eta=ETA, beta_1=B1, beta_2=B2, tau=TAU),
    "yogi": lambda: flower.FedYogi(eta=ETA, beta_1=B1, beta_2=B2, tau=TAU),
}


@pytest.mark.parametrize("kind", FLOWERS)
def test_they_agree_with_flowers_own_classes_where_those_follow_the_paper(kind):
    """Flower starts the second moment at zero and corrects FedAdam's bias; both are set alike here."""
    theirs, rng = FLOWERS[kind](), stream(1, "updates")
    their_model = first = {"w": np.zeros(4)}
    state = RoundState(0, dict(first))
    for number in range(1, 6):
        updates = [rng.standard_normal(4) for _ in range(3)]
        arrays = ArrayRecord({"w": _array(their_model["w"])})
        theirs.current_arrays = arrays if kind == "momentum" else dict(their_model)
        request = Message(RecordDict({"arrays": arrays, "config": ConfigRecord()}), 10, "train")
        replies = [
            Message(
                RecordDict(
                    {
                        "arrays": ArrayRecord({"w": _array(their_model["w"] + update)}),
                        "metrics": MetricRecord({"num-examples": 2}),
                    }
                ),
                reply_to=request,
            )
            for update in updates
        ]
        record, _ = theirs.aggregate_train(number, replies)
        their_model = {"w": record["w"].numpy()}
        ours = _like_flowers(kind, number)
        state = advance(state, [Update(str(i), {"w": u}, 2.0) for i, u in enumerate(updates)], ours, PlainMean())
        np.testing.assert_allclose(state.model["w"], their_model["w"], rtol=1e-6, atol=1e-9)


def _like_flowers(kind, number):
    if kind == "momentum":
        return OURS[kind]
    if kind == "adagrad":
        return Adagrad(server_lr=ETA, tau=TAU, initial_v=0.0)
    eta = ETA * np.sqrt(1 - B2 ** (number + 1)) / (1 - B1 ** (number + 1)) if kind == "adam" else ETA
    return type(OURS[kind])(eta, B1, B2, TAU, initial_v=0.0)


def _array(values):
    from flwr.app import Array

    return Array(np.asarray(values, np.float64))


def test_momentum_zero_is_plain_averaging():
    means = [np.array([1.0, -2.0, 0.5])] * 3
    assert (stepped(Momentum(1.0, 0.0), means).model["w"] == np.sum(means, axis=0)).all()
