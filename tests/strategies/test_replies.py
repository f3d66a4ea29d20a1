"""A reply that does not hold is a dropout of that silo, by name, and never a crash."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from quire.clients import contract
from quire.clients.arrays import encode
from quire.strategies.enrolment import read_identities
from quire.strategies.reading import Exposed
from quire.strategies.replies import Private, exposed, read_evaluate_replies, read_train_replies, weighted_mean

NAN, INF = float("nan"), float("inf")
GOOD = {"w": np.ones((2, 3), np.float32), "b": np.ones(2, np.float32)}


def changed(name, array):
    return {**GOOD, name: array}


def with_value(value):
    array = np.ones((2, 3), np.float32)
    array[1, 2] = value
    return changed("w", array)


BAD = {
    "nan": ({"update": with_value(NAN)}, "not_finite"),
    "infinity": ({"update": with_value(-INF)}, "not_finite"),
    "another shape": ({"update": changed("b", np.ones((2, 1), np.float32))}, "wrong_shape"),
    "a shape that would broadcast": ({"update": changed("b", np.ones((1,), np.float32))}, "wrong_shape"),
    "another dtype": ({"update": changed("w", np.ones((2, 3)))}, "wrong_dtype"),
    "another name": ({"update": {"w": GOOD["w"], "c": GOOD["b"]}}, "wrong_names"),
    "a name too many": ({"update": {**GOOD, "c": GOOD["b"]}}, "wrong_names"),
    "a name too few": ({"update": {"w": GOOD["w"]}}, "wrong_names"),
    "no arrays": ({"update": {}}, "wrong_names"),
    "no update at all": ({}, "wrong_records"),
    "a model beside the update": ({"update": GOOD, "arrays": encode(GOOD)}, "wrong_records"),
    "garbage bytes": ({"update": GOOD, "garble": True}, "malformed"),
    "an infinite weight": ({"update": GOOD, "weight": INF}, "bad_weight"),
    "a weight that is not a number": ({"update": GOOD, "weight": NAN}, "bad_weight"),
    "a negative weight": ({"update": GOOD, "weight": -5}, "bad_weight"),
    "a weight of zero": ({"update": GOOD, "weight": 0}, "bad_weight"),
    "a weight beyond all silos": ({"update": GOOD, "weight": 1e13}, "bad_weight"),
    "a list of weights": ({"update": GOOD, "weight": [5]}, "bad_weight"),
    "a loss that is not finite": ({"update": GOOD, "metrics": {"train-loss": NAN}}, "not_finite"),
    "two sets of metrics": ({"update": GOOD, "more": MetricRecord({"x": 1})}, "wrong_records"),
    "other code": ({"update": GOOD, "identity": {contract.CODE_HASH: "d" * 64}}, "other_code"),
    "no code": ({"update": GOOD, "identity": {contract.CODE_HASH: None}}, "other_code"),
    "another silo's name": ({"update": GOOD, "identity": {contract.SILO: "a"}}, "other_silo"),
    "no name": ({"update": GOOD, "identity": {contract.SILO: None}}, "no_identity"),
    "a name that is not printable": ({"update": GOOD, "identity": {contract.SILO: "b\x1b[2J"}}, "no_identity"),
    "another contract": ({"update": GOOD, "identity": {contract.CONTRACT: 99}}, "other_contract"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_reply_is_a_dropout_of_that_silo(case, silos, model):
    how, code = BAD[case]
    how = dict(how)
    garble = how.pop("garble", False)
    sent = silos.sent()
    bad = silos.reply(sent[1], **how)
    if garble:
        bad.content["update"] = ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", b"\x93NUMPY garbage")})
    replies = [silos.reply(sent[0], GOOD), bad, silos.reply(sent[2], GOOD)]
    good, failed = read_train_replies(sent, replies, silos.by_node, model, silos.code)
    assert [reply.update.silo for reply in good] == ["a", "c"]
    assert [(failure.silo, failure.stage, failure.code) for failure in failed] == [("b", "train", code)]
    assert failed[0].words
    # Who it is, and by which code, is not settled then: that a silo is set up wrongly is no proof of anything.
    assert isinstance(failed[0], Exposed) == (code not in ("other_code", "other_silo", "no_identity", "other_contract"))
    assert exposed(failed) == isinstance(failed[0], Exposed)


def test_nobody_is_exposed_where_honest_code_may_send_that(silos, model):
    """A foreign app looks for nothing before it answers, and under privacy no rule counts the bad."""
    sent = silos.sent()
    replies = [silos.reply(sent[0], with_value(NAN))]
    private = Private({"a": 5}, simulated=True)
    for how in ({"code_hash": None}, {"code_hash": silos.code, "private": private}):
        _, failed = read_train_replies(sent, replies, silos.by_node, model, **how)
        assert [failure.code for failure in failed] == ["not_finite", "no_reply", "no_reply"]
        assert exposed(failed) == 0


def test_the_order_is_the_rosters_whoever_answers_first(silos, model):
    sent = silos.sent()
    replies = [silos.reply(request, GOOD) for request in reversed(sent)]
    good, _ = read_train_replies(sent, replies, silos.by_node, model, silos.code)
    assert [reply.update.silo for reply in good] == ["a", "b", "c"]


def test_dropouts_are_found_from_who_was_asked_not_from_what_an_error_claims(silos, model):
    """Flower's runtime answers for a dead node under its own id, 1."""
    sent = silos.sent()
    gone = silos.error(sent[0], 5, "Node unavailable")
    gone.metadata.__dict__["_src_node_id"] = 1
    good, failed = read_train_replies(sent, [gone, silos.reply(sent[2], GOOD)], silos.by_node, model, silos.code)
    assert [reply.update.silo for reply in good] == ["c"]
    assert [(failure.silo, failure.code) for failure in failed] == [("a", "node_gone"), ("b", "no_reply")]
    assert exposed(failed) == 0


