"""One round, one set of survivors: whatever sessions, cohorts and attempts a lying server makes of it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secagg_adversary import Lawless
from secagg_network import ROSTER, Network, lenient, made, refuses

from quire.privacy.dp.wire import centred
from quire.privacy.secagg import errors as e
from quire.privacy.secagg.client import Party
from quire.privacy.secagg.messages import Adverts, Open, Start
from quire.privacy.secagg.params import MAX_COHORT, thresholds
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.state import ClientState, Counter

N, C = 10, 3
COLLUDERS = (7, 8, 9)
RUN, OTHER_RUN = bytes(15) + b"\x01", bytes(15) + b"\x02"


def by_size(policy, config, count):
    """The rule that was wrong: thresholds counted from whatever the server calls the cohort, or the session."""
    return thresholds(count, config.colluders, config.min_survivors)


def first_attempt():
    """Let four honest members and three colluders open the first attempt; three honest members are left fresh."""
    network = made(N)
    one = network.round(1, 1)
    messages = network.until("confirm", one)
    colluders = {i: (network.nodes[i].state, network.nodes[i].counter) for i in COLLUDERS}
    some = (0, 1, 2, 3, 7, 8, 9)
    network.exchange(one, "confirm", {i: messages[i] for i in some})
    network.exchange(one, "unmask", dict.fromkeys(some, one.close_survivors()))
    total = centred(one.unmask(), 32)
    np.testing.assert_array_equal(total, network.plain(tuple(range(N))))
    for i, (state, counter) in colluders.items():  # colluders forget as they like
        network.nodes[i].state, network.nodes[i].counter = state, counter
    return network, total


def test_a_second_attempt_with_a_smaller_cohort_is_refused_by_every_honest_member():
    network, _ = first_attempt()
    rest = (4, 5, 6, 7, 8, 9)
    with pytest.raises(e.CohortTooSmall):
        network.round(1, 2, rest)  # an honest server does not even ask
    start = Start(network.session.session, 1, 2, rest).encode()
    for i in (4, 5, 6):
        refuses(network.nodes[i], "start", start, e.CohortTooSmall)
    # One more would be enough, and everyone else who is honest has opened the round.
    for i in (0, 1, 2, 3):
        refuses(network.nodes[i], "start", Start(network.session.session, 1, 2, (i, *rest)).encode(), e.Replay)


def test_with_thresholds_of_the_cohort_the_same_attack_gives_the_sum_of_four(monkeypatch):
    """The test above sees what it is about: under the rule that was wrong the server gets what it came for."""
    monkeypatch.setattr(Policy, "thresholds", by_size)
    network, first = first_attempt()
    network.session.limits = lambda count: thresholds(count, C)
    two = network.round(1, 2, (4, 5, 6, 7, 8, 9))
    second = centred(network.aggregate(two), 32)
    np.testing.assert_array_equal(first - second, network.plain((0, 1, 2, 3)))


def test_keys_agreed_anew_among_fewer_members_are_refused():
    """The way around a threshold of the session: a session without those who have opened the round."""
    network, _ = first_attempt()
    session = network.session = made_anew(network)
    rest = (4, 5, 6, 7, 8, 9)
    network.exchange(session, "open", dict.fromkeys(rest, session.open()))
    with pytest.raises(e.CohortTooSmall):
        session.adverts()
    lying = Adverts(session.sid, {i: (a.key, a.signature) for i, a in session._adverts.items()}).encode()
    for i in (4, 5, 6):
        refuses(network.nodes[i], "agree", lying, e.CohortTooSmall)
    for i in (0, 1, 2, 3):
        refuses(network.nodes[i], "open", session.open(), e.Replay)


def made_anew(network, **changes):
    other = Network(N, replace(network.config, **changes), seed=5)
    other.session.identities = network.members
    return other.session


def test_with_thresholds_of_the_session_new_keys_would_give_the_sum_of_four(monkeypatch):
    monkeypatch.setattr(Policy, "thresholds", by_size)
    network, first = first_attempt()
    network.session = made_anew(network)
    network.session.limits = lambda count: thresholds(count, C)
    spared = {i: network.nodes.pop(i) for i in (0, 1, 2, 3)}
    for i in COLLUDERS:
        network.nodes[i].state = network.nodes[i].counter = None
    network.agree()
    second = centred(network.aggregate(network.round(1, 1)), 32)
    network.nodes |= spared
    np.testing.assert_array_equal(first - second, network.plain((0, 1, 2, 3)))


def test_another_round_may_have_another_cohort_and_another_session():
    network, _ = first_attempt()
    one = network.round(2, 1, (0, 1, 2, 3, 4, 5, 6, 7))
    network.check(one, network.aggregate(one))
    network.session = made_anew(network, first_round=3)
    network.nodes.pop(9)
    network.agree()
    one = network.round(3, 1)
    network.check(one, network.aggregate(one))
    assert one.u3 == tuple(range(9))


def test_a_round_stays_opened_in_every_later_session_and_without_the_state():
    network = made(4)
    network.aggregate(network.round(2))
    node = network.nodes[0]
    for state in (node.state, None):
        node.state = state
        for first in (1, 2):
            again = Open(bytes(16), ROSTER, replace(network.config, first_round=first).encode()).encode()
            refuses(node, "open", again, e.Replay)
    node.do("open", Open(bytes(16), ROSTER, replace(network.config, first_round=3).encode()).encode())
    assert Counter.decode(node.counter).opened == 2
    refuses(node, "open", Open(bytes(16), ROSTER, network.config.encode()).encode(), e.Replay)


def test_another_run_in_between_does_not_make_a_silo_forget():
    network = made(4)
    network.aggregate(network.round(1))
    node = network.nodes[0]
    other = Open(bytes(16), ROSTER, replace(network.config, run=OTHER_RUN).encode()).encode()
    refuses(node, "open", other, e.Replay)
    assert Counter.decode(node.counter).run == RUN
    kept = node.state, node.counter
    node.state = node.counter = None  # the other run has a counter of its own
    node.do("open", other)
    node.state, node.counter = kept
    refuses(node, "open", Open(bytes(16), ROSTER, network.config.encode()).encode(), e.Replay)


def test_a_run_keeps_its_roster():
    network = made(4)
    node = network.nodes[0]
    moved = replace(node.party, roster=bytes(31) + b"\x01")
    node.party = moved
    message = Open(bytes(16), moved.roster, replace(network.config, first_round=2).encode()).encode()
    refuses(node, "open", message, e.UnknownIdentity)
    node.state = node.counter = None
    node.do("open", message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("colluders", 0), ("colluders", 2), ("attempts", 2), ("rounds", 49)),
        *(("min_survivors", 4), ("bits", 24), ("length", 6), ("application", b"other")),
    ],
)
def test_a_run_keeps_its_configuration(name, value):
    """Whatever the policy of the silo would say to it, which is not asked here."""
    network = made(5)
    node = network.nodes[0]
    node.party = replace(node.party, policy=Lawless(members=5, min_cohort=0, colluders=0, application=b""))
    other = replace(network.config, first_round=2, **{name: value})
    refuses(node, "open", Open(bytes(16), ROSTER, other.encode()).encode(), e.PolicyViolation)
    node.state = None
    refuses(node, "open", Open(bytes(16), ROSTER, other.encode()).encode(), e.PolicyViolation)
    node.do("open", Open(bytes(16), ROSTER, replace(network.config, first_round=2).encode()).encode())


def with_fewer_colluders(network, members):
    """Open a session of the same run that asks for no colluders, among silos whose own policies would allow it."""
    network.session = made_anew(network, colluders=0)
    spared = {i: network.nodes.pop(i) for i in range(N) if i not in members}
    for i in set(COLLUDERS) & set(members):
        network.nodes[i].state = network.nodes[i].counter = None
    network.exchange(network.session, "open", dict.fromkeys(network.nodes, network.session.open()))
    advertised = network.session.advertised
    network.nodes |= spared
    return advertised


def test_fewer_colluders_in_a_later_session_are_refused_even_where_the_policies_would_allow_them():
    """The policies here name no colluder at all: what protects is what the run began with."""
    network, _ = first_attempt()
    assert network.nodes[4].party.policy.colluders == 0
    assert with_fewer_colluders(network, (4, 5, 6, 7, 8, 9)) == COLLUDERS


def test_without_that_fewer_colluders_would_give_the_sum_of_four():
    network, first = first_attempt()
    for i in (4, 5, 6):
        node = network.nodes[i]
        state = ClientState.decode(node.state)
        node.counter = replace(state.at, terms=bytes(32)).encode()
        node.state = replace(state, counter=node.counter).encode()
    rest = (4, 5, 6, 7, 8, 9)
    assert with_fewer_colluders(network, rest) == rest
    spared = {i: network.nodes.pop(i) for i in (0, 1, 2, 3)}
    session = network.session
    network.exchange(session, "agree", dict.fromkeys(rest, session.adverts()))
    network.exchange(session, "ready", {i: session.pair_keys(i) for i in session.close_pairs()})
    session.close()
    second = centred(network.aggregate(network.round(1, 1)), 32)
    network.nodes |= spared
    np.testing.assert_array_equal(first - second, network.plain((0, 1, 2, 3)))


@pytest.mark.parametrize("members", [0, 6, 9, 11, 65535])
def test_another_number_of_members_than_the_pinned_roster_has(members):
    network = Network(N)
    message = Open(bytes(16), ROSTER, replace(network.config, members=members).encode()).encode()
    refuses(network.nodes[0], "open", message, e.PolicyViolation)


def test_a_policy_that_counts_fewer_members_than_there_are_is_none():
    network = Network(4)
    party = network.nodes[0].party
    with pytest.raises(ValueError, match="3 members of a roster of 4"):
        replace(party, policy=replace(party.policy, members=3))
    # More may be listed than sign at the moment: their keys may come to count in the middle of a round.
    more = replace(party.policy, members=5)
    assert Party(0, party.identity, network.members, ROSTER, more, party.random_bytes).policy.members == 5


def test_what_protects_a_silo_has_no_default():
    complete = {"members": 4, "min_cohort": 2, "colluders": 1, "application": b""}
    assert Policy(**complete) == lenient(Network(4).config, colluders=1)
    for name in complete:
        with pytest.raises(TypeError, match=name):
            Policy(**{key: value for key, value in complete.items() if key != name})


@pytest.mark.parametrize("stage", ["agree", "ready", "start", "mask", "confirm", "unmask"])
@pytest.mark.parametrize("stricter", [{"application": b"other"}, {"colluders": 2}, {"max_attempts": 2}])
def test_every_stage_holds_the_whole_configuration_against_the_policy(stage, stricter):
    network = Network(5)
    messages = {}

    def watch(at, way, index, data):
        if (at, way, index) == (stage, "down", 0):
            messages[at] = data
            return None
        return data

    network.meddle = watch
    if stage in ("agree", "ready"):
        network.agree()
    else:
        network.agree()
        one = network.round()
        network.exchange(one, "unmask", network.until("unmask", one))
    node = network.nodes[0]
    agreed = node.party.policy
    node.party = replace(node.party, policy=replace(agreed, **stricter))
    refuses(node, stage, messages[stage], e.PolicyViolation)
    node.party = replace(node.party, policy=agreed, roster=bytes(32))
    refuses(node, stage, messages[stage], e.BadSignature if stage == "agree" else e.UnknownIdentity)
    node.party = replace(node.party, roster=ROSTER)
    node.do(stage, messages[stage])


def test_a_member_whose_key_ceases_to_count_is_in_no_new_attempt_and_signs_nothing():
    network = made(5)
    one = network.round()
    messages = network.until("unmask", one)
    node = network.nodes[0]
    without = {i: identity for i, identity in network.members.items() if i != 1}
    node.party = replace(node.party, members=without)
    refuses(node, "unmask", messages[0], e.UnknownIdentity, 1)
    refuses(node, "start", network.round(2).start(), e.UnknownIdentity, 1)
    node.do("start", network.round(2, cohort=(0, 2, 3, 4)).start())


@given(st.integers(2, MAX_COHORT), st.integers(0, MAX_COHORT), st.integers(0, MAX_COHORT), st.integers(0, 50))
def test_any_two_sets_of_openers_have_an_honest_member_in_common(members, colluders, more, least):
    """Whatever two sessions of a roster ask for, as long as neither asks for less than the colluders there are."""
    try:
        one, other = thresholds(members, colluders), thresholds(members, max(colluders, more), least)
    except e.CohortTooSmall:
        return
    assert one.threshold + other.threshold - members > colluders
    assert one.min_survivors - colluders >= 2
    assert other.min_survivors >= max(other.threshold, least)
    one.admit(one.min_survivors)
    for cohort in (one.min_survivors - 1, members + 1):
        with pytest.raises(e.CohortTooSmall):
            one.admit(cohort)
