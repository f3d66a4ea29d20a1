"""What a silo keeps of secure aggregation, and for how long: vectors and keys of runs that are over do not stay."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from quire.clients.contract import CLAMPED, TRAIN_LOSS
from quire.clients.identity import load_identity, new_identity
from quire.clients.secure.agreement import agreement_of, run_name
from quire.clients.secure.memory import KEPT_DAYS, InContext, InStore, Memory, Vector
from quire.clients.secure.terms import terms_of
from quire.clients.store import Store
from quire.conf.compose import compose
from quire.privacy.csprng import Csprng
from quire.privacy.secagg.state import ClientState, Counter, Stage

DAY = date(2026, 3, 1)
ROSTER, TERMS = bytes(31) + b"\x01", bytes(31) + b"\x02"


@pytest.fixture
def store(tmp_path: Path):
    new_identity(tmp_path / "silo.key", name="hospital-1")
    with Store.open(tmp_path / "store", load_identity(tmp_path / "silo.key")) as opened:
        yield opened


def used(store: Store, run: int, day: date, number: int = 1) -> InStore:
    """Let a run get as far as a round that was opened, and a vector that is ready for the next."""
    memory = InStore(store, run, day)
    for stage, opened in ((Stage.ADVERTISED, 0), (Stage.UNMASKED, number)):
        counter = Counter(bytes(16), 1, int(stage > 1), stage, run_name(run), opened, ROSTER, TERMS)
        memory.save(ClientState(counter.encode(), keys={2: (bytes(32),)}))
    memory.keep(Vector(number + 1, bytes(32), b"", bytes(8)))
    return memory


def secrets(store: Store, run: int) -> list[str]:
    return [name for name in store.secrets.names() if name.startswith(f"secure/run-{run}/")]


def test_secrets_of_a_run_that_was_not_heard_of_for_days_are_wiped_when_another_begins(store: Store) -> None:
    used(store, 7, DAY)
    for days, left in ((0, 3), (KEPT_DAYS - 1, 3), (KEPT_DAYS, 0)):
        InStore(store, 8, DAY + timedelta(days=days)).tidy(1)
        assert len(secrets(store, 7)) == left
    back = InStore(store, 7, DAY + timedelta(days=KEPT_DAYS))
    after = back.load().at
    assert (after.opened, after.stage, after.roster, after.terms) == (1, Stage.IDLE, ROSTER, TERMS)
    assert after.serial == 1  # and counts on from there
    assert back.vector() is None


def test_two_runs_may_go_on_side_by_side(store: Store) -> None:
    used(store, 7, DAY)
    used(store, 77, DAY)
    for days in range(0, 3 * KEPT_DAYS, KEPT_DAYS - 1):
        for run in (7, 77):
            memory = InStore(store, run, DAY + timedelta(days=days))
            at = memory.load().at
            memory.tidy(2)
            memory.save(ClientState(Counter(at.sid, at.serial + 1, 0, Stage.READY, at.run, 1, ROSTER, TERMS).encode()))
    for run in (7, 77):
        memory = InStore(store, run, DAY)
        assert memory.load().at.stage == Stage.READY
        assert memory.vector() is not None


def test_what_is_of_an_unknown_age_counts_from_now_on(store: Store) -> None:
    used(store, 7, DAY)
    store.state.delete("secure/run-7/used")
    InStore(store, 8, DAY + timedelta(days=100)).tidy(1)
    assert len(secrets(store, 7)) == 3
    InStore(store, 8, DAY + timedelta(days=100 + KEPT_DAYS)).tidy(1)
    assert secrets(store, 7) == []


def test_a_run_that_has_a_number_like_another_is_not_taken_for_it(store: Store) -> None:
    used(store, 7, DAY)
    late = DAY + timedelta(days=KEPT_DAYS)
    used(store, 77, late)
    InStore(store, 777, late).tidy(1)
    assert secrets(store, 7) == []
    assert len(secrets(store, 77)) == 3


@pytest.mark.parametrize("kind", ["store", "context"])
def test_a_vector_of_an_earlier_round_goes_and_one_that_is_tried_again_stays(kind: str, store: Store) -> None:
    memory: Memory = InStore(store, 7, DAY) if kind == "store" else InContext(RecordDict())
    for ready, first, left in ((3, 4, False), (3, 3, True), (3, 2, True)):
        memory.keep(Vector(ready, bytes(32), b"", bytes(8)))
        memory.tidy(first)
        assert (memory.vector() is not None) == left


# ---------------------------------------------------------------------------------------- what was cut, as a metric
def summed(overrides: str, *updates: np.ndarray) -> dict[str, float]:
    settings = compose(f"task=breast_cancer aggregation=secure partition.silos=3 {overrides}")
    model = {"w": np.zeros(updates[0].shape, np.float32)}
    agreement = agreement_of(terms_of(settings, settings.aggregation, 3), model)  # type: ignore[arg-type]
    total = np.zeros(agreement.point.length, np.uint32)
    for seed, update in enumerate(updates):
        source = Csprng(seed.to_bytes(32, "big"))
        total += agreement.encode({"w": update.astype(np.float32)}, 10 + seed, {TRAIN_LOSS: 0.5}, source).words
    return agreement.decode(total)[1]


def test_the_share_of_coordinates_that_were_cut_is_a_mean_under_the_mask() -> None:
    whole, cut = np.zeros(1000), np.where(np.arange(1000) < 250, -7.0, 0.1)
    told = summed("aggregation.bound=1", whole, cut, whole)
    assert told[CLAMPED] == pytest.approx(0.25 * 11 / (10 + 11 + 12), abs=1e-9)
    assert told[TRAIN_LOSS] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("more", ["aggregation.bits=16", "aggregation.bits=32", "aggregation.max_rows=1000000"])
def test_nothing_that_was_cut_is_nothing(more: str) -> None:
    assert summed(f"aggregation.bound=1 {more}", np.ones(10), -np.ones(10), np.zeros(10))[CLAMPED] == 0.0


def test_one_coordinate_of_many_is_told() -> None:
    one = np.zeros(100_000)
    one[5] = 2.0
    assert summed("aggregation.bound=1", one, np.zeros(100_000))[CLAMPED] == pytest.approx(1e-5 * 10 / 21, rel=1e-4)


def test_under_privacy_nothing_is_told_of_it() -> None:
    settings = compose("task=breast_cancer aggregation=secure privacy=record privacy.epsilon=4 training.batch_size=8")
    assert terms_of(settings, settings.aggregation, 5).metrics == ()  # type: ignore[arg-type]


def test_nothing_is_what_zeros_at_no_weight_are_encoded_as() -> None:
    settings = compose("task=breast_cancer aggregation=secure")
    agreement = agreement_of(terms_of(settings, settings.aggregation, 5), {"w": np.zeros(9, np.float32)})  # type: ignore[arg-type]
    encoded = agreement.encode({"w": np.zeros(9, np.float32)}, 0, {TRAIN_LOSS: 3.0}, Csprng(bytes(32)))
    np.testing.assert_array_equal(encoded.words, agreement.nothing())
