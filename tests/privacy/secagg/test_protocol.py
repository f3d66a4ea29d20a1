"""The protocol among honest parties: exact sums, whoever drops out, and what is kept of it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from secagg_network import MODEL, Network, config

from quire.privacy.secagg.errors import CohortTooSmall, SessionExpired, StageOrder, TooFewClients, TooFewSurvivors
from quire.privacy.secagg.messages import Masked, Refusal
from quire.privacy.secagg.server_session import ServerSession
from quire.privacy.secagg.state import ClientState, Counter, Stage, load


def lost(stage, *who):
    return lambda at, way, index, data: None if at == stage and index in who else data


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("n", [2, 3, 4, 10])
def test_the_sum_is_exact_round_after_round(n, bits):
    network = Network(n, bits=bits)
    network.agree()
    for number in (1, 2, 5):  # rounds that nobody heard of are skipped: the keys move on by themselves
        one = network.round(number)
        network.check(one, network.aggregate(one))
        assert one.u3 == tuple(range(n))
        assert one.blame == network.session.blame == []
        assert one.digests == {
            i: hashlib.sha256(Masked.decode(network.nodes[i].sent[-3]).vector).digest() for i in range(n)
        }


@pytest.mark.parametrize("stage", ["start", "mask", "confirm", "unmask"])
@pytest.mark.parametrize("way", ["down", "up"])
@pytest.mark.parametrize(("n", "who"), [(3, (1,)), (10, (0, 4, 9)), (10, (8,))])
def test_dropouts_at_any_stage_leave_the_sum_of_the_others_exact(stage, way, n, who):
    network = Network(n)
    network.agree()
    network.meddle = lambda at, to, index, data: None if (at, to) == (stage, way) and index in who else data
    one = network.round()
    network.check(one, network.aggregate(one))
    survivors = tuple(i for i in range(n) if i not in who) if stage in ("start", "mask") else tuple(range(n))
    assert one.u3 == survivors
    assert one.blame == []
    # Who dropped out is back in the next round, with no word lost about it.
    network.meddle = lambda at, to, index, data: data
    one = network.round(2)
    network.check(one, network.aggregate(one))
    assert one.u3 == tuple(range(n))


@pytest.mark.parametrize("n", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_many_silos_with_dropouts_at_every_stage(n):
    network = Network(n, config(20, (n - 1) // 3, bits=24))
    network.agree()
    one = network.round()
    tenth = n // 10
    out = {stage: range(at * tenth, (at + 1) * tenth) for at, stage in enumerate(("start", "mask", "confirm"))}
    network.meddle = lambda at, to, index, data: None if to == "up" and index in out.get(at, ()) else data
    network.check(one, network.aggregate(one))
    assert one.u3 == tuple(range(2 * tenth, n))
    assert one.confirmed == tuple(range(3 * tenth, n))


def test_below_the_threshold_nothing_is_opened_and_the_next_attempt_works():
    network = Network(4)
    network.agree()
    network.meddle = lost("start", 0, 1)
    one = network.round()
    network.exchange(one, "start", dict.fromkeys(range(4), one.start()))
    with pytest.raises(TooFewClients):
        one.close_shares()
    network.meddle = lost("mask", 0, 1)
    one = network.round(1, 2)
    network.exchange(one, "mask", network.until("mask", one))
    with pytest.raises(TooFewSurvivors):
        one.close_masked()
    network.meddle = lost("", -1)
    before = [Masked.decode(network.nodes[i].sent[-1]).vector for i in (2, 3)]
    one = network.round(1, 3)
    network.check(one, network.aggregate(one))
    after = [Masked.decode(network.nodes[i].sent[-3]).vector for i in (2, 3)]
    assert not set(before) & set(after)  # fresh masks


def test_a_round_may_have_a_smaller_cohort_with_the_same_thresholds():
    network = Network(10)  # c = 3
    network.agree()
    one = network.round(cohort=(9, 0, 2, 4, 6, 8, 1))
    assert (one.limits.threshold, one.limits.min_survivors) == (7, 7)  # of the roster, however small the cohort
    network.check(one, network.aggregate(one))
    with pytest.raises(CohortTooSmall):
        network.round(2, cohort=(0, 1, 2, 3, 4, 5))


@pytest.mark.parametrize("stage", ["open", "agree", "ready"])
def test_a_session_goes_on_without_those_who_drop_out_of_making_it(stage):
    network = Network(6)
    network.meddle = lost(stage, 2)
    session = network.agree()
    assert session.members == (0, 1, 3, 4, 5)
    network.meddle = lost("mask", 5)
    one = network.round()
    network.check(one, network.aggregate(one))


def test_too_few_for_a_session():
    network = Network(4)
    network.meddle = lost("open", 1, 2, 3)
    with pytest.raises(CohortTooSmall):
        network.agree()


def test_a_session_ends_after_the_rounds_that_its_keys_serve():
    network = Network(3, config(rounds=2, attempts=2))
    network.agree()
    for number, attempt in ((0, 1), (3, 1), (1, 3), (1, 0)):
        with pytest.raises(SessionExpired):
            network.round(number, attempt)


def test_a_server_that_restarts_goes_on_with_the_session():
    network = Network(5, bits=24)
    network.agree()
    network.session = ServerSession.decode(network.session.encode(), network.members)
    one = network.round()
    network.check(one, network.aggregate(one))


def test_the_server_keeps_its_own_stages_in_order():
    network = Network(3)
    with pytest.raises(StageOrder):
        network.session.close_pairs()
    network.agree()
    one = network.round()
    for close in (one.close_masked, one.close_survivors, one.unmask):
        with pytest.raises(StageOrder):
            close()
    network.aggregate(one)
    with pytest.raises(StageOrder):
        one.unmask()


def test_messages_that_arrive_twice_count_once():
    network = Network(4)

    class Twice:
        def __init__(self, collector):
            self.collector = collector

        def receive(self, index, data):
            self.collector.receive(index, data)
            self.collector.receive(index, data)

    plain = network.exchange
    network.exchange = lambda collector, stage, messages: plain(Twice(collector), stage, messages)
    network.agree()
    one = network.round()
    network.check(one, network.aggregate(one))
    assert one.blame == network.session.blame == []


def test_secrets_are_gone_when_they_have_served():
    network = Network(4)
    network.agree()
    node = network.nodes[1]
    ready = ClientState.decode(node.state)
    assert (ready.key_seed, ready.halves) == (b"", {})
    one = network.round()
    messages = network.until("mask", one)
    shared = ClientState.decode(node.state)
    assert all(shared.keys[peer] != ready.keys[peer] for peer in shared.keys)
    secrets = [shared.self_seed, *(seed for seed, _ in shared.seeds.values())]
    network.exchange(one, "mask", messages)
    assert not any(secret in node.state for secret in secrets)
    network.exchange(one, "confirm", dict.fromkeys(one._digests, one.close_masked()))
    held = [share for row in ClientState.decode(node.state).shares.values() for share in row]
    network.exchange(one, "unmask", dict.fromkeys(one.confirmed, one.close_survivors()))
    done = load(node.state, node.counter)
    assert done.shares == {}
    told = replace(done, reply=b"").encode()  # what it has sent away is kept until the next stage, in case it got lost
    assert not any(share in told for share in held)
    node.do("start", network.round(2).start())
    assert not any(share in node.state for share in held)
    assert (done.at.stage, done.at.opened) == (Stage.UNMASKED, 1)
    erased = done.erased()
    assert erased == ClientState(erased.counter)
    assert erased.at.opened == 1


def test_no_representation_shows_a_secret():
    network = Network(3)
    network.agree()
    one = network.round()
    network.until("mask", one)
    node = network.nodes[0]
    state = load(node.state, node.counter)
    for shown in (repr(state), repr(node.party), repr(state.at), f"{state}"):
        for secret in (
            state.self_seed,
            *(row[0] for row in state.seeds.values()),
            *(k for (k,) in state.keys.values()),
        ):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown


def test_every_stage_writes_a_counter_that_grows():
    network = Network(3)
    network.agree()
    for number in (1, 2):
        network.aggregate(network.round(number))
    seen = [Counter.decode(data) for data in network.nodes[0].counters]
    order = [(item.serial, item.position, item.stage) for item in seen]
    assert order == sorted(set(order))
    assert [item.opened for item in seen] == sorted(item.opened for item in seen)


def test_the_noise_is_asked_for_once_and_after_all_checks():
    network = Network(3)
    network.agree()
    one = network.round()
    messages = network.until("mask", one)
    assert [node.drawn for node in network.nodes.values()] == [0, 0, 0]
    network.exchange(one, "mask", messages)
    network.exchange(one, "mask", messages)
    assert [node.drawn for node in network.nodes.values()] == [1, 1, 1]


def test_a_silo_with_another_model_is_named_and_left_out():
    network = Network(5)
    network.agree()
    network.nodes[2].model = hashlib.sha256(b"another").digest()
    one = network.round()
    network.check(one, network.aggregate(one))
    assert one.u3 == (0, 1, 3, 4)
    assert [(note.member, note.code) for note in one.blame] == [(2, "ContextMismatch")]
    assert network.nodes[2].drawn == 0
    assert network.nodes[0].model == MODEL


def test_a_refusal_is_a_number_and_ends_in_the_servers_notes():
    network = Network(4)
    network.agree()
    one = network.round()
    wrong = network.round(3)
    network.meddle = lambda at, way, i, data: wrong.start() if (at, way, i) == ("start", "down", 1) else data
    network.nodes[1].do("start", network.round(4).start())  # has gone ahead
    network.check(one, network.aggregate(one))
    assert [(note.member, note.code, note.stage) for note in one.blame] == [(1, "Replay", "shares refused")]
    refusal = network.nodes[1].answer("start", one.start())
    assert len(refusal) == 10
    assert Refusal.decode(refusal).index == 1


def test_the_vector_is_left_as_it_is():
    network = Network(3)
    network.agree()
    before = network.nodes[0].vector.copy()
    network.aggregate(network.round())
    np.testing.assert_array_equal(network.nodes[0].vector, before)
