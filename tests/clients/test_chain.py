"""The model chain, as arithmetic: silo and server come to the same bits, and a path that is bent is refused."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.arrays import encode
from quire.clients.contract import Code
from quire.clients.secure.agreement import Agreement, agreement_of, terms_of
from quire.clients.secure.chain import MOST_SUMS, Known, Path, after, digest_of, fits, follow, watched
from quire.clients.secure.link import read_path
from quire.conf.compose import compose
from quire.conf.schema import Settings
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.shares import add_share, words
from quire.privacy.dp.wire import pack
from quire.privacy.secagg.errors import ImplausibleSum, ModelChainMismatch, Replay
from quire.privacy.secagg.masks import Words
from quire.simulation.grid import server_identity
from quire.strategies.chosen import algorithm_of
from quire.strategies.distributed import MEMORY, collected
from quire.strategies.rounds import Algorithm, RoundState

SILOS = ["a", "b", "c", "d", "e"]
STEPPING = ["fedavg", "fedavg strategy.server_lr=0.3", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
SHARED = (
    "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 privacy.records=500 privacy.largest=100 "
    "training.lr=0.1"
)
BY_SILO = "privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5"
KINDS = ["", "aggregation.bits=16 aggregation.rotation=true", SHARED, f"{SHARED} aggregation.rotation=true", BY_SILO]
RUNS = [f"strategy={strategy} {kind}" for strategy in STEPPING for kind in KINDS] + ["strategy=fednova"]


@cache
def settings_of(more: str) -> Settings | None:
    try:
        return compose(f"task=breast_cancer aggregation=secure {more}")
    except SettingsError:  # such as FedProx under the record unit
        return None


ALLOWED = [more for more in RUNS if settings_of(more) is not None]


def model_of(seed: int = 0, kind: type[np.floating] = np.float32) -> dict[str, np.ndarray]:
    source = np.random.default_rng(seed)
    return {"w": source.normal(size=(7, 3)).astype(kind), "a": source.normal(size=5).astype(kind)}


@cache
def run_of(more: str) -> tuple[Agreement, Algorithm]:
    chosen = settings_of(more)
    assert chosen is not None
    agreement = agreement_of(terms_of(chosen, chosen.aggregation, 5), model_of())  # type: ignore[arg-type]
    return agreement, algorithm_of(chosen.strategy)


def honest_sum(agreement: Agreement, seed: int) -> Words:
    """A sum as five silos come to it, with their noise."""
    source = np.random.default_rng(seed)
    total = np.zeros(agreement.point.length, np.uint32)
    for place in range(5):
        coin = Csprng(np.random.default_rng([seed, place]).bytes(32))
        vector = source.normal(size=agreement.layout.size) * source.choice([0.0, 0.01, 0.3, 10.0])
        if isinstance(agreement.point, Encoding):
            if agreement.terms.step < 0:  # the record unit: a sum of at most so many clipped gradients
                vector *= agreement.point.clip * 20 / np.linalg.norm(vector) if vector.any() else 0.0
            total += add_share(agreement.point, words(agreement.point, vector, coin)[0], coin)
            continue
        update = {"w": vector[:21].reshape(7, 3).astype(np.float32), "a": vector[21:].astype(np.float32)}
        update |= {name: np.array(3.0) for name, _ in agreement.terms.metrics if name == contract.STEPS}
        told = {contract.TRAIN_LOSS: 0.5}
        total += agreement.encode(update, int(source.integers(1, 91)), told, coin).words
    return total


def served(agreement: Agreement, algorithm: Algorithm, state: RoundState, total: Words, silos: int = 5) -> RoundState:
    """The next state, by what the server does."""
    found = collected(agreement, total, SILOS[:silos], state.memory)
    moved = algorithm.step(state, found.mean, silos / 5)
    return RoundState(moved.round, moved.model, {**moved.memory, **found.kept})


def told(state: RoundState) -> RoundState:
    return RoundState(state.round, state.model, {name: part for name, part in state.memory.items() if name != MEMORY})


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
def path_of(more: str, first: int = 1, last: int = 4) -> tuple[Agreement, Algorithm, Path, dict[int, RoundState]]:
    agreement, algorithm = run_of(more)
    states, sums = {1: RoundState(0, model_of())}, {}
    for number in range(1, last):
        sums[number] = honest_sum(agreement, number)
        states[number + 1] = told(served(agreement, algorithm, states[number], sums[number]))
    since = {number: total for number, total in sums.items() if number >= first}
    return agreement, algorithm, Path(first, states[first], last, since), states


def known_of(states: dict[int, RoundState], at: int) -> Known:
    return Known(at, digest_of(states[at]))


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


# ------------------------------------------------------------------------------------------------------ as bytes
@given(st.integers(1, 2**32 - 1), st.binary(min_size=32, max_size=32), st.lists(st.floats(0, 1e5), max_size=4))
def test_what_is_known_is_read_as_it_was_written(number: int, digest: bytes, statistics: list[float]) -> None:
    test = ProbeTest()
    for statistic in statistics:
        test = test.add(1024, statistic)
    known = Known(number, digest, test)
    assert Known.decode(known.encode()) == known


@given(st.binary(max_size=80))
def test_any_other_bytes_are_a_record_that_is_lost(data: bytes) -> None:
    with pytest.raises(ModelChainMismatch, match="takes part again in another run"):
        Known.decode(data)


def message_of(path: Path, agreement: Agreement, **other: ArrayRecord | ConfigRecord | MetricRecord | None) -> Message:
    sums = {str(at): np.frombuffer(pack(total, agreement.point.bits), np.uint8) for at, total in path.sums.items()}
    records: dict[str, ArrayRecord | ConfigRecord | MetricRecord | None] = {
        contract.ARRAYS: encode(path.state.model),
        contract.CONFIG: ConfigRecord({contract.ROUND: path.last}),
        contract.CHAIN: ConfigRecord({contract.BASE: path.first, contract.SURVIVORS: [5] * len(sums)}),
        contract.CHAIN_MEMORY: encode(path.state.memory),
        contract.SUMS: encode(sums),
    }
    records |= {name.replace("_", "-"): record for name, record in other.items()}
    with server_identity(1):
        return Message(RecordDict({name: record for name, record in records.items() if record is not None}), 1, "train")


def test_a_path_is_read_as_the_server_writes_it() -> None:
    agreement, algorithm, path, states = path_of("strategy=fedadam", first=2)
    found = read_path(message_of(path, agreement), agreement, algorithm, path.state.model)
    assert (found.first, found.last, set(found.sums)) == (2, 4, {2, 3})
    assert follow(agreement, algorithm, found, known_of(states, 3))[1] == digest_of(states[4])


def _sums(**arrays: np.ndarray) -> dict[str, ArrayRecord]:
    return {"chain_sums": encode({name.removeprefix("_"): array for name, array in arrays.items()})}


GOOD = np.zeros(27 * 3, np.uint8)
BAD = {
    "no chain": {"chain": None},
    "a chain of another kind": {"chain": encode({contract.BASE: np.zeros(1)})},
    "no base": {"chain": ConfigRecord({})},
    "a base that is no number": {"chain": ConfigRecord({contract.BASE: "2"})},
    "a base that is true": {"chain": ConfigRecord({contract.BASE: True})},
    "a base of zero": {"chain": ConfigRecord({contract.BASE: 0})},
    "a base below zero": {"chain": ConfigRecord({contract.BASE: -3})},
    "a base after the round": {"chain": ConfigRecord({contract.BASE: 5})},
    "a huge base": {"chain": ConfigRecord({contract.BASE: 2**62})},
    "no survivors": {"chain": ConfigRecord({contract.BASE: 2})},
    "survivors of one sum": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: [5]})},
    "too few survivors": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: [5, 1]})},
    "too many survivors": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: [5, 6]})},
    "survivors that are no numbers": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: ["5", "5"]})},
    "a memory of another kind": {"chain_memory": ConfigRecord({"m": 1})},
    "half a memory": {"chain_memory": encode({"m/w": np.zeros((7, 3))})},
    "another algorithm's memory": {"chain_memory": encode({"v/w": np.zeros((7, 3)), "v/a": np.zeros(5)})},
    "sums of another kind": {"chain_sums": MetricRecord({"2": 1.0})},
    "a sum of floats": _sums(_2=np.zeros(27)),
    "a sum of words": _sums(_2=np.zeros(27, np.uint32)),
    "a sum of two dimensions": _sums(_2=GOOD.reshape(27, 3)),
    "a short sum": _sums(_2=GOOD[:-1]),
    "a long sum": _sums(_2=np.zeros(28 * 3, np.uint8)),
    "an empty sum": _sums(_2=GOOD[:0]),
    "a sum of the round itself": _sums(_4=GOOD),
    "a sum of a round before": _sums(_1=GOOD),
    "another spelling": _sums(_02=GOOD),
    "a sum of no number": _sums(two=GOOD),
    "too many sums": {"chain_sums": encode({str(at): GOOD for at in range(2, MOST_SUMS + 3)})},
    "not an array": {"chain_sums": encode({"2": GOOD})},
}


@pytest.mark.parametrize("what", BAD)
def test_a_chain_that_is_malformed_is_a_bad_request(what: str) -> None:
    agreement, algorithm, path, _ = path_of("strategy=fedadam", first=2)
    message = message_of(path, agreement, **BAD[what])
    if what == "not an array":
        message.content[contract.SUMS]["2"].data = b"\x93NUMPY nonsense"  # type: ignore[union-attr, index]
    with pytest.raises(Refusal) as caught:
        read_path(message, agreement, algorithm, path.state.model)
    assert caught.value.code is Code.BAD_REQUEST


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_a_message_holds_is_read_or_refused(data: st.DataObject) -> None:
    agreement, algorithm, path, states = path_of("strategy=fedadam", first=2, last=3)
    names = st.one_of(
        st.sampled_from(["2", "1", "02", "٢", "2\x00", "-2", "9" * 40, "m/w", "v/w"]), st.text(max_size=6)
    )
    arrays = st.one_of(
        st.binary(max_size=100).map(lambda found: np.frombuffer(found, np.uint8)),
        st.sampled_from([GOOD, np.zeros(()), np.zeros((7, 3)), np.zeros((2, 0), np.int64), np.ones(3, bool)]),
    )
    record = st.dictionaries(names, arrays, max_size=3).map(encode)
    base = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.booleans(), st.floats())
    message = message_of(
        path,
        agreement,
        chain=data.draw(
            st.one_of(
                st.none(),
                st.builds(
                    lambda at, told: ConfigRecord({contract.BASE: at, contract.SURVIVORS: told}),
                    base,
                    st.one_of(st.just([5]), st.lists(st.integers(-9, 9), max_size=3), st.text(max_size=3)),
                ),
            )
        ),
        chain_memory=data.draw(st.one_of(st.none(), record)),
        chain_sums=data.draw(st.one_of(st.none(), record)),
    )
    with contextlib.suppress(Refusal, ModelChainMismatch, ImplausibleSum, Replay):
        found = read_path(message, agreement, algorithm, path.state.model)
        follow(agreement, algorithm, found, known_of(states, 2))
