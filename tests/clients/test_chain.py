"""The model chain, as arithmetic: silo and server come to the same bits, and a path that is bent is refused."""

from __future__ import annotations

import numpy as np
import pytest
from chain_sums import ALLOWED, BY_SILO, SHARED, SILOS, honest_sum, known_of, model_of, path_of, run_of, served, told
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.secure.agreement import Agreement
from quire.clients.secure.chain import Known, Path, after, digest_of, fits, follow, watched
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.secagg.errors import ImplausibleSum, ModelChainMismatch, Replay
from quire.strategies.distributed import MEMORY, collected
from quire.strategies.rounds import Algorithm, RoundState


@pytest.fixture(params=ALLOWED)
def run(request: pytest.FixtureRequest) -> tuple[Agreement, Algorithm]:
    return run_of(request.param)


def test_most_runs_are_tried() -> None:
    assert len(ALLOWED) >= 30


# ------------------------------------------------------------------------------------------------- the same bits
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lost=st.sets(st.integers(1, 3)),
    more=st.sampled_from(ALLOWED),
    kind=st.sampled_from([np.float32, np.float64, np.float16]),
    silos=st.integers(4, 5),
)
def test_a_silo_comes_to_the_bits_of_the_server(
    seed: int, lost: set[int], more: str, kind: type[np.floating], silos: int
) -> None:
    agreement, algorithm = run_of(more)
    states, sums = {1: RoundState(0, model_of(seed, kind))}, {}
    for number in range(1, 4):
        if number in lost:
            states[number + 1] = RoundState(number, states[number].model, states[number].memory)
            continue
        sums[number] = honest_sum(agreement, seed + number)
        states[number + 1] = served(agreement, algorithm, states[number], sums[number], silos)
    for first in range(1, 5):
        for at in range(first, 5):
            known = Known(at, digest_of(told(states[at])))
            since = {number: total for number, total in sums.items() if number >= first}
            state, digest = follow(agreement, algorithm, Path(first, told(states[first]), 4, since), known)
            assert digest == digest_of(told(states[4])) == digest_of(state)
            for mine, theirs in ((state.model, states[4].model), (state.memory, told(states[4]).memory)):
                assert {name: part.tobytes() for name, part in mine.items()} == {
                    name: part.tobytes() for name, part in theirs.items()
                }


def test_the_moments_that_an_algorithm_names_are_those_that_it_remembers(run: tuple[Agreement, Algorithm]) -> None:
    agreement, algorithm = run
    state = after(agreement, algorithm, RoundState(0, model_of()), honest_sum(agreement, 1))
    assert set(state.memory) == {f"{moment}/{name}" for moment in algorithm.moments for name in model_of()}
    assert fits(algorithm, model_of(), {})
    assert fits(algorithm, model_of(), state.memory)
    if state.memory:
        one = next(iter(state.memory))
        for wrong in (
            {**state.memory, one: state.memory[one].astype(np.float32)},
            {**state.memory, one: state.memory[one].reshape(-1)[:1]},
            {name: part for name, part in state.memory.items() if name != one},
            {**state.memory, "x/w": state.memory[one]},
        ):
            assert not fits(algorithm, model_of(), wrong)
    else:
        assert not fits(algorithm, model_of(), {"v/w": np.zeros((7, 3))})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_words_are_a_step_for_both_or_refused_by_both(data: st.DataObject) -> None:
    agreement, algorithm = run_of(data.draw(st.sampled_from(ALLOWED)))
    size, ceiling = agreement.point.length, data.draw(st.sampled_from([0, 1, 2**8, 2**15, 2**24, 2**32 - 1]))
    source = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    total = source.integers(0, ceiling, size, np.uint32, endpoint=True)
    state = RoundState(0, model_of())
    try:
        agreement.check(total)
        ahead = told(served(agreement, algorithm, state, total))
    except EncodingError:
        with pytest.raises(ImplausibleSum):
            after(agreement, algorithm, state, total)
        return
    assert digest_of(after(agreement, algorithm, state, total)) == digest_of(ahead)


# --------------------------------------------------------------------------------------------------- what bends it
@pytest.mark.parametrize("more", ["strategy=fedavg", "strategy=fedadam", f"strategy=fedadam {SHARED}"])
def test_one_float_of_the_model_or_of_its_memory_is_found(more: str) -> None:
    agreement, algorithm, path, states = path_of(more, first=2)
    for field in ("model", "memory"):
        for name, array in getattr(states[2], field).items():
            for at in (2, 3, 4):
                bent = np.array(array)
                # The least change at the round itself; what is rounded away until a later round changes nothing.
                first = bent.reshape(-1)[:1]
                first[:] = np.nextafter(first, np.inf, dtype=bent.dtype) if at == 2 else first + 1
                changed = {**getattr(states[2], field), name: bent}
                parts = (changed, states[2].memory) if field == "model" else (states[2].model, changed)
                with pytest.raises(ModelChainMismatch, match="not the one that this silo took part with"):
                    follow(agreement, algorithm, Path(2, RoundState(1, *parts), 4, path.sums), known_of(states, at))


def test_the_order_of_arrays_is_part_of_a_state() -> None:
    model = model_of()
    other = dict(reversed(model.items()))
    assert digest_of(RoundState(0, model)) != digest_of(RoundState(0, other))


