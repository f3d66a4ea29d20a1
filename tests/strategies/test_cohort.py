"""The roster, the cohorts drawn from it, and waiting for everyone to join."""

import threading
import time

import pytest
from fake_grid import FakeGrid, identity
from flwr.app import Message, RecordDict

from quire.errors import RunFailed
from quire.strategies import cohort
from quire.strategies.cohort import Roster, enrol
from quire.strategies.exchange import exchange

NAMES = [f"silo-{place}" for place in range(1, 13)]


def roster(nodes=range(100, 112)):
    return Roster(dict(zip(nodes, NAMES, strict=True)))


def test_a_cohort_has_the_size_asked_for_in_roster_order():
    drawn = roster().sample(0.5, 2, seed=1, purpose="train", round_number=3)
    assert len(drawn) == 6
    names = list(drawn.values())
    assert names == sorted(names, key=NAMES.index)
    assert len(roster().sample(0.01, 2, 1, "train", 1)) == 2
    assert list(roster().sample(1.0, 2, 1, "train", 1).values()) == NAMES
    assert len(roster().sample(0.1, 99, 1, "train", 1)) == 12


def test_thirds_do_not_lose_a_silo_to_rounding():
    assert len(Roster({node: str(node) for node in range(10)}).sample(0.3, 1, 1, "train", 1)) == 3


def test_cohorts_depend_on_names_rounds_and_seed_not_on_node_ids():
    drawn = roster().sample(0.5, 2, 1, "train", 3)
    assert list(roster(range(900, 912)).sample(0.5, 2, 1, "train", 3).values()) == list(drawn.values())
    others = [(2, "train", 3), (1, "evaluate", 3), (1, "train", 4)]
    assert all(list(roster().sample(0.5, 2, *other).values()) != list(drawn.values()) for other in others)


def test_every_silo_is_drawn_about_as_often():
    counts = dict.fromkeys(NAMES, 0)
    for number in range(600):
        for name in roster().sample(0.25, 1, 1, "train", number).values():
            counts[name] += 1
    assert all(100 < count < 200 for count in counts.values())


def test_without_a_seed_cohorts_are_not_repeated():
    draws = {tuple(roster().sample(0.5, 2, None, "train", 1).values()) for _ in range(20)}
    assert len(draws) > 10


def test_enrolment_waits_for_all_nodes_and_orders_them_naturally():
    grid = FakeGrid({7: identity("h-10"), 3: identity("h-2"), 5: identity("h-1")}, join_every=0.1)
    enrolled, failed = enrol(grid, 3, 2, "x", join_timeout=20, simulated=False)
    assert enrolled.silos == {5: "h-1", 3: "h-2", 7: "h-10"}
    assert enrolled.names == ["h-1", "h-2", "h-10"]
    assert failed == []


def test_silos_with_other_code_are_left_out_and_too_few_end_the_run():
    answers = {1: identity("a"), 2: identity("b", "stale"), 3: identity("c")}
    enrolled, failed = enrol(FakeGrid(answers), 3, 2, "x", join_timeout=20, simulated=False)
    assert enrolled.names == ["a", "c"]
    assert [(failure.silo, failure.code) for failure in failed] == [("node 2", "other_code")]
    with pytest.raises(RunFailed, match=r"2 of 3 silos could be enrolled, 3 are needed: node 2: it runs other code"):
        enrol(FakeGrid(answers), 3, 3, "x", join_timeout=20, simulated=False)


def test_nodes_that_do_not_join_end_the_run_with_the_command_that_helps():
    with pytest.raises(
        RunFailed, match=r"2 nodes joined, but the settings have 5 silos: start 5 SuperNodes .*num-supernodes=5"
    ):
        enrol(FakeGrid({1: {}, 2: {}}), 5, 2, "x", join_timeout=0.3, simulated=False)


def test_in_a_simulation_a_number_that_does_not_grow_is_not_waited_out(monkeypatch):
    monkeypatch.setattr(cohort, "_SETTLED_AFTER", 0.2)
    started = time.monotonic()
    with pytest.raises(RunFailed, match="2 nodes joined"):
        enrol(FakeGrid({1: {}, 2: {}}), 5, 2, "x", join_timeout=120, simulated=True)
    assert time.monotonic() - started < 60


def test_more_nodes_than_silos_is_an_error_too():
    with pytest.raises(RunFailed, match="3 nodes joined, but the settings have 2 silos"):
        enrol(FakeGrid({1: {}, 2: {}, 3: {}}), 2, 2, "x", join_timeout=20, simulated=False)


def test_an_exchange_returns_who_replied_when_the_deadline_passes():
    grid = FakeGrid({1: identity("a"), 2: {}, 3: identity("c")})
    replies = exchange(grid, [Message(RecordDict(), node, "query") for node in (1, 2, 3)], timeout=0.3)
    assert sorted(reply.metadata.src_node_id for reply in replies) == [1, 3]
    assert grid.pulls < 30  # it pauses between pulls


def test_an_exchange_takes_a_reply_that_comes_during_the_wait():
    answers = {1: {}}
    grid = FakeGrid(answers)
    threading.Timer(0.2, lambda: answers.update({1: identity("a")})).start()
    assert len(exchange(grid, [Message(RecordDict(), 1, "query")], timeout=30)) == 1


def test_the_order_of_silos_is_total_whatever_their_names():
    names = ["h-1", "h-01", "h-10", "h-2", "a"]
    assert len({tuple(cohort.natural(name)) for name in names}) == len(names)
    assert sorted(names, key=cohort.natural) == ["a", "h-01", "h-1", "h-2", "h-10"]
