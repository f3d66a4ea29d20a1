"""The bound that is ours: a Poisson-sampled discrete Gaussian costs no more than the Gaussian at integer orders.

Checked by summing the Renyi divergence over the integers, in both directions, in one and two dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from quire.privacy.dp.accounting import ORDERS, rdp
from quire.privacy.dp.events import DiscreteGaussian, SampledDiscreteGaussian


def log_pmf(points: np.ndarray, sigma_squared: float) -> np.ndarray:
    """Log-probabilities of the discrete Gaussian on the integer points given, normalised over them."""
    logs = -(points.astype(float) ** 2) / (2 * sigma_squared)
    return np.asarray(logs - logsumexp(logs))


def divergence(log_p: np.ndarray, log_q: np.ndarray, order: float) -> float:
    return float(logsumexp(order * log_p + (1 - order) * log_q)) / (order - 1)


def both_directions(zero: np.ndarray, moved: np.ndarray, rate: float, order: float) -> tuple[float, float]:
    mixed = np.logaddexp(math.log1p(-rate) + zero, math.log(rate) + moved) if rate < 1 else moved
    return divergence(mixed, zero, order), divergence(zero, mixed, order)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.floats(0.001, 0.999))
def test_one_dimension(sigma_squared: int, shift: int, rate: float) -> None:
    assume(shift**2 <= 4 * sigma_squared)
    reach = math.ceil(60 * math.sqrt(sigma_squared)) + 40 * shift
    points = np.arange(-reach, reach + 1)
    zero, moved = log_pmf(points, sigma_squared), log_pmf(points - shift, sigma_squared)
    bound = rdp(SampledDiscreteGaussian(sigma_squared, shift**2, rate, 1))
    for order, most in zip(ORDERS, bound, strict=True):
        if order <= 32:
            there, back = both_directions(zero, moved, rate, order)
            assert there <= most + 1e-9
            assert back <= most + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2), st.integers(1, 2), st.floats(0.01, 0.9))
def test_two_dimensions(sigma_squared: int, right: int, up: int, rate: float) -> None:
    reach = math.ceil(20 * math.sqrt(sigma_squared)) + 40
    points = np.arange(-reach, reach + 1)
    zero_x = log_pmf(points, sigma_squared)
    zero = zero_x[:, None] + zero_x[None, :]
    moved = log_pmf(points - right, sigma_squared)[:, None] + log_pmf(points - up, sigma_squared)[None, :]
    bound = rdp(SampledDiscreteGaussian(sigma_squared, right**2 + up**2, rate, 1))
    for order in (1.5, 2.0, 3.0, 5.0, 8.0):
        most = bound[ORDERS.index(order)]
        there, back = both_directions(zero.ravel(), moved.ravel(), rate, order)
        assert there <= most + 1e-9
        assert back <= most + 1e-9


@pytest.mark.parametrize("sigma_squared", [1, 3, 16, 400])
def test_without_sampling(sigma_squared: int) -> None:
    points = np.arange(-4000, 4001)
    zero, moved = log_pmf(points, sigma_squared), log_pmf(points - 1, sigma_squared)
    bound = rdp(DiscreteGaussian(sigma_squared, 1))
    for order, most in zip(ORDERS, bound, strict=True):
        if order <= 32:
            assert divergence(moved, zero, order) <= most + 1e-9


def test_the_bound_is_nearly_met_so_it_cannot_hide_a_lost_factor() -> None:
    points = np.arange(-3000, 3001)
    zero, moved = log_pmf(points, 256), log_pmf(points - 16, 256)
    bound = rdp(SampledDiscreteGaussian(256, 256, 0.05, 1))
    for order in (2.0, 8.0, 16.0):
        there, _ = both_directions(zero, moved, 0.05, order)
        assert there >= (1 - 1e-6) * bound[ORDERS.index(order)]


def test_a_sum_of_shares_is_within_its_divergence() -> None:
    """Kairouz, Liu and Steinke (2021): the log-ratio of a sum of discrete Gaussians to one, in one dimension."""
    points = np.arange(-60, 61)
    share = np.exp(log_pmf(points, 1.0))
    total = np.convolve(share, share)
    wide = np.arange(-120, 121)
    one = np.exp(log_pmf(wide, 2.0))
    middle = np.abs(wide) <= 12
    tau = 10 * math.exp(-2 * math.pi**2 * 1.0 * 1 / 2)
    assert np.max(np.abs(np.log(total[middle] / one[middle]))) <= tau
