"""Spendings add, never shrink, and come back from JSON as they were."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.dp import accounting
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import DiscreteGaussian, Gaussian, NonPrivate, SampledGaussian
from quire.privacy.dp.spending import Budget, Spending, SpendingError

WIDTH = len(accounting.ORDERS)
costs = st.one_of(st.floats(0, 1e300), st.just(math.inf))
spendings = st.builds(
    Spending, st.lists(costs, min_size=WIDTH, max_size=WIDTH).map(np.array), st.floats(0.0, 0.999, allow_nan=False)
)
# What mechanisms really spend: the RDP of a few Gaussians.
real = st.builds(
    lambda noise, count, failure: Spending(count * np.array(accounting.ORDERS) / (2 * noise**2), failure),
    st.floats(0.3, 100),
    st.integers(1, 500),
    st.floats(0, 1e-5),
)


@settings(max_examples=40, deadline=None)
@given(spendings)
def test_a_round_trip_through_json_is_exact(spending: Spending) -> None:
    assert Spending.from_json(json.loads(json.dumps(spending.to_json(), allow_nan=False))) == spending


@settings(max_examples=40, deadline=None)
@given(spendings, spendings)
def test_addition_commutes_and_never_falls(one: Spending, other: Spending) -> None:
    total = one + other
    assert total == other + one
    assert hash(total) == hash(other + one)
    assert np.all(total.rdp >= one.rdp)
    assert total.delta >= max(one.delta, other.delta)
    assert one + Spending.zero() == one


@settings(max_examples=40, deadline=None)
@given(real, real, st.sampled_from([1e-4, 1e-5, 1e-7]))
def test_epsilon_is_monotone_and_never_negative(one: Spending, other: Spending, delta: float) -> None:
    assert 0 <= one.epsilon(delta) <= (one + other).epsilon(delta)
    assert one.epsilon(delta) <= one.epsilon(delta / 10)


def test_nothing_costs_nothing() -> None:
    assert Spending.zero().epsilon(1e-5) == 0
    assert Spending.of() == Spending.zero()


def test_infinite_spending_stays_infinite() -> None:
    spent = Spending.of(Gaussian(5.0), NonPrivate())
    assert spent.epsilon(0.5) == math.inf
    assert (spent + Spending.zero()).epsilon(1e-5) == math.inf
    assert not spent.fits(Budget(1e9, 1e-5))
    assert spent.fits(Budget(math.inf, 1e-5))


def test_additive_terms_are_taken_from_delta_first() -> None:
    event = DiscreteGaussian(100, 1, 10, failure=4e-6)
    spent = Spending.of(event, event)
    plain = Spending(spent.rdp)
    assert spent.delta == 8e-6
    assert spent.epsilon(1e-5) == plain.epsilon(1e-5 - 8e-6) > plain.epsilon(1e-5)
    assert spent.epsilon(8e-6) == math.inf
    assert spent.epsilon(1e-6) == math.inf


def test_a_budget_is_held_to_the_last_step() -> None:
    one = Spending.of(SampledGaussian(1.0, 0.01, 1))
    budget = Budget(Spending(1000 * one.rdp).epsilon(1e-5), 1e-5)
    assert budget.fits(Spending(1000 * one.rdp))
    assert not budget.fits(Spending(1001 * one.rdp))


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0), (1.0, math.nan)]
)
def test_a_budget_that_is_none_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(PrivacyError):
        Budget(epsilon, delta)


def test_a_spending_cannot_be_changed_from_outside() -> None:
    vector = np.ones(WIDTH)
    spending = Spending(vector)
    vector[0] = 0.0
    assert spending.rdp[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        spending.rdp[0] = 0.0


@pytest.mark.parametrize("bad", [-1e-300, math.nan])
def test_a_negative_spending_cannot_be_made(bad: float) -> None:
    vector = np.ones(WIDTH)
    vector[3] = bad
    with pytest.raises(SpendingError, match="never negative"):
        Spending(vector)
    with pytest.raises(SpendingError, match="never negative"):
        Spending(np.ones(WIDTH), bad)
    with pytest.raises(SpendingError, match="orders"):
        Spending(np.ones(WIDTH - 1))


@pytest.mark.parametrize(
    "change",
    [
        {"grid": "quire-orders-2"},
        {"rdp": "inf"},
        {"rdp": [0.0]},
        {"rdp": [True] * WIDTH},
        {"rdp": ["nan"] * WIDTH},
        {"rdp": [math.nan] * WIDTH},
        {"rdp": [-1.0] * WIDTH},
        {"delta": None},
        {"delta": math.inf},
        {"extra": 1},
    ],
)
def test_a_spending_is_read_strictly(change: dict[str, object]) -> None:
    with pytest.raises(SpendingError):
        Spending.from_json({**Spending.zero().to_json(), **change})
