"""The Flower class: under our own start, under Flower's, and in a foreign app."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import Strategy

from quire import FedAvg, FedNova, FedProx
from quire.clients.arrays import encode
from quire.errors import RunFailed
from quire.simulation.faults import Fault
from quire.simulation.grid import InlineGrid

TARGETS = {10: 1.0, 11: 2.0, 12: 6.0}


def foreign_app(told=None):
    """An app as any Flower user writes it: replies with its whole model, moves half-way to its own target."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        if told is not None:
            told.append(dict(message.content["config"]))
        (w,) = message.content["arrays"].to_numpy_ndarrays()
        new = (w + (TARGETS[context.node_id] - w) / 2).astype(np.float32)
        metrics = MetricRecord({"num-examples": context.node_id, "train_loss": float(abs(new - w).mean())})
        return Message(RecordDict({"arrays": ArrayRecord([new]), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        (w,) = message.content["arrays"].to_numpy_ndarrays()
        metrics = MetricRecord({"num-examples": 1, "distance": float(abs(w - TARGETS[context.node_id]).mean())})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def grid(app=None, faults=()):
    contexts = {node: Context(7, node, {}, RecordDict(), {}) for node in TARGETS}
    return InlineGrid(app or foreign_app(), contexts, {node: f"n{node}" for node in TARGETS}, faults)


def first_model():
    return ArrayRecord([np.zeros(4, np.float32)])


def reference(rounds):
    w = 0.0
    for _ in range(rounds):
        w = sum(node * (w + (target - w) / 2) for node, target in TARGETS.items()) / sum(TARGETS)
    return w


def test_a_foreign_app_trains_with_ours_as_with_flowers_own():
    ours = FedAvg(min_silos=3).start(grid(), first_model(), num_rounds=5)
    theirs = FlowerFedAvg(min_train_nodes=3, min_available_nodes=3).start(grid(), first_model(), num_rounds=5)
    np.testing.assert_allclose(ours.arrays.to_numpy_ndarrays()[0], reference(5), rtol=1e-5)
    np.testing.assert_allclose(ours.arrays.to_numpy_ndarrays()[0], theirs.arrays.to_numpy_ndarrays()[0], rtol=1e-5)
    assert sorted(ours.train_metrics_clientapp) == [1, 2, 3, 4, 5]
    assert ours.evaluate_metrics_clientapp[5]["distance"] == pytest.approx(
        theirs.evaluate_metrics_clientapp[5]["distance"]
    )


def test_it_works_under_flowers_own_start():
    strategy = FedProx(mu=0.5, min_silos=3)
    assert isinstance(strategy, Strategy)
    result = Strategy.start(strategy, grid(), first_model(), num_rounds=3)
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], reference(3), rtol=1e-5)


def test_fedprox_tells_mu_under_flowers_own_key_and_keeps_the_users_config():
    told = []
    FedProx(mu=0.25, min_silos=3).start(
        grid(foreign_app(told)), first_model(), num_rounds=2, train_config=ConfigRecord({"lr": 0.1})
    )
    assert {tuple(sorted(config.items())) for config in told} == {
        (("lr", 0.1), ("proximal-mu", 0.25), ("server-round", 1)),
        (("lr", 0.1), ("proximal-mu", 0.25), ("server-round", 2)),
    }


def test_the_central_evaluation_runs_before_and_after_each_round():
    seen = []

    def score(number, arrays):
        seen.append((number, float(arrays.to_numpy_ndarrays()[0][0])))
        return MetricRecord({"w": seen[-1][1]})

    result = FedAvg(min_silos=3).start(grid(), first_model(), num_rounds=2, evaluate_fn=score)
    assert [number for number, _ in seen] == [0, 1, 2]
    assert seen[2][1] == pytest.approx(reference(2), rel=1e-5)
    assert sorted(result.evaluate_metrics_serverapp) == [0, 1, 2]


class Diary:
    def __init__(self):
        self.reports, self.models = [], []

    def round_done(self, report, state):
        self.reports.append(report)
        self.models.append((state.round, {name: array.copy() for name, array in state.model.items()}))


def test_a_dropout_is_left_out_of_the_mean_by_name_and_the_run_goes_on():
    diary = Diary()
    faults = [Fault.parse("drop:train:2:n11"), Fault.parse("error:evaluate:1:n12")]
    FedAvg(min_silos=2).start(grid(faults=faults), first_model(), num_rounds=2, observer=diary)
    one, two = diary.reports
    assert [(f.silo, f.stage, f.code) for f in one.failed] == [("node-12", "evaluate", "app_raised")]
    assert [(f.silo, f.stage, f.code) for f in two.failed] == [("node-11", "train", "node_gone")]
    assert two.replied == ["node-10", "node-12"]
    before = float(diary.models[0][1]["0"][0])
    expected = (10 * (before + (1.0 - before) / 2) + 12 * (before + (6.0 - before) / 2)) / 22
    assert diary.models[1][1]["0"][0] == pytest.approx(expected, rel=1e-6)


def test_too_few_replies_end_the_run_in_one_sentence_and_what_was_reached_stands():
    diary = Diary()
    faults = [Fault.parse("drop:train:3:n10"), Fault.parse("delay:train:3:n12:99999")]
    with pytest.raises(RunFailed) as failure:
        FedAvg(min_silos=2).start(grid(faults=faults), first_model(), num_rounds=5, observer=diary)
    assert str(failure.value) == (
        "Round 3 failed: 1 of 3 silos gave a usable answer, 2 are needed "
        "(node-10: its node is gone; node-12: it did not answer before the deadline)."
    )
    assert [number for number, _ in diary.models] == [1, 2]


def test_evaluation_happens_as_often_as_asked_and_after_the_last_round():
    diary = Diary()
    FedAvg(min_silos=2, evaluate_every=3).start(grid(), first_model(), num_rounds=5, observer=diary)
    assert [report.evaluate is not None for report in diary.reports] == [False, False, True, False, True]
    diary = Diary()
    FedAvg(min_silos=2, fraction_evaluate=0.0).start(grid(), first_model(), num_rounds=2, observer=diary)
    assert [report.evaluate for report in diary.reports] == [None, None]
    assert [report.failed for report in diary.reports] == [[], []]  # nobody was asked, so nobody failed to answer


def test_who_took_part_and_what_crossed_the_wire_is_counted():
    diary = Diary()
    FedAvg(min_silos=2, fraction_train=0.67, seed=1).start(grid(), first_model(), num_rounds=1, observer=diary)
    (report,) = diary.reports
    size = sum(len(array.data) for array in first_model().values())
    assert len(report.cohort) == 2
    assert report.cohort == report.replied
    assert report.bytes_up == 2 * size
    assert report.bytes_down == 2 * size + 3 * size  # train with two, evaluate with three
    assert set(report.seconds) == {"train", "aggregate", "evaluate"}


def test_messages_come_as_a_list_with_round_and_deadline():
    sent = []

    class Recorder(InlineGrid):
        def push_messages(self, messages):
            sent.append(messages)
            return super().push_messages(messages)

    contexts = {node: Context(7, node, {}, RecordDict(), {}) for node in TARGETS}
    FedAvg(min_silos=2).start(Recorder(foreign_app(), contexts), first_model(), num_rounds=1, timeout=42.0)
    assert all(isinstance(batch, list) for batch in sent)
    assert {(m.metadata.group_id, m.metadata.ttl) for batch in sent for m in batch} == {("1", 42.0)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction_train": 0.0},
        {"fraction_train": 1.1},
        {"fraction_evaluate": -0.1},
        {"min_silos": 0},
        {"evaluate_every": 0},
    ],
)
def test_impossible_options_are_refused_when_made(wrong):
    with pytest.raises(ValueError, match="must be"):
        FedAvg(**wrong)
    with pytest.raises(ValueError, match="mu must be"):
        FedProx(mu=-1.0)


