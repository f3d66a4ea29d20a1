"""Tasks side by side: one runs while others wait, and what one raises ends them all."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.strategies.turns import Turns


def test_a_task_goes_on_while_another_waits_for_it() -> None:
    turns, seen = Turns(), list[str]()

    def first() -> str:
        while "second" not in seen:  # for ever, if tasks were taken one after the other
            turns.sleep(0.001)
        return "a"

    def second() -> str:
        seen.append("second")
        return "b"

    assert turns.side_by_side([first, second]) == ["a", "b"]
    assert turns.side_by_side([second, first]) == ["b", "a"]


@given(waits=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_between_two_waits_nobody_else_runs(waits: list[int]) -> None:
    turns, inside, most = Turns(), list[int](), list[int]()

    def task(number: int, times: int) -> Callable[[], int]:
        def run() -> int:
            for _ in range(times + 1):
                inside.append(number)
                for _ in range(50):
                    most.append(len(inside))
                inside.remove(number)
                if times:
                    turns.sleep(0.0)
            return number

        return run

    found = turns.side_by_side([task(number, times) for number, times in enumerate(waits)])
    assert found == list(range(len(waits)))
    assert set(most) == {1}


@pytest.mark.parametrize("place", [0, 2, 4])
def test_what_one_raises_ends_the_others_where_they_wait(place: int) -> None:
    turns, ended = Turns(), list[int]()

    def endless(number: int) -> Callable[[], None]:
        def run() -> None:
            try:
                while True:
                    turns.sleep(0.001)
            finally:
                ended.append(number)

        return run

    def failing() -> None:
        turns.sleep(0.01)
        raise ValueError("of this one")

    tasks: list[Callable[[], None]] = [endless(number) for number in range(4)]
    tasks.insert(place, failing)
    before = threading.active_count()
    with pytest.raises(ValueError, match="of this one"):
        turns.side_by_side(tasks)
    assert threading.active_count() == before
    assert len(ended) == len(set(ended)) <= 4
    assert turns.side_by_side([lambda: 1, lambda: 2]) == [1, 2]


def test_an_interrupt_ends_them_and_is_not_lost() -> None:
    turns, ended = Turns(), list[bool]()

    def endless() -> None:
        _thread.interrupt_main()
        try:
            while True:
                turns.sleep(0.001)
        finally:
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        turns.side_by_side([endless])
    assert ended == [True]


def test_whoever_is_no_task_just_waits() -> None:
    Turns().sleep(0.0)