def test_every_code_of_the_contract_comes_with_its_fixed_words(silos, model):
    for code in contract.Code:
        sent = silos.sent()
        replies = [silos.error(sent[0], int(code), "ValueError: patient 4711")]
        _, failed = read_train_replies(sent[:1], replies, silos.by_node, model, silos.code)
        assert (failed[0].code, failed[0].words) == (code.name.lower(), contract.WORDS[code])
        assert "4711" not in repr(failed)
        assert exposed(failed) == 0  # NOT_FINITE among them: an honest silo whose training diverged
    _, failed = read_train_replies(sent[:1], [silos.error(sent[0], 77)], silos.by_node, model, silos.code)
    assert failed[0].code == "unknown_error"


def test_the_first_of_two_replies_counts_and_one_nobody_asked_for_is_ignored(silos, model):
    sent = silos.sent()
    stranger = silos.reply(silos.sent()[0], GOOD, weight=99)
    replies = [stranger, silos.reply(sent[0], GOOD, weight=1), silos.reply(sent[0], GOOD, weight=50)]
    good, _ = read_train_replies(sent[:1], replies, silos.by_node, model, silos.code)
    assert [reply.update.weight for reply in good] == [1.0]


def test_a_foreign_apps_whole_model_becomes_an_update(silos, model):
    """Flower's own convention: the reply holds the new model under any name, and no identity."""
    start = {name: array + 3 for name, array in model.items()}
    sent = silos.sent()
    reply = silos.reply(
        sent[0], identity={contract.CODE_HASH: None}, arrays=encode({k: v + 1 for k, v in start.items()})
    )
    good, failed = read_train_replies(sent[:1], [reply], silos.by_node, start, None)
    assert failed == []
    assert all((part == 1).all() for part in good[0].update.arrays.values())


def test_evaluation_is_checked_alike(silos):
    sent = silos.sent("evaluate")
    replies = [
        silos.reply(sent[0], metrics={"accuracy": 0.5}, weight=10),
        silos.reply(sent[1], metrics={"accuracy": NAN}),
        silos.reply(sent[2], weight=-1),
    ]
    good, failed = read_evaluate_replies(sent, replies, silos.by_node, silos.code)
    assert [(reply.silo, reply.weight, reply.metrics["accuracy"]) for reply in good] == [("a", 10.0, 0.5)]
    assert [(failure.silo, failure.code) for failure in failed] == [("b", "not_finite"), ("c", "bad_weight")]


