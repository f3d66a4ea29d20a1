"""Geometric noise on counts: drawn as it is stated, and charged at no less than it costs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from quire.privacy.csprng import Csprng
from quire.privacy.dp.accounting import ORDERS, epsilon, rdp, tight_epsilon
from quire.privacy.dp.counting import error_bound, noisy_count
from quire.privacy.dp.events import EventError, Geometric, NonPrivate, from_json, to_json
from quire.privacy.dp.rejection import discrete_laplace
from quire.privacy.dp.spending import Spending
from quire.privacy.receipts import merged, repeated


@pytest.mark.parametrize("eps", [Fraction(1, 2), Fraction(3, 2), Fraction(3)])
def test_the_noise_has_the_stated_distribution(eps: Fraction) -> None:
    source, draws = Csprng(bytes(32)), 8_000
    drawn = np.array([discrete_laplace(eps.denominator, source, eps.numerator) for _ in range(draws)])
    ratio = math.exp(-float(eps))
    inner = np.arange(-6, 7)
    expected = (1 - ratio) / (1 + ratio) * ratio ** np.abs(inner)
    found = np.array([(drawn == k).sum() for k in inner])
    keep = expected * draws > 5
    rest = draws - found[keep].sum()
    chi = stats.chisquare([*found[keep], rest], [*(expected[keep] * draws), draws * (1 - expected[keep].sum())])
    assert chi.pvalue > 1e-4


@settings(max_examples=25)
@given(st.fractions(Fraction(1, 1000), Fraction(8)))
def test_the_cost_is_the_divergence_summed_over_the_integers(eps: Fraction) -> None:
    """Two neighbours' laws, added up term by term; the bound is never below, and hardly above."""
    value, orders = float(eps), np.array([1.05, 1.5, 2.0, 8.0, 64.0])
    span = np.arange(-int(60 / value) - 2, int(60 / value) + 3)
    log_p = np.log(np.tanh(value / 2)) - value * np.abs(span)
    log_q = np.log(np.tanh(value / 2)) - value * np.abs(span - 1)
    vector = dict(zip(ORDERS, rdp(Geometric(eps)), strict=True))
    for order in orders:
        summed = np.logaddexp.reduce(order * log_p + (1 - order) * log_q) / (order - 1)
        assert summed <= vector[order] + 1e-9
        assert vector[order] <= summed + 1e-9 + 1e-6 * value


@given(st.fractions(Fraction(1, 1000), Fraction(10)), st.integers(1, 50))
def test_it_costs_no_more_than_its_epsilon_at_any_order_and_adds_up(eps: Fraction, count: int) -> None:
    one, many = rdp(Geometric(eps)), rdp(Geometric(eps, count))
    assert np.all(one > 0)
    assert np.all(one <= float(eps))
    assert np.all(np.diff(one) >= -1e-12)
    assert np.allclose(many, count * one)


def test_the_epsilon_of_record_is_close_to_the_pure_one() -> None:
    for eps in (Fraction(1, 10), Fraction(1, 2), Fraction(2)):
        found = epsilon(Spending.of(Geometric(eps)), 1e-5)
        assert 0.9 * eps < found < eps + Fraction(1, 100)


def test_what_cannot_be_accounted_is_refused_and_nothing_is_dropped() -> None:
    with pytest.raises(EventError, match="no formula"):
        tight_epsilon([Geometric(1)], 1e-5)
    with pytest.raises(EventError, match="exact"):
        Geometric(0.5)  # type: ignore[arg-type]
    with pytest.raises(EventError, match="epsilon"):
        from_json({**to_json(Geometric(Fraction(1, 2))), "epsilon": "0.5"})
    assert merged([Geometric(1), NonPrivate(), Geometric(1, 2)]) == [Geometric(1, 3), NonPrivate()]
    assert repeated(Geometric(Fraction(1, 3), 2), 4) == Geometric(Fraction(1, 3), 8)


@pytest.mark.parametrize("bad", [Fraction(1, 10**10), 1001, 10**390, 0, -1])
def test_an_epsilon_beyond_reason_is_refused(bad: Fraction | int) -> None:
    with pytest.raises(EventError, match="epsilon"):
        Geometric(bad)


def test_the_noise_multiplier_is_the_deviation() -> None:
    drawn = [discrete_laplace(2, source) for source in [Csprng(bytes(32))] for _ in range(8_000)]
    assert np.std(drawn) == pytest.approx(Geometric(Fraction(1, 2)).noise_multiplier, rel=0.05)


def test_a_noisy_count_is_no_negative_number_and_within_its_bound() -> None:
    source = Csprng(bytes(31) + b"1")
    eps = Fraction(1, 10)
    assert min(noisy_count(0, eps, source) for _ in range(200)) == 0
    off = [abs(noisy_count(1000, eps, source) - 1000) for _ in range(2000)]
    beyond = sum(error > error_bound(eps) for error in off)
    assert error_bound(eps) == 30
    assert 50 < beyond < 150