def test_one_word_of_a_sum_is_found_by_who_knows_a_later_state() -> None:
    agreement, algorithm, path, states = path_of("strategy=fedavgm")
    for number in path.sums:
        sums = {place: total.copy() for place, total in path.sums.items()}
        sums[number][0] += 1
        for at in range(1, 5):
            bent = Path(1, states[1], 4, sums)
            if at > number:
                with pytest.raises(ModelChainMismatch):
                    follow(agreement, algorithm, bent, known_of(states, at))
            else:  # nobody can tell, and all who are told so come to the same other model
                assert follow(agreement, algorithm, bent, known_of(states, at))[1] != digest_of(states[4])


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_sum_that_is_kept_back_is_found_like_another(gone: int) -> None:
    agreement, algorithm, path, states = path_of("strategy=fedavg")
    sums = {number: total for number, total in path.sums.items() if number != gone}
    with pytest.raises(ModelChainMismatch):
        follow(agreement, algorithm, Path(1, states[1], 4, sums), known_of(states, gone + 1))


def test_a_state_that_is_newer_than_the_one_known_is_refused() -> None:
    agreement, algorithm, path, states = path_of("strategy=fedavg", first=3)
    with pytest.raises(ModelChainMismatch, match="round 3, and this silo, which knows that of round 2"):
        follow(agreement, algorithm, path, known_of(states, 2))
    assert follow(agreement, algorithm, path, known_of(states, 3))[1] == digest_of(states[4])
    assert follow(agreement, algorithm, path, None)[1] == digest_of(states[4])


def test_a_round_before_the_one_known_is_over() -> None:
    agreement, algorithm, _, states = path_of("strategy=fedavg")
    with pytest.raises(Replay, match="Round 2 is over"):
        follow(agreement, algorithm, Path(2, states[2], 2, {}), known_of(states, 3))


def test_a_state_told_as_that_of_another_round_is_refused() -> None:
    """Skipped numbers: the right states, one round further than they are."""
    agreement, algorithm, _, states = path_of("strategy=fedavg")
    with pytest.raises(ModelChainMismatch):
        follow(agreement, algorithm, Path(3, states[2], 3, {}), known_of(states, 3))


@pytest.mark.parametrize("more", ["", SHARED, BY_SILO, f"{SHARED} aggregation.rotation=true"])
@pytest.mark.parametrize("known", [True, False])
def test_a_sum_beyond_what_silos_can_give_is_refused_before_it_moves_anything(more: str, known: bool) -> None:
    agreement, algorithm = run_of(more)
    state, total = RoundState(0, model_of()), honest_sum(agreement, 1)
    after(agreement, algorithm, state, total)
    total[0] = 2 ** (agreement.point.bits - 1) - 1
    if more:  # a norm: one coordinate of many reaches far, so all of them
        total[: agreement.layout.size] = total[0]
    with pytest.raises(ImplausibleSum):
        follow(agreement, algorithm, Path(1, state, 2, {1: total}), Known(1, digest_of(state)) if known else None)


def test_a_path_over_a_thousand_million_lost_rounds_is_not_walked_step_by_step() -> None:
    agreement, algorithm, _, states = path_of("strategy=fedavg")
    path = Path(1, states[1], 10**9, {})
    assert follow(agreement, algorithm, path, known_of(states, 1))[1] == digest_of(states[1])


# ------------------------------------------------------------------------------------------------------ the probes
def test_a_silo_s_own_test_of_the_noise_is_that_of_the_server() -> None:
    agreement, _, path, states = path_of(SHARED, last=6)
    path = Path(1, path.state, 6, path.sums, dict.fromkeys(path.sums, 5))
    assert not watched(agreement, path, None).alarm
    whole, memory = ProbeTest(), dict[str, np.ndarray]()
    for number, total in path.sums.items():
        memory = collected(agreement, total, SILOS, memory).kept
        known = Known(number, digest_of(states[number]), whole)
        whole = watched(agreement, Path(number, states[number], number + 1, {number: total}, {number: 5}), known)
        assert [whole.looks, whole.probes, whole.statistic] == memory[MEMORY][:3].tolist()
    assert watched(agreement, path, None) == whole
    assert watched(agreement, path, Known(4, digest_of(states[4]), whole)).looks == 5 + 2  # those before are in it


@pytest.mark.parametrize(("times", "alarm"), [(0.5, "too_little"), (2.0, "too_much")])
def test_noise_that_is_not_as_promised_is_found_by_the_silo_itself(times: float, alarm: str) -> None:
    agreement, _, path, _ = path_of(SHARED, last=3)
    sums = {}
    for number, total in path.sums.items():
        _, probes = agreement.decode_shared(total)
        sums[number] = total.copy()
        sums[number][-len(probes) :] = np.rint(times * probes).astype(np.int64).astype(np.uint32)
    found = watched(agreement, Path(1, path.state, 3, sums, dict.fromkeys(sums, 5)), None)
    assert found.alarm
    assert getattr(found, alarm) == 1


@pytest.mark.parametrize("more", ["", SHARED.replace("epsilon=8", "epsilon=inf")])
def test_without_noise_there_is_nothing_to_test(more: str) -> None:
    agreement, _, path, _ = path_of(more)
    assert watched(agreement, Path(1, path.state, 4, path.sums, dict.fromkeys(path.sums, 5)), None) == ProbeTest()
