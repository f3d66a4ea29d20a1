"""The pauses of our SuperNode: what Flower's loop does is as it was read, and no exchange is held up for long."""

from __future__ import annotations

import ast
import inspect

import pytest
from flwr.supernode import start_client_internal
from hypothesis import given
from hypothesis import strategies as st

from quire.consortium.supernode import IDLE, PART, REPLY, SHORTEST, SHORTEST_REPLY, Pace


def test_flowers_loop_pauses_where_and_for_as_long_as_we_take_it_to() -> None:
    """Another version of Flower fails here, and has to be read before it is paced."""
    tree = ast.parse(inspect.getsource(start_client_internal))
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "time"]
    assert {node.attr for node in used} == {"sleep"}
    found = {
        function.name: [
            ast.unparse(call.args[0])
            for call in ast.walk(function)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "time.sleep"
        ]
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }
    assert {name: pauses for name, pauses in found.items() if pauses} == {
        "start_client_internal": ["3"],
        "_push_messages": ["0.5", "0.5"],
    }
    assert (IDLE, REPLY) == (3.0, 0.5)


@given(st.lists(st.tuples(st.sampled_from([IDLE, REPLY]), st.floats(0.0, 100.0)), max_size=60))
def test_a_pause_is_never_longer_than_flowers_and_never_none(steps: list[tuple[float, float]]) -> None:
    now, pace = 5.0, Pace(5.0)
    for asked, more in steps:
        now += more
        pause = pace.pause(asked, now)
        assert (SHORTEST if asked == IDLE else SHORTEST_REPLY) <= pause <= asked
        now += pause


@given(st.floats(0.0, 1000.0))
def test_a_message_waits_for_a_tenth_of_the_time_since_the_last_one_at_most(gap: float) -> None:
    pace = Pace(0.0)
    pace.pause(REPLY, 0.0)
    now = 0.0
    while now <= gap:  # nobody has asked for anything yet
        pause = pace.pause(IDLE, now)
        now += pause
    assert now - gap <= min(IDLE, max(SHORTEST, PART * gap)) + 1e-9


@pytest.mark.parametrize(("idle", "polls"), [(1.0, 11), (10.0, 36), (100.0, 80)])
def test_who_is_idle_asks_ever_more_rarely(idle: float, polls: int) -> None:
    pace, now, count = Pace(0.0), 0.0, 0
    while now < idle:
        now += pace.pause(IDLE, now)
        count += 1
    assert count <= polls


def test_work_that_takes_long_is_looked_at_ever_more_rarely() -> None:
    pace = Pace(0.0)
    pace.pause(IDLE, 1.0)
    assert pace.pause(REPLY, 10.0) == SHORTEST_REPLY
    assert pace.pause(REPLY, 11.0) == pytest.approx(0.1)
    assert pace.pause(REPLY, 30.0) == REPLY
    assert pace.pause(IDLE, 30.0) == SHORTEST
