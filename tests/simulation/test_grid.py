"""The in-process Grid: walls between silos, faults on demand, the manners of Flower's own runtimes."""

import gc
import weakref

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from quire.clients.arrays import decode, encode
from quire.simulation.faults import Fault

pytestmark = pytest.mark.usefixtures("as_server")


def message(node, stage="train", round_number=1, ttl=60.0, **records):
    content = RecordDict(
        {"arrays": encode({"w": np.arange(4, dtype=np.float32)}), "config": ConfigRecord({"list": [1, 2]})}
    )
    content.update(records)
    return Message(content, node, stage, ttl=ttl, group_id=str(round_number))


def echo(msg, ctx):
    return Message(msg.content, reply_to=msg)


def test_every_silo_answers_once_under_its_own_name(grid_of):
    grid = grid_of(3, train=echo)
    sent = [message(node) for node in (12, 10, 11)]
    replies = grid.send_and_receive(sent)
    assert [reply.metadata.src_node_id for reply in replies] == [12, 10, 11]
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in sent]
    assert len({reply.metadata.message_id for reply in replies}) == 3
    assert list(grid.pull_messages([m.metadata.message_id for m in sent])) == []


def test_a_silo_cannot_change_what_another_silo_or_the_server_sees(grid_of):
    """Every container that a handler can reach is its own; arrays are immutable bytes."""

    def vandal(msg, ctx):
        content = msg.content
        content["config"]["list"].append(99)
        content["config"]["new"] = "x"
        content["arrays"]["w"] = encode({"w": np.zeros(1)})["w"]
        content["arrays"]["more"] = encode({"w": np.zeros(1)})["w"]
        msg.metadata.__dict__["_dst_node_id"] = 12345
        del content["config"]
        return Message(RecordDict({"metrics": MetricRecord({"seen": len(content)})}), reply_to=msg)

    seen = []

    def witness(msg, ctx):
        seen.append(
            (
                list(msg.content["config"]["list"]),
                sorted(msg.content["arrays"]),
                decode(msg.content["arrays"])["w"].tolist(),
            )
        )
        return vandal(msg, ctx)

    grid = grid_of(3, train=witness)
    shared = message(10).content
    sent = [Message(shared, node, "train") for node in (10, 11, 12)]
    grid.send_and_receive(sent)
    assert seen == [([1, 2], ["w"], [0.0, 1.0, 2.0, 3.0])] * 3
    assert shared["config"]["list"] == [1, 2]
    assert sorted(shared["arrays"]) == ["w"]


def test_a_silo_cannot_change_its_reply_after_sending_it(grid_of):
    kept = []

    def keeper(msg, ctx):
        reply = Message(RecordDict({"m": MetricRecord({"list": [1.0]}), "a": ArrayRecord()}), reply_to=msg)
        kept.append(reply)
        return reply

    (reply,) = grid_of(1, train=keeper).send_and_receive([message(10)])
    kept[0].content["m"]["list"].append(2.0)
    kept[0].content["m"]["x"] = 1.0
    assert dict(reply.content["m"]) == {"list": [1.0]}


def test_large_arrays_cross_without_a_copy(grid_of):
    record = encode({"w": np.zeros(1000, np.float32)})
    same = []

    def check(msg, ctx):
        same.append(msg.content["arrays"]["w"].data is record["w"].data)
        return Message(RecordDict({"arrays": msg.content["arrays"]}), reply_to=msg)

    (reply,) = grid_of(1, train=check).send_and_receive([message(10, arrays=record)])
    assert same == [True]
    assert reply.content["arrays"]["w"].data is record["w"].data


def test_generators_are_refused_as_they_would_break_a_superlink(grid_of):
    grid = grid_of(2, train=echo)
    with pytest.raises(TypeError, match="must be a list"):
        grid.push_messages(message(node) for node in (10, 11))
    with pytest.raises(TypeError, match="must be a list"):
        grid.send_and_receive(iter([message(10)]))


def test_an_exception_of_the_app_comes_back_without_its_text(grid_of, caplog):
    def leaky(msg, ctx):
        raise ValueError("record of patient Ada")

    (reply,) = grid_of(1, train=leaky).send_and_receive([message(10)])
    assert reply.error.code == 2
    assert "Ada" not in str(reply.error.reason) + str(reply.metadata)
    assert "Ada" in caplog.text  # the silo's own log has it


def test_a_context_keeps_its_state_and_belongs_to_one_node(grid_of):
    def count(msg, ctx):
        before = ctx.state.get("n", MetricRecord({"n": 0}))["n"]
        ctx.state["n"] = MetricRecord({"n": before + 1})
        return Message(RecordDict({"m": MetricRecord({"n": before + 1, "node": ctx.node_id})}), reply_to=msg)

    grid = grid_of(2, train=count)
    grid.send_and_receive([message(10)])
    replies = grid.send_and_receive([message(10), message(11)])
    assert [dict(reply.content["m"]) for reply in replies] == [{"n": 2, "node": 10}, {"n": 1, "node": 11}]


def test_faults_strike_by_kind_stage_round_and_silo(grid_of):
    faults = [
        Fault.parse("drop:train:2:silo-1"),
        Fault.parse("error:*:3:*"),
        Fault.parse("delay:evaluate:*:silo-2:100"),
    ]
    grid = grid_of(2, faults, train=echo, evaluate=echo)

    def outcome(node, stage, round_number, ttl=60.0):
        (reply,) = grid.send_and_receive([message(node, stage, round_number, ttl)])
        return reply.error.code if reply.has_error() else "ok"

    assert outcome(10, "train", 1) == "ok"
    assert outcome(10, "train", 2) == 5
    assert outcome(11, "train", 2) == "ok"
    assert [outcome(10, "evaluate", 3), outcome(11, "train", 3)] == [2, 2]
    assert outcome(11, "evaluate", 4) == 4
    assert outcome(11, "evaluate", 4, ttl=101.0) == "ok"
    assert outcome(10, "evaluate", 4) == "ok"


def test_the_runtime_answers_for_missing_nodes_under_its_own_id_as_flowers_does(grid_of):
    grid = grid_of(1, [Fault.parse("drop:train:*:*")], train=echo)
    dropped, unknown = grid.send_and_receive([message(10), message(999)])
    assert (dropped.error.code, dropped.metadata.src_node_id) == (5, 1)
    assert (unknown.error.code, unknown.metadata.src_node_id) == (3, 1)


def test_the_timeout_is_the_messages_time_to_live(grid_of):
    grid = grid_of(1, [Fault.parse("delay:train:*:*:10")], train=echo)
    (late,) = grid.send_and_receive([message(10)], timeout=5.0)
    (in_time,) = grid.send_and_receive([message(10)], timeout=30.0)
    assert late.error.code == 4
    assert in_time.has_content()


def test_a_silo_acts_under_its_own_identity_and_the_servers_is_restored(grid_of):
    seen = []

    def who(msg, ctx):
        seen.append(TaskIdentity.node_id)
        return echo(msg, ctx)

    grid_of(2, train=who).send_and_receive([message(10), message(11)])
    assert seen == [10, 11]
    assert TaskIdentity.node_id == 1


def test_delivered_messages_are_not_kept(grid_of):
    grid = grid_of(1, train=echo)
    (reply,) = grid.send_and_receive([message(10)])
    gone = weakref.ref(reply)
    del reply
    gc.collect()
    assert gone() is None
