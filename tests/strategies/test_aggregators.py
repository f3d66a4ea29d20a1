"""The running mean: the bits do not depend on how updates are grouped or on threads, and nothing is kept for long."""

import gc
import os
import weakref

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.randomness import stream
from quire.strategies import aggregators
from quire.strategies.aggregators import PlainMean, RunningMean
from quire.strategies.replies import read_train_replies
from quire.strategies.rounds import Cohort, Update


def updates_of(count, size, seed=1):
    rng = stream(seed, "updates")
    form = {"w": (size,), "b": (3, 2), "s": ()}
    return [
        Update(
            str(place),
            {name: rng.standard_normal(shape).astype(np.float32) for name, shape in form.items()},
            float(rng.integers(1, 100)),
        )
        for place in range(count)
    ]


def written_out(updates, name):
    """Number by number, in the order given."""
    total = np.zeros(updates[0].arrays[name].shape)
    for update in updates:
        total = total + update.arrays[name].astype(np.float64) * update.weight
    return total / sum(update.weight for update in updates)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.sampled_from([1, 100, aggregators._PIECE, aggregators._PIECE + 1]))
def test_it_is_the_sum_in_the_order_of_updates_to_the_bit(count, size):
    updates = updates_of(count, size)
    mean = PlainMean().mean(updates, Cohort(1, ()))
    for name in ("w", "b", "s"):
        assert mean[name].dtype == np.float64
        assert mean[name].tobytes() == written_out(updates, name).tobytes()


def test_threads_change_no_bit(monkeypatch):
    updates, bits = updates_of(9, 5 * aggregators._PIECE + 7), set()
    monkeypatch.setattr(aggregators, "_WORTH_THREADS", 1)
    for cores in (1, 2, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda who, cores=cores: set(range(cores)), raising=False)
        bits.add(PlainMean().mean(updates, Cohort(1, ()))["w"].tobytes())
    assert bits == {written_out(updates, "w").tobytes()}


def test_the_largest_float64_updates_do_not_overflow_on_their_way_to_a_mean_that_does_not():
    updates = [Update("a", {"w": np.array([1e307])}, 1e12), Update("b", {"w": np.array([-1e307])}, 1e12)]
    assert PlainMean().mean(updates, Cohort(1, ()))["w"][0] == 0.0
    assert PlainMean().mean(updates[:1], Cohort(1, ()))["w"][0] == np.float64(1e307)


def test_it_is_empty_again_after_its_mean():
    running, updates = RunningMean(), updates_of(3, 5)
    for _ in range(2):
        for update in updates:
            running.add(update)
        assert running.mean()["w"].tobytes() == written_out(updates, "w").tobytes()


def test_replies_in_order_are_let_go_of_while_others_are_still_to_come(silos):
    """Large updates are never all there at once: each is given away and forgotten before the next is asked for."""
    model = {"w": np.zeros(4, np.float32)}
    sent, alive, taken = silos.sent("train"), [], []

    def replies():
        for request in sent:
            gc.collect()
            assert not [one for one in alive if one() is not None]
            reply = silos.reply(request, {"w": np.ones(4, np.float32)})
            alive.append(weakref.ref(reply))
            yield reply
            del reply

    good, failed = read_train_replies(
        sent, replies(), silos.by_node, model, silos.code, take=lambda update: taken.append(update.silo)
    )
    assert failed == []
    assert taken == [one.update.silo for one in good] == list(silos.by_node.values())
    assert all(one.update.arrays == {} for one in good)


def test_updates_are_taken_in_roster_order_whoever_answers_first(silos):
    model, sent, taken = {"w": np.zeros(4, np.float32)}, silos.sent("train"), []
    replies = [silos.reply(request, {"w": np.ones(4, np.float32)}) for request in reversed(sent)]
    read_train_replies(sent, iter(replies), silos.by_node, model, silos.code, take=lambda one: taken.append(one.silo))
    assert taken == list(silos.by_node.values())
