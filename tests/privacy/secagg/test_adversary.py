"""A lying server that tries anything, at random: no honest silo's vector is in two opened sums of a round."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_adversary import LyingServer, play

from quire.privacy.secagg.params import thresholds
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.state import ClientState, Counter, load


def by_size(policy, config, count):
    """The rule that was wrong: thresholds counted from whatever the server calls the cohort, or the session."""
    return thresholds(count, config.colluders, config.min_survivors)


CAST = {}


def adversary(n, c):
    """Return the adversary with a session of everybody, which is made once."""
    if (n, c) not in CAST:
        server = LyingServer(n, c)
        server.make_session(server.everyone)
        stored = {i: (node.state, node.counter) for i, node in server.network.nodes.items()}
        CAST[n, c] = (server, server.session, dict(server._fresh), stored)
    server, session, fresh, stored = CAST[n, c]
    server.rewind(stored)
    server.session, server._fresh = session, dict(fresh)
    server.opened.clear()
    server.sums.clear()
    server.refusals.clear()
    for node in server.network.nodes.values():
        node.sent.clear()
        node.counters.clear()
    return server


def attack(n, c, seed, steps):
    server = adversary(n, c)
    play(server, random.Random(seed), steps)
    for contexts in server.opened.values():
        assert len(contexts) <= 1
    for node in server.honest().values():
        seen = [Counter.decode(data) for data in node.counters]
        assert [item.opened for item in seen] == sorted(item.opened for item in seen)
        state = load(node.state, node.counter)
        assert state == ClientState.decode(node.state)
    return server


@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=st.sampled_from([(4, 1), (5, 1), (6, 1), (7, 2), (8, 3)]), seed=st.integers(0, 2**32))
def test_no_two_attempts_of_a_round_are_opened(size, seed):
    attack(*size, seed, 4)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=800, deadline=None)
@given(size=st.sampled_from([(2, 0), (4, 1), (6, 1), (7, 2), (9, 2), (10, 3)]), seed=st.integers(0, 2**32))
def test_no_two_attempts_of_a_round_are_opened_at_length(size, seed):
    attack(*size, seed, 6)


def test_the_adversary_opens_rounds():
    assert sum(bool(attack(6, 1, seed, 4).opened) for seed in range(10)) >= 2


def wins(n, c, seed):
    """Say whether an attack ends with two attempts of one round opened, or with a vector in the clear."""
    server = adversary(n, c)
    try:
        play(server, random.Random(seed), 4)
    except AssertionError:
        return True
    return any(len(contexts) > 1 for contexts in server.opened.values())


def test_it_wins_under_thresholds_of_cohort_or_session(monkeypatch):
    """What the core is tested with can win, as soon as the rule is the wrong one."""
    monkeypatch.setattr(Policy, "thresholds", by_size)
    assert any(wins(6, 1, seed) for seed in range(60))


def test_it_wins_if_a_run_does_not_keep_its_configuration(monkeypatch):
    agreed = LyingServer.make_session

    def forgotten(server, *args):
        for node in server.honest().values():
            if node.state is not None:
                state = ClientState.decode(node.state)
                node.counter = replace(state.at, terms=bytes(32)).encode()
                node.state = replace(state, counter=node.counter).encode()
        return agreed(server, *args)

    monkeypatch.setattr(LyingServer, "make_session", forgotten)
    assert any(wins(7, 2, seed) for seed in range(60))
