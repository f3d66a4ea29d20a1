"""Thousands of random schedules: either the exact sum over one set of survivors, or a clean abort, and never more.

The network drops, delays, repeats and reorders; late messages of an attempt arrive in the stages and attempts after
it. Deliveries are drawn by hypothesis from a seed, so that a failure shrinks to a short schedule.
"""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_network import Network, config

from quire.privacy.dp.wire import centred
from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.messages import Unmasked
from quire.privacy.secagg.state import Counter

READY = {}


def ready(n):
    """Return a network whose session is made, from a copy: making one is the slow part."""
    if n not in READY:
        network = Network(n, config(2, 1 if n > 3 else 0))
        network.agree()
        READY[n] = (network, {i: (node.state, node.counter) for i, node in network.nodes.items()})
    network, stored = READY[n]
    for i, node in network.nodes.items():
        node.state, node.counter = stored[i]
        node.sent, node.counters, node.drawn = [], [], 0
    return network


def given_away(network):
    """What every silo gave up, by context: of whom the self-mask share, of whom the seal share."""
    found = {}
    for node in network.nodes.values():
        for data in node.sent:
            try:
                message = Unmasked.decode(data)
            except SecAggError:
                continue
            for kind, rows in (("self", message.survivors), ("seal", message.dropped)):
                for owner in rows:
                    found.setdefault((message.context, owner), {}).setdefault(kind, set()).add(message.index)
    return found


def run(network, coins, trouble):
    """Run up to three attempts of a round over a bad network; return the opened attempts with their sums."""
    late: list[tuple[str, int, bytes]] = []  # requests still on their way to silos
    delayed: list[tuple[int, bytes]] = []  # replies still on their way to the server
    opened = []
    for attempt in (1, 2, 3):
        one = network.round(1, attempt)
        messages = dict.fromkeys(one.cohort, one.start())
        try:
            for stage in ("start", "mask", "confirm", "unmask"):
                requests = [(stage, i, data) for i, data in messages.items()] + late
                coins.shuffle(requests)
                late = []
                for request in requests:
                    copies = 0 if coins.random() < trouble else 1 + (coins.random() < trouble)
                    if coins.random() < trouble:
                        late.append(request)
                    for _ in range(copies):
                        at, index, data = request
                        delayed.append((index, network.nodes[index].answer(at, data)))
                coins.shuffle(delayed)
                waiting = []
                for index, reply in delayed:
                    if coins.random() < trouble / 2:
                        waiting.append((index, reply))
                    elif coins.random() >= trouble / 4:
                        one.receive(index, reply)
                        if coins.random() < trouble:
                            one.receive(index, reply)
                delayed = waiting
                if stage == "start":
                    messages = {i: one.mask_request(i) for i in one.close_shares()}
                elif stage == "mask":
                    messages = dict.fromkeys(one._digests, one.close_masked())
                elif stage == "confirm":
                    messages = dict.fromkeys(one.confirmed, one.close_survivors())
            opened.append((one, one.unmask()))
            return opened, one
        except SecAggError:
            continue
    return opened, one


@settings(max_examples=250, deadline=None, derandomize=True)
@given(n=st.integers(2, 5), seed=st.integers(0, 2**32), trouble=st.sampled_from([0.0, 0.02, 0.08, 0.2]))
def test_an_exact_sum_or_a_clean_abort(n, seed, trouble):
    check(n, seed, trouble)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=10_000, deadline=None)
@given(n=st.integers(2, 9), seed=st.integers(0, 2**32), trouble=st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.2]))
def test_an_exact_sum_or_a_clean_abort_at_length(n, seed, trouble):
    check(n, seed, trouble)


def check(n, seed, trouble):
    network = ready(n)
    opened, last = run(network, random.Random(seed), trouble)
    if trouble == 0.0:
        assert len(opened) == 1
    for one, total in opened:
        assert len(one.u3) >= one.limits.min_survivors
        np.testing.assert_array_equal(centred(total, 32), network.plain(one.u3))
    # One-shot: of one owner in one attempt only one kind of share is anywhere, and no silo opens a round twice.
    for kinds in given_away(network).values():
        assert len(kinds) == 1
    # And no two attempts of a round can have been opened by a quorum.
    quorums = {}
    for (context, _), kinds in given_away(network).items():
        quorums[context] = max(map(len, kinds.values()))
    assert sum(count >= last.limits.threshold for count in quorums.values()) <= 1
    for node in network.nodes.values():
        seen = [(c.position, c.stage) for c in map(Counter.decode, node.counters)]
        assert seen == sorted(set(seen))


def test_most_schedules_of_the_worst_kind_do_not_open_and_most_of_the_mild_kind_do():
    """The test above tests both ends."""
    outcomes = {
        trouble: sum(bool(run(ready(5), random.Random(seed), trouble)[0]) for seed in range(40))
        for trouble in (0.02, 0.2)
    }
    assert outcomes[0.02] >= 30
    assert 1 <= outcomes[0.2] <= 39
