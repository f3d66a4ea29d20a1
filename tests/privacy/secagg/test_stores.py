"""What a silo stores between stages: rolled back, lost, damaged, and what its own policy binds."""

from dataclasses import replace

import pytest
from secagg_network import Network, config, made

from quire.privacy.secagg import errors as e
from quire.privacy.secagg import pairs
from quire.privacy.secagg.messages import ConfirmRequest, Shares
from quire.privacy.secagg.state import ClientState, Counter, Stage, load


def test_a_state_that_was_rolled_back_is_refused_at_every_stage():
    network = made(4)
    one = network.round()
    victim = network.nodes[1]
    old = []
    for stage in ("start", "mask", "confirm", "unmask"):
        old.append((victim.state, victim.counter))
        if stage == "start":
            messages = dict.fromkeys(range(4), one.start())
        network.exchange(one, stage, messages)
        if stage == "start":
            messages = {i: one.mask_request(i) for i in one.close_shares()}
        elif stage == "mask":
            messages = dict.fromkeys(range(4), one.close_masked())
        elif stage == "confirm":
            messages = dict.fromkeys(range(4), one.close_survivors())
    network.check(one, one.unmask())
    for state, counter in old:
        with pytest.raises(e.Replay):
            load(state, victim.counter)
        with pytest.raises(e.Replay):
            load(victim.state, counter)
        with pytest.raises(e.Replay):
            load(state, None)


@pytest.mark.parametrize("stage", ["start", "mask", "confirm", "unmask"])
def test_a_crash_between_counter_and_state_ends_the_session_and_a_new_one_goes_on(stage):
    network = made(4)
    one = network.round()
    messages = network.until(stage, one)
    victim = network.nodes[1]
    before = victim.state
    victim.do(stage, messages[1])
    victim.state = before  # the counter was written, the state was not
    with pytest.raises(e.Replay):
        victim.do(stage, messages[1])
    victim.state = None  # the state was lost with the key it was sealed under
    with pytest.raises(e.StageOrder):
        victim.do(stage, messages[1])
    again = Network(4, replace(network.config, first_round=2))
    for i, node in again.nodes.items():
        node.state, node.counter = network.nodes[i].state, network.nodes[i].counter
    again.agree()
    again.check(one := again.round(2), again.aggregate(one))
    opened = Counter.decode(victim.counter)
    assert opened.opened == (1 if stage == "unmask" else 0)


def test_what_is_stored_comes_back_and_damage_is_found():
    network = made(4)
    one = network.round()
    network.until("confirm", one)
    node = network.nodes[2]
    state = load(node.state, node.counter)
    assert ClientState.decode(state.encode()) == state
    assert state.at.stage == Stage.MASKED
    for cut in (1, 20, len(node.state) - 1):
        with pytest.raises(e.MalformedMessage):
            load(node.state[:cut], node.counter)


def test_a_silo_restored_with_its_counter_seals_no_two_texts_under_one_key():
    """Against a whole machine set back no counter helps; the salt still keeps the share keys apart."""
    network = made(4)
    one = network.round()
    node = network.nodes[0]
    state, counter = node.state, node.counter
    first = Shares.decode(node.do("start", one.start()))
    node.state, node.counter = state, counter
    second = Shares.decode(node.do("start", one.start()))
    assert first.context == second.context
    assert first.salt != second.salt
    seeds = load(node.state, node.counter).seeds
    with pytest.raises(e.BadShareCiphertext):
        pairs.open_shares(seeds[1][1], 0, 1, second.salt, first.context, first.peers[1][0])


def test_a_vector_of_another_kind_is_not_masked():
    network = made(4)
    one = network.round()
    messages = network.until("mask", one)
    for wrong in (network.nodes[0].vector[:-1], network.nodes[0].vector.astype("int64")):
        network.nodes[0].vector = wrong
        sent = len(network.nodes[0].sent)
        with pytest.raises(e.BadVector):
            network.nodes[0].do("mask", messages[0])
        assert len(network.nodes[0].sent) == sent


def test_min_survivors_of_one_silos_policy_bind_that_silo():
    network = made(7, settings=config(colluders=1))
    victim = network.nodes[0]
    strict = replace(victim.party.policy, min_survivors=7)
    victim.party = replace(victim.party, policy=strict)
    one = network.round()
    network.meddle = lambda at, way, i, data: None if at == "mask" and i == 6 else data
    messages = network.until("confirm", one)
    with pytest.raises(e.TooFewSurvivors):
        victim.do("confirm", ConfirmRequest(one.context, one.u3).encode())
    network.exchange(one, "confirm", messages)
    network.exchange(one, "unmask", dict.fromkeys(one.confirmed, one.close_survivors()))
    network.check(one, one.unmask())
