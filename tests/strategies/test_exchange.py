"""Exchanges with a grid that is slow, or that hands over everything at once."""

import json
import time
import tracemalloc

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

import quire
from quire.clients import contract
from quire.clients.arrays import encode
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.strategies import exchange
from quire.strategies.aggregators import RunningMean
from quire.strategies.courier import Courier, Line, carrying
from quire.strategies.secure_log import AttemptLog

SILOS = {100 + place: f"hospital-{place + 1}" for place in range(12)}
INDICES = {name: place for place, name in enumerate(SILOS.values())}


class Grid:
    """Answers with a message of so many bytes, as a SuperLink does: whatever is asked for and there, at once."""

    def __init__(self, size=1, silent=()):
        self.size, self.silent, self.waiting, self.pulls = size, silent, {}, []

    def push_messages(self, messages):
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.waiting)}"
            self.waiting[message.metadata.message_id] = message
        return list(self.waiting)

    def pull_messages(self, ids):
        asked = [self.waiting.pop(name) for name in list(ids) if name in self.waiting and self._answers(name)]
        self.pulls.append(len(asked))
        return [self._reply(message) for message in asked]

    def _answers(self, name):
        return self.waiting[name].metadata.dst_node_id not in self.silent

    def _reply(self, message):
        content = RecordDict({contract.IDENTITY: ConfigRecord({})})
        content[contract.PROTOCOL] = encode({contract.MESSAGE: np.zeros(self.size, dtype=np.uint8)})
        return Message(content, reply_to=message)


class Adding:
    """Takes in a message and keeps none."""

    def __init__(self):
        self.total = 0

    def receive(self, sender, data):
        self.total += len(data)
        return True


def gather(grid, timeout=60.0, enough=None):
    courier, log, server = Courier(SILOS, INDICES, None), AttemptLog(1), Adding()
    contents = dict.fromkeys(courier.names, carrying(b"please"))
    counted = courier.gather(Line(grid, 1, exchange.Deadlines(timeout)), server, contract.MASK, contents, log, enough)
    return counted, log, server


def test_the_server_holds_a_few_masked_vectors_however_many_wait():
    size = 2**20
    grid = Grid(size)
    tracemalloc.start()
    try:
        counted, _, server = gather(grid)
        peak = tracemalloc.get_traced_memory()[1] / size
    finally:
        tracemalloc.stop()
    assert (len(counted), server.total) == (12, 12 * size)
    assert max(grid.pulls) == exchange.AT_ONCE
    assert peak < exchange.AT_ONCE + 2.5  # those that were pulled, and copies of the one that is read


def test_messages_are_asked_for_in_the_order_of_sending():
    grid = Grid()
    messages = [Message(RecordDict(), node, contract.MASK, ttl=60.0) for node in SILOS]
    replies = list(exchange.arriving(grid, messages, exchange.Deadline(5.0)))
    assert [reply.metadata.reply_to_message_id for reply in replies] == [f"m{place}" for place in range(12)]


@pytest.mark.parametrize("at_once", [1, 5, 50])
def test_who_is_silent_keeps_nobody_from_being_heard(at_once):
    grid = Grid(silent=(100, 103, 111))
    messages = [Message(RecordDict(), node, contract.MASK, ttl=60.0) for node in SILOS]
    replies = list(exchange.arriving(grid, messages, exchange.Deadline(0.05), at_once))
    assert len(replies) == 9


def test_once_enough_have_answered_the_others_are_not_waited_for_much_longer(monkeypatch):
    monkeypatch.setattr(exchange, "GRACE", 0.05)
    began = time.monotonic()
    counted, log, _ = gather(Grid(silent=(100, 101)), enough=10)
    assert time.monotonic() - began < 10.0
    assert len(counted) == 10
    assert {(one.silo, one.code) for one in log.failed} == {
        ("hospital-1", "not_awaited"),
        ("hospital-2", "not_awaited"),
    }


def test_as_long_as_too_few_have_answered_the_whole_deadline_is_waited(monkeypatch):
    monkeypatch.setattr(exchange, "GRACE", 0.0)
    began = time.monotonic()
    _, log, _ = gather(Grid(silent=(100, 101)), timeout=0.5, enough=11)
    assert time.monotonic() - began >= 0.5
    assert {one.code for one in log.failed} == {"no_reply"}


