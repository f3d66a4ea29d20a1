"""The server's side of the model chain: who is told which state and which sums, and what is kept for that."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from flwr.app import RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients import contract
from quire.clients.arrays import decode, encode, fingerprint
from quire.clients.secure.agreement import Agreement, agreement_of
from quire.clients.secure.chain import digest_of
from quire.clients.secure.terms import terms_of
from quire.conf.compose import compose
from quire.privacy.dp.wire import unpack
from quire.privacy.secagg.blame import Blame
from quire.strategies import chain as module
from quire.strategies.chain import AWAY, Chain
from quire.strategies.courier import carrying, size_of
from quire.strategies.distributed import MEMORY
from quire.strategies.rounds import RoundState

ALL = (0, 1, 2)
NAMES = {0: "a", 1: "b", 2: "c"}


@cache
def agreement() -> Agreement:
    chosen = compose("task=breast_cancer aggregation=secure partition.silos=3")
    return agreement_of(terms_of(chosen, chosen.aggregation, 3), {"w": np.zeros(4, np.float32)})  # type: ignore[arg-type]


def state_of(number: int) -> RoundState:
    model = {"w": np.full(4, number, np.float32)}
    return RoundState(number - 1, model, {"m/w": np.full(4, 10.0 * number), MEMORY: np.zeros(5)})


class Course:
    """Rounds of a server, with what each silo was told."""

    def __init__(self, active: bool = True) -> None:
        self.chain, self.number = Chain(active), 0

    def round(self, answering=ALL, asked=ALL, lost: bool = False):
        self.number += 1
        state = state_of(self.number)
        self.digest = self.chain.begin(state, encode(state.model))
        told = self.chain.asked(asked, carrying(b"start"))
        for silo in answering:
            self.chain.answered(silo)
        if not lost:
            self.chain.opened(
                np.full(agreement().point.length, self.number, np.uint32), agreement(), 2 + self.number % 2
            )
        return told


def base_of(told: RecordDict) -> int:
    """The round whose state is told, held against model and memory."""
    base = told[contract.CHAIN][contract.BASE]
    assert (decode(told[contract.ARRAYS])["w"] == base).all()
    memory = decode(told[contract.CHAIN_MEMORY])
    assert set(memory) == {"m/w"}  # and nothing of the probes
    assert (memory["m/w"] == 10 * base).all()
    return base


def sums_of(told: RecordDict) -> list[int]:
    point = agreement().point
    if contract.SUMS not in told:
        return []
    found = decode(told[contract.SUMS])
    assert told[contract.CHAIN][contract.SURVIVORS] == [2 + int(number) % 2 for number in found]
    for name, packed in found.items():
        assert (unpack(packed.tobytes(), point.bits, point.length) == int(name)).all()
    return [int(name) for name in found]


def test_who_takes_part_is_told_the_last_state_and_one_sum() -> None:
    course = Course()
    for number in range(1, 9):
        told = course.round()
        assert len({id(records) for records in told.values()}) == 1  # one message for all
        assert (base_of(told[0]), sums_of(told[0])) == ((number - 1, [number - 1]) if number > 1 else (1, []))
        assert len(course.chain._states) <= 2
        assert len(course.chain._sums) <= 2


def test_a_round_is_known_by_its_whole_state() -> None:
    course = Course()
    course.round()
    state = state_of(1)
    assert course.digest == digest_of(RoundState(0, state.model, {"m/w": state.memory["m/w"]}))


def test_who_was_away_is_told_all_sums_since_and_the_others_one() -> None:
    course = Course()
    course.round()
    for _ in range(2):
        course.round((0, 1))
    told = course.round()
    assert (base_of(told[2]), sums_of(told[2])) == (1, [1, 2, 3])
    assert (base_of(told[0]), sums_of(told[0])) == (3, [3])
    assert told[0] is told[1] is not told[2]
    assert size_of(told[2]) - size_of(told[0]) == 2 * (agreement().point.length * agreement().point.bits // 8 + 128)
    assert base_of(course.round()[2]) == 4


def test_states_that_nobody_can_be_told_are_let_go_and_their_sums_are_not() -> None:
    course = Course()
    course.round()
    for _ in range(3):
        course.round((0, 1))
    for number in range(5, 30):
        course.round((0,))
        assert sorted(course.chain._states) == [1, 4, *((number - 1,) if number > 5 else ()), number]
    told = course.round()
    assert [base_of(told[silo]) for silo in ALL] == [29, 4, 1]
    assert [sums_of(told[silo]) for silo in ALL] == [[29], list(range(4, 30)), list(range(1, 30))]


def test_who_joins_late_begins_with_the_newest_state() -> None:
    course = Course()
    course.round((0, 1), (0, 1))
    course.round((0, 1), (0, 1))
    told = course.round((0, 1))
    assert (base_of(told[2]), sums_of(told[2])) == (3, [])
    # Its answer was lost, and it may have taken that state down: from here on the path goes through it.
    assert base_of(course.round((0, 1))[2]) == 3
    assert base_of(course.round()[2]) == 3
    assert base_of(course.round()[2]) == 5


def test_another_attempt_of_a_round_tells_those_who_answered_this_round_s_state() -> None:
    course = Course()
    course.round()
    course.round((0,))
    again = course.chain.asked(ALL, carrying(b"again"))
    assert (base_of(again[0]), sums_of(again[0])) == (2, [])
    assert (base_of(again[1]), sums_of(again[1])) == (1, [1])


def test_a_lost_round_has_no_sum() -> None:
    course = Course()
    course.round()
    course.round(lost=True)
    course.round((0,))
    told = course.round()
    assert (base_of(told[1]), sums_of(told[1])) == (2, [3])


@pytest.mark.parametrize("limit", ["sums", "bytes"])
def test_beyond_what_is_kept_a_silo_is_told_from_the_oldest_and_then_the_newest(limit, monkeypatch) -> None:
    size = agreement().point.length * agreement().point.bits // 8
    monkeypatch.setattr(module, "MOST_SUMS" if limit == "sums" else "MOST_BYTES", 3 if limit == "sums" else 3 * size)
    course = Course()
    course.round()
    for _ in range(4):
        course.round((0, 1))
    told = course.round((0, 1))
    assert (base_of(told[2]), sums_of(told[2])) == (5, [5])  # all that the others still need
    blame = [Blame(2, "shares refused", "ModelChainMismatch"), Blame(1, "shares refused", "Replay")]
    (failure,) = course.chain.strays(blame, NAMES)
    assert (failure.silo, failure.stage, failure.code, failure.words) == ("c", "shares", *AWAY)
    told = course.round((0, 1))
    assert (base_of(told[2]), sums_of(told[2])) == (7, [])  # it refuses again, at the least cost
    assert course.chain.strays(blame, NAMES) == [failure]
    assert len(course.chain._states) == 2


def test_who_refuses_a_path_that_is_whole_was_not_away() -> None:
    course = Course()
    course.round()
    course.round()
    assert course.chain.strays([Blame(2, "shares refused", "ModelChainMismatch")], NAMES) == []


def test_one_sum_is_always_kept_however_large(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    course = Course()
    course.round()
    assert sums_of(course.round()[0]) == [1]


def test_without_a_chain_all_are_told_the_model_of_the_round_and_nothing_else() -> None:
    course = Course(active=False)
    for number in range(1, 4):
        told = course.round((0,))
        assert len({id(records) for records in told.values()}) == 1
        assert set(told[0]) == {contract.ARRAYS, contract.PROTOCOL}
        assert course.digest.hex() == fingerprint(state_of(number).model)
        assert course.chain.strays([Blame(2, "shares refused", "ModelChainMismatch")], NAMES) == []
    assert (len(course.chain._states), course.chain._sums) == (1, {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(ALL)), st.booleans()), max_size=90))
def test_whatever_silos_do_each_is_told_a_path_from_what_it_can_know(course_of) -> None:
    """A silo knows a round in which it was asked; one that answered is known to. All sums on the way are told."""
    course, knows, lost_rounds = Course(), dict[int, set[int]](), set[int]()
    for asked, answering, lost in course_of:
        told = course.round(asked & answering, asked, lost)
        lost_rounds |= {course.number} if lost else set()
        for silo, records in told.items():
            base, possible = base_of(records), knows.get(silo, {course.number})
            within = course.number - min(possible) <= module.MOST_SUMS
            assert base <= min(possible) if within else base <= course.number
            assert sums_of(records) == [at for at in range(base, course.number) if at not in lost_rounds]
            if silo in answering:
                knows[silo] = {course.number}
            else:
                knows[silo] = knows.get(silo, set()) | {course.number}
        assert len(course.chain._sums) <= module.MOST_SUMS
        assert len(course.chain._states) <= len(ALL) + 1
