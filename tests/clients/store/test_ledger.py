"""Charging: what fits, what does not, for whom, over which days; and what is read back."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import HEART, TODAY, Home, gaussian, go_on, non_private

from quire.clients.store import (
    Budget,
    BudgetExceeded,
    Charge,
    Ledger,
    Position,
    RolledBack,
    Spending,
    Store,
    StoreError,
    Unit,
)
from quire.clients.store.ledger import CHECKPOINT, Receipt
from quire.privacy.dp.events import Gaussian, SampledGaussian

HASHES = {"code": "c0de", "settings": "5e77"}
NOON = datetime(2100, 5, 4, 12, tzinfo=UTC)  # later than any opening, which is dated by the real clock


def at(store: Store, number: int, session: str = "run-1") -> Position:
    position = Position(session, number)
    store.advance(position, TODAY)
    return position


def test_a_new_ledger_has_spent_nothing(home: Home) -> None:
    with home.open() as store:
        ledger = store.ledger(HEART)
        assert ledger.spent(Unit.RECORD) == ledger.spent(Unit.SILO) == Spending.zero()
        assert ledger.receipt.count == 1
        assert store.ledger(HEART) is ledger


@pytest.mark.parametrize("name", ["", "Heart", "a b", "../x", "a/b", ".a", "a:b", "x" * 65, "ä"])
def test_a_population_has_a_name_of_its_own(home: Home, name: str) -> None:
    with home.open() as store, pytest.raises(StoreError, match="cannot name a population"):
        store.ledger(name)


def test_charges_add_up_over_runs_and_restarts(home: Home) -> None:
    for session in ("run-1", "run-2"):
        for _ in range(2):
            home.run(3, session)
    with home.open() as store:
        spent = store.ledger(HEART).spent(Unit.RECORD)
        assert spent.epsilon(1e-5) == pytest.approx(Spending.of(Gaussian(20.0, 12)).epsilon(1e-5), rel=1e-12)
        assert store.ledger(HEART).spent(Unit.SILO) == Spending.zero()
        assert store.ledger("another").spent(Unit.RECORD) == Spending.zero()


def test_the_file_says_all_that_was_charged(home: Home) -> None:
    event = SampledGaussian(1.1, 0.01, 7)
    with home.open() as store:
        ledger = store.ledger(HEART)
        receipt = ledger.charge([Charge(Unit.RECORD, event)], Budget(3.0, 1e-6), at(store, 1), now=NOON, **HASHES)
    opening, entry = map(json.loads, home.ledger_file.read_text().splitlines())
    assert opening["kind"] == "opening"
    assert entry["seq"] == opening["seq"] + 1 == receipt.count
    assert (entry["population"], entry["session"], entry["round"], entry["attempt"]) == (HEART, "run-1", 1, 0)
    assert (entry["code"], entry["settings"], entry["time"]) == ("c0de", "5e77", NOON.isoformat())
    [charge] = entry["charges"]
    assert charge["event"] == {"kind": "sampled_gaussian", "noise_multiplier": 1.1, "sampling_rate": 0.01, "steps": 7}
    assert Spending.from_json(charge["spending"]) == Spending.of(event)  # every float to its last bit
    assert (charge["unit"], charge["delta"]) == ("record", 1e-6)
    assert charge["epsilon_after"] == Spending.of(event).epsilon(1e-6)


def test_the_budget_ends_exactly_before_the_round_that_exceeds_it(home: Home) -> None:
    budget = Budget(Spending.of(Gaussian(2.0, 5)).epsilon(1e-5) * (1 + 1e-12), 1e-5)
    with home.open() as store:
        ledger = store.ledger(HEART)
        for number in range(1, 6):
            ledger.charge([gaussian(2.0)], budget, at(store, number), **HASHES)
        before, size = ledger.receipt, home.ledger_file.stat().st_size
        with pytest.raises(BudgetExceeded) as error:
            ledger.charge([gaussian(2.0)], budget, at(store, 6), **HASHES)
        words = str(error.value)
        assert (
            f"The budget of the population {HEART} is epsilon {budget.epsilon:g} at delta 1e-05 for one record" in words
        )
        assert "5.95 was spent" in words or f"{budget.epsilon:.4g} was spent" in words
        assert words.endswith("it is refused.")
        assert ledger.receipt == before
        assert home.ledger_file.stat().st_size == size
        ledger.charge([gaussian(2000.0, Unit.SILO)], budget, at(store, 7), **HASHES)


def test_without_privacy_everything_is_spent(home: Home) -> None:
    with home.open() as store:
        ledger = store.ledger(HEART)
        with pytest.raises(BudgetExceeded, match="would take it without limit"):
            ledger.charge([non_private()], Budget(100.0, 1e-5), at(store, 1), **HASHES)
        ledger.charge([non_private()], None, at(store, 2), **HASHES)
    with home.open() as store:
        ledger = store.ledger(HEART)
        assert math.isinf(ledger.spent(Unit.RECORD).epsilon(0.5))
        with pytest.raises(BudgetExceeded, match="an unlimited epsilon was spent"):
            ledger.charge([gaussian(1e6)], Budget(100.0, 1e-5), at(store, 3), **HASHES)


def test_two_charges_are_booked_together_or_not_at_all(home: Home) -> None:
    budget = Budget(1.0, 1e-5)
    with home.open() as store:
        ledger = store.ledger(HEART)
        with pytest.raises(BudgetExceeded, match="for one record"):
            ledger.charge([gaussian(50.0, Unit.SILO), gaussian(0.5)], budget, at(store, 1), **HASHES)
        assert ledger.spent(Unit.SILO) == Spending.zero()
        ledger.charge([gaussian(50.0, Unit.SILO), gaussian(25.0)], budget, at(store, 2), **HASHES)
    with home.open() as store:
        ledger = store.ledger(HEART)
        assert ledger.spent(Unit.SILO) == Spending.of(Gaussian(50.0))
        assert ledger.spent(Unit.RECORD) == Spending.of(Gaussian(25.0))


def test_two_charges_to_one_unit_are_held_against_the_budget_together(home: Home) -> None:
    one = Spending.of(Gaussian(5.0)).epsilon(1e-5)
    with home.open() as store, pytest.raises(BudgetExceeded):
        store.ledger(HEART).charge([gaussian(5.0), gaussian(5.0)], Budget(one * 1.01, 1e-5), at(store, 1), **HASHES)


def test_what_is_not_counted_is_not_charged(home: Home) -> None:
    with home.open() as store:
        ledger = store.ledger(HEART)
        for position in (Position("run-1", 1), Position("run-1", 2, 0, 1)):
            with pytest.raises(StoreError, match="before it was counted; nothing was charged"):
                ledger.charge([gaussian()], None, position, **HASHES)
            store.advance(Position("run-1", position.round), TODAY)
        with pytest.raises(StoreError, match="nothing to charge"):
            ledger.charge([], None, Position("run-1", 2), **HASHES)


def test_what_was_spent_before_the_period_no_longer_counts(home: Home) -> None:
    budget = Budget(Spending.of(Gaussian(2.0)).epsilon(1e-5) * 1.2, 1e-5)
    later = NOON + timedelta(days=365)
    since = later.date() - timedelta(days=364)
    with home.open() as store:
        ledger = store.ledger(HEART)
        ledger.charge([gaussian(2.0)], budget, at(store, 1), now=NOON, **HASHES)
        with pytest.raises(BudgetExceeded, match="was spent since 2100-05-04"):
            ledger.charge([gaussian(2.0)], budget, at(store, 2), since=NOON.date(), now=later, **HASHES)
        ledger.charge([gaussian(2.0)], budget, at(store, 3), since=since, now=later, **HASHES)
        assert ledger.spent(Unit.RECORD, since) == Spending.of(Gaussian(2.0))
    with home.open() as store:
        assert store.ledger(HEART).spent(Unit.RECORD, since) == Spending.of(Gaussian(2.0))
        assert store.ledger(HEART).spent(Unit.RECORD).rdp[0] == 2 * Spending.of(Gaussian(2.0)).rdp[0]


def test_a_clock_that_goes_back_dates_nothing_back(home: Home) -> None:
    with home.open() as store:
        ledger = store.ledger(HEART)
        ledger.charge([gaussian()], None, at(store, 1), now=NOON, **HASHES)
        ledger.charge([gaussian()], None, at(store, 2), now=NOON - timedelta(days=400), **HASHES)
        assert ledger.spent(Unit.RECORD, NOON.date()).rdp[0] == 2 * Spending.of(Gaussian(20.0)).rdp[0]
    home.run(1)


DAYS = [date(2100, 1, 1), date(2100, 1, 2), date(2100, 2, 1)]
CHARGES = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from(list(Unit)), st.floats(0.5, 50))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(CHARGES, max_size=12), st.randoms(use_true_random=False))
def test_sums_are_those_of_the_charges_however_they_are_read(
    home: Home, charges: list[tuple[str, int, Unit, float]], random: object
) -> None:
    """Running totals, totals from a checkpoint and totals from the lines all are the sums of what was charged."""
    import shutil

    from quire.clients.store import ledger as module

    shutil.rmtree(home.store, ignore_errors=True)
    booked: list[tuple[date, Unit, Spending]] = []
    before = module.CHECKPOINT
    module.CHECKPOINT = random.choice([1, 3, 100])  # type: ignore[attr-defined]
    store = home.open()
    try:
        newest = datetime.min.replace(tzinfo=UTC)
        for number, (session, day, unit, noise) in enumerate(charges):
            ledger = store.ledger(HEART)
            now = datetime.combine(DAYS[day], datetime.min.time(), UTC)
            newest = max(newest, now)
            ledger.charge([Charge(unit, Gaussian(noise))], None, at(store, number, session), now=now, **HASHES)
            booked.append((newest.date(), unit, Spending.of(Gaussian(noise))))
            if random.random() < 0.3:  # type: ignore[attr-defined]
                store.close()
                store = home.open()
        for since in (None, *DAYS, date(2200, 1, 1)):
            for unit in Unit:
                expected = Spending.sum(
                    cost for day, known, cost in booked if known is unit and (since is None or day >= since)
                )
                found = store.ledger(HEART).spent(unit, since)
                assert found.rdp == pytest.approx(expected.rdp, rel=1e-12)
    finally:
        module.CHECKPOINT = before
        store.close()


def test_a_checkpoint_is_trusted_only_with_its_bytes_and_its_signature(home: Home) -> None:
    home.run(CHECKPOINT + 5)
    file = home.store / "ledger" / f"{HEART}:checkpoint.json"
    good = file.read_bytes()
    with home.open() as store:
        truth = store.ledger(HEART).spent(Unit.RECORD)
    for bad in (
        b"",
        good[:-1],
        good.replace(b'"rows":[', b'"rows":[],"x":['),
        good.replace(b'"count":32', b'"count":33'),
    ):
        assert bad != good
        file.write_bytes(bad)
        with home.open() as store:
            assert store.ledger(HEART).spent(Unit.RECORD).rdp == pytest.approx(truth.rdp, rel=1e-12)
    assert truth.rdp == pytest.approx(Spending.of(Gaussian(20.0, CHECKPOINT + 5)).rdp, rel=1e-12)


def test_a_receipt_from_elsewhere_tells_an_old_copy(home: Home) -> None:
    first = home.run(1)
    second = home.run(1)
    with home.open() as store:
        ledger: Ledger = store.ledger(HEART)
        assert ledger.receipt == second
        ledger.require(first, "the log")
        ledger.require(second, "the log")
        with pytest.raises(RolledBack, match=r"holds 3 entries, but the log has seen 4: an old copy"):
            ledger.require(Receipt(4, "0" * 64), "the log")
        with pytest.raises(RolledBack, match="holds another entry 2 than the log has seen"):
            ledger.require(Receipt(2, second.head), "the log")
        assert go_on(store, ledger, 1).count == 4


def test_an_event_that_cannot_be_accounted_is_refused(home: Home) -> None:
    class Strange:
        pass

    with home.open() as store, pytest.raises(StoreError, match="cannot be charged to heart-2020"):
        store.ledger(HEART).charge([Charge(Unit.RECORD, Strange())], None, at(store, 1), **HASHES)  # type: ignore[arg-type]