def test_a_grace_never_makes_an_exchange_longer(monkeypatch):
    monkeypatch.setattr(exchange, "GRACE", 100.0)
    began = time.monotonic()
    _, log, _ = gather(Grid(silent=(100,)), timeout=0.2, enough=5)
    assert time.monotonic() - began < 10.0
    assert [one.code for one in log.failed] == ["no_reply"]


class Failing(Grid):
    """As a grid, but some nodes answer with an error, as Flower does for those that are gone."""

    def __init__(self, failing, silent=()):
        super().__init__(silent=silent)
        self.failing = failing

    def _reply(self, message):
        if message.metadata.dst_node_id in self.failing:
            return Message(Error(code=5, reason=""), reply_to=message)
        return super()._reply(message)


NODES = list(SILOS)


@pytest.mark.parametrize(("failing", "given_up"), [(5, False), (6, True), (11, True)])
def test_who_cannot_make_up_the_fewest_any_more_is_not_waited_for(failing, given_up):
    """Seven of twelve are needed, one is silent: with six that fail the wait is over, with five it is not."""
    grid, began = Failing(NODES[:failing], silent=NODES[-1:]), time.monotonic()
    messages = [Message(RecordDict(), node, contract.TRAIN) for node in NODES]
    replies = exchange.exchange(grid, messages, 3.0 if not given_up else 600.0, needed=7)
    assert len(replies) == 11
    assert (time.monotonic() - began < 3.0) is given_up


def test_a_stage_of_secure_aggregation_ends_when_too_few_can_answer():
    grid, log = Failing(NODES[:6], silent=NODES[-1:]), AttemptLog(1)
    courier, server = Courier(SILOS, INDICES, None), Adding()
    contents = dict.fromkeys(courier.names, carrying(b"please"))
    line = Line(grid, 1, exchange.Deadlines(600.0))
    counted = courier.gather(line, server, contract.MASK, contents, log, needed=7)
    assert len(counted) == 5
    codes = {failure.silo: failure.code for failure in log.failed}
    assert codes.pop("hospital-12") == "in_vain"
    assert set(codes.values()) == {"node_gone"}


def test_each_stage_has_its_own_deadline():
    deadlines = exchange.Deadlines.of(compose("strategy.deadlines=[mask:7,train:2.5] strategy.deadline=90").strategy)
    told = [deadlines.seconds(stage) for stage in (contract.MASK, contract.TRAIN, contract.CONFIRM, contract.MOMENTS)]
    assert told == [7.0, 2.5, 90.0, 90.0]
    courier = Courier(SILOS, INDICES, None)
    for stage, seconds in ((contract.MASK, 7.0), (contract.CONFIRM, 90.0)):
        messages = courier.messages(Line(Grid(), 1, deadlines), stage, dict.fromkeys(courier.names, RecordDict()))
        assert {message.metadata.ttl for message in messages} == {seconds}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("mask", "must be stage:seconds"),
        ("query:5", "must be stage:seconds"),
        ("mask:0", "a number above 0"),
        ("mask:-1", "a number above 0"),
        ("mask:1e3", "a number above 0"),
        ("mask:99999999", "a number above 0"),
        ("mask:1,mask:2", "two deadlines"),
    ],
)
def test_a_deadline_that_is_none_is_refused(item, words):
    with pytest.raises(SettingsError, match=words):
        compose(f"strategy.deadlines=[{item}]")


def test_waiting_for_replies_and_what_is_done_with_them_are_timed_apart():
    def slow():
        for reply in range(3):
            time.sleep(0.02)
            yield reply

    seconds = {}
    for _ in exchange.timed(slow(), seconds, "train", "aggregate"):
        time.sleep(0.05)
    assert sorted(seconds) == ["aggregate", "train"]
    assert seconds["train"] >= 0.06
    assert seconds["aggregate"] >= 0.15


def test_the_time_of_a_fold_is_in_the_journals_aggregate(monkeypatch, tmp_path):
    add = RunningMean.add

    def slow(self, update):
        time.sleep(0.05)
        add(self, update)

    monkeypatch.setattr(RunningMean, "add", slow)
    quire.run("task=breast_cancer partition.silos=3 strategy.rounds=1 output.baselines=false", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (seconds,) = (line["seconds"] for line in lines if line["event"] == "round")
    assert seconds["aggregate"] >= 0.15
