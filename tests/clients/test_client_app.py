"""The silo's app: what it answers, and what never leaves it."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from quire import compose
from quire.clients import client_app, contract, work
from quire.clients.arrays import decode, encode
from quire.clients.client_app import CODE_HASH, app
from quire.clients.code import code_hash
from quire.clients.data.simulated import federation
from quire.clients.tasks import task_of
from quire.privacy.randomness import stream
from quire.simulation.grid import InlineGrid, server_identity

OVERRIDES = "task=breast_cancer partition=iid partition.silos=3"


@pytest.fixture(autouse=True)
def _as_server():
    with server_identity(run_id=7):
        yield


def ask(stage, overrides=OVERRIDES, partition=1, partitions=3, **records):
    """Send one message to one silo and return its reply."""
    config = {"partition-id": partition, "num-partitions": partitions}
    grid = InlineGrid(app, {10: Context(7, 10, config, RecordDict(), {"overrides": overrides})})
    (reply,) = grid.send_and_receive([Message(RecordDict(records), 10, stage)])
    return reply


def request(overrides=OVERRIDES, round_number=1):
    model = task_of(compose(overrides)).initial_arrays(stream(1, "model"))
    return {"arrays": encode(model), "config": ConfigRecord({"server-round": round_number})}


def code_of(reply):
    assert reply.error.reason == contract.reason(contract.Code(reply.error.code))
    return contract.Code(reply.error.code).name


def test_query_says_who_and_which_code():
    identity = ask("query").content["identity"]
    assert dict(identity) == {"silo": "hospital-2", "code-hash": CODE_HASH, "contract": contract.VERSION}
    assert code_hash() == CODE_HASH
    assert len(CODE_HASH) == 64


def test_train_replies_with_an_update_its_rows_and_its_identity():
    asked = request()
    reply = ask("train", **asked)
    update, model = decode(reply.content["update"]), decode(asked["arrays"])
    assert {name: array.shape for name, array in update.items()} == {name: array.shape for name, array in model.items()}
    assert any(np.abs(array).max() > 0 for array in update.values())
    assert set(reply.content["metrics"]) == {"num-examples", "train-loss"}
    assert reply.content["metrics"]["num-examples"] == len(federation(compose(OVERRIDES))[1].train)
    assert reply.content["identity"]["silo"] == "hospital-2"


def test_the_same_request_gives_the_same_bits_and_round_and_silo_matter():
    first = ask("train", **request())
    again = ask("train", **request())
    assert first.content["update"]["0.weight"].data == again.content["update"]["0.weight"].data
    other_round = ask("train", **request(round_number=2))
    assert first.content["update"]["0.weight"].data != other_round.content["update"]["0.weight"].data


def test_fedprox_is_taken_from_the_settings_that_the_silo_composed():
    plain = decode(ask("train", **request()).content["update"])
    for mu, same in ((0.0, True), (0.5, False)):
        reply = ask("train", f"{OVERRIDES} strategy=fedprox strategy.mu={mu}", **request())
        held = decode(reply.content["update"])
        assert all((held[name] == plain[name]).all() for name in plain) == same
    assert np.abs(held["0.weight"]).sum() < np.abs(plain["0.weight"]).sum()


def test_evaluate_replies_with_scores_on_the_silos_own_test_rows():
    metrics = ask("evaluate", **request()).content["metrics"]
    assert set(metrics) == {"num-examples", "loss", "accuracy", "balanced_accuracy", "auc"}
    assert metrics["num-examples"] == len(federation(compose(OVERRIDES))[1].test)


@pytest.mark.parametrize(
    ("overrides", "partitions", "code"),
    [
        ("training.lr=-1", 3, "SETTINGS_REFUSED"),
        ("hydra.searchpath=[file:///etc]", 3, "SETTINGS_REFUSED"),
        (OVERRIDES, 2, "DATA_UNAVAILABLE"),
        ("task=breast_cancer partition.silos=3 partition.alpha=0.001 partition.min_rows=180", 3, "DATA_UNAVAILABLE"),
    ],
)
def test_what_a_silo_cannot_do_leaves_as_a_fixed_code(overrides, partitions, code):
    assert code_of(ask("train", overrides, partitions=partitions, **request())) == code


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"arrays": encode({"w": np.ones(3)})},
        {"config": ConfigRecord({"server-round": 1})},
        {**request(), "config": ConfigRecord({"server-round": "one"})},
        {**request(), "config": ConfigRecord({})},
    ],
)
def test_a_message_that_cannot_be_read_is_a_bad_request(records):
    assert code_of(ask("train", **records)) == "BAD_REQUEST"
    assert code_of(ask("evaluate", **records)) == "BAD_REQUEST"


def test_a_model_of_another_form_is_a_failed_training():
    wrong = {**request(), "arrays": encode({"w": np.ones(3, np.float32)})}
    assert code_of(ask("train", **wrong)) == "TRAINING_FAILED"
    assert code_of(ask("evaluate", **wrong)) == "EVALUATION_FAILED"


def test_a_model_that_diverges_is_said_so_and_not_sent():
    overrides = f"{OVERRIDES} training.lr=1e30 training.epochs=30 task.model=mlp"
    reply = ask("train", overrides, **request(overrides))
    assert code_of(reply) == "NOT_FINITE"


def test_the_text_of_an_exception_stays_in_the_silos_log(monkeypatch, caplog):
    def leaky(*args):
        raise KeyError("patient Ada has no value")

    monkeypatch.setattr(work, "train_update", leaky)
    reply = ask("train", **request())
    assert code_of(reply) == "TRAINING_FAILED"
    assert "Ada" not in repr(vars(reply.error)) + repr(vars(reply.metadata))
    assert "Ada" in caplog.text


def test_even_an_error_in_the_reply_itself_does_not_leave(monkeypatch):
    monkeypatch.setattr(client_app, "encode", lambda arrays: 1 / 0)
    assert code_of(ask("train", **request())) == "TRAINING_FAILED"