def lying_app(**changes):
    app = ClientApp()

    @app.train()
    def train(message, context):
        lies = changes if context.node_id == 10 else {}
        arrays = {"0": np.full(4, 0.5, np.float32), **lies}
        metrics = MetricRecord({"num-examples": 1, "rows": 1e9})
        return Message(RecordDict({"update": encode(arrays), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        metrics = MetricRecord({"num-examples": 1, "rows": 1e9, "loss": 1.0})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def test_a_model_that_is_not_finite_is_never_told_to_anybody():
    diary = Diary()
    huge = {"0": np.full(4, 3.4e38, np.float32)}
    with pytest.raises(RunFailed, match="moves the model to values that are not finite"):
        FedAvg(min_silos=3, server_lr=9.0).start(grid(lying_app(**huge)), first_model(), num_rounds=2, observer=diary)
    assert diary.models == []


@pytest.mark.parametrize("steps", [-1e300, 0.0, 1e30])
def test_a_number_of_steps_that_cannot_be_is_that_silos_dropout(steps):
    app = ClientApp()

    @app.train()
    def train(message, context):
        count = steps if context.node_id == 10 else 4.0
        update = encode({"0": np.full(4, 0.25, np.float32), "nova/steps": np.array(count)})
        return Message(RecordDict({"update": update, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    diary = Diary()
    FedNova(min_silos=2, fraction_evaluate=0.0).start(grid(app), first_model(), num_rounds=1, observer=diary)
    assert [(f.silo, f.code) for f in diary.reports[0].failed] == [("node-10", "impossible_update")]
    assert (diary.models[0][1]["0"] == 1.0).all()


def test_scores_cannot_overwrite_what_is_known_of_the_training():
    diary = Diary()
    FedAvg(min_silos=3).start(grid(lying_app()), first_model(), num_rounds=1, observer=diary)
    assert diary.reports[0].silos["node-10"]["rows"] == 1.0


def test_integer_buffers_are_rounded_and_not_cut():
    from quire.strategies.algorithms import moved

    model = {"n": np.array([5], np.int64), "small": np.array([250], np.uint8)}
    new = moved(model, {"n": np.array([4.9999999]), "small": np.array([9.0])}, 1.0)
    assert (new["n"][0], new["small"][0]) == (10, 255)


def test_it_waits_until_enough_nodes_have_joined():
    contexts = {node: Context(7, node, {}, RecordDict(), {}) for node in TARGETS}

    class Slow(InlineGrid):
        asked = 0

        def get_node_ids(self):
            Slow.asked += 1
            return list(contexts)[: Slow.asked // 3]

    slow = Slow(foreign_app(), contexts)
    FedAvg(min_silos=2).start(slow, first_model(), num_rounds=1, timeout=60)
    assert Slow.asked >= 6
    with pytest.raises(RunFailed, match=r"3 nodes joined within 0\.3 seconds, 4 are needed"):
        FedAvg(min_silos=4).start(grid(), first_model(), num_rounds=1, timeout=0.3)