def test_identities_are_read_and_doubtful_ones_left_out(silos):
    sent = silos.sent("query")
    replies = [
        silos.reply(sent[0]),
        silos.reply(sent[1], identity={contract.SILO: "a"}),
        silos.reply(sent[2], identity={contract.CODE_HASH: "0" * 64}),
    ]
    enrolled, *failed = read_identities(sent, replies, silos.code).values()
    assert enrolled == "a"
    assert [failure.code for failure in failed] == ["name_taken", "other_code"]
    assert failed[1].words == "it runs other code than the server"


def test_an_identity_of_another_type_is_no_identity(silos):
    sent = silos.sent("query")
    reply = silos.reply(sent[0])
    reply.content["identity"] = ConfigRecord({"silo": 5, "code-hash": silos.code, "contract": 1})
    (failure,) = read_identities(sent[:1], [reply], silos.code).values()
    assert failure.code == "no_identity"


def test_what_nobody_would_call_a_metric_is_left_aside(silos, model):
    forged = {"x\x1b[2J\nRound 1: 5 of 5 silos replied": 1.0, "": 2.0, "a" * 65: 3.0, "val/acc": 0.5}
    forged |= {f"m{place}": 0.0 for place in range(1000)}
    sent = silos.sent()
    good, failed = read_train_replies(
        sent[:1], [silos.reply(sent[0], GOOD, metrics=forged)], silos.by_node, model, silos.code
    )
    assert failed == []
    assert set(good[0].metrics) >= {"train-loss", "val/acc"}
    assert all(name.isprintable() and 0 < len(name) <= 64 for name in good[0].metrics)
    assert len(good[0].metrics) <= 64


def test_a_reply_that_no_check_foresaw_is_that_silos_dropout(silos, model, caplog):
    sent = silos.sent()

    def stumble(update):
        raise RecursionError("unforeseen")

    good, failed = read_train_replies(
        sent[:1], [silos.reply(sent[0], GOOD)], silos.by_node, model, silos.code, objection=stumble
    )
    assert good == []
    assert [(failure.silo, failure.code) for failure in failed] == [("a", "malformed")]
    assert exposed(failed) == 0
    assert "unforeseen" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "new", "difference"), [(np.uint8, 3, -2.0), (np.int64, 9, 4.0), (np.float32, -3e38, -6e38)]
)
def test_whole_models_are_subtracted_where_nothing_wraps_or_overflows(silos, dtype, new, difference):
    start = {"w": np.full(2, 5 if dtype != np.float32 else 3e38, dtype)}
    sent = silos.sent()
    reply = silos.reply(sent[0], arrays=encode({"w": np.full(2, new, dtype)}))
    good, failed = read_train_replies(sent[:1], [reply], silos.by_node, start, None)
    assert failed == []
    np.testing.assert_allclose(good[0].update.arrays["w"], difference, rtol=1e-6)


def test_truth_values_have_no_mean(silos):
    sent = silos.sent()
    reply = silos.reply(sent[0], arrays=encode({"w": np.ones(2, np.bool_)}))
    _, failed = read_train_replies(sent[:1], [reply], silos.by_node, {"w": np.zeros(2, np.bool_)}, None)
    assert failed[0].code == "wrong_dtype"


def test_a_mean_of_finite_numbers_is_finite():
    assert weighted_mean([(1e12, {"loss": 1e300}), (1.0, {"loss": 0.0})])["loss"] == pytest.approx(1e300)


def test_metrics_are_averaged_by_rows_over_those_who_report_them():
    mean = weighted_mean([(1.0, {"loss": 1.0}), (3.0, {"loss": 2.0, "auc": 0.5})])
    assert mean == {"loss": 1.75, "auc": 0.5}
    assert weighted_mean([]) == {}
