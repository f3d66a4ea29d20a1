"""Clipping, rounding, and the sensitivity that the integers have: for the worst inputs as for the usual ones."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from noise_support import source

from quire.privacy.dp.contract import Unit
from quire.privacy.dp.rounding import (
    MAX_REDRAWS,
    MAX_SUMMANDS,
    EncodingError,
    clip_to,
    clipped_sum,
    delta2_squared,
    round_within,
    scaled_clip,
    share_variance,
    stochastic_round,
)

anything = hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(width=64))
finite = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e12, 1e12))


def norm(vector):
    return math.sqrt(math.fsum(float(x) ** 2 for x in vector))


@given(anything, st.sampled_from([1e-3, 1.0, 7.5, 1e6]))
def test_nothing_is_longer_than_the_clip_afterwards(vector, clip):
    clipped, was_finite = clip_to(vector, clip)
    assert was_finite == bool(np.isfinite(vector).all())
    assert np.isfinite(clipped).all()
    assert norm(clipped) <= clip * (1 + 1e-14)
    if not was_finite:
        assert not clipped.any()


@given(anything)
def test_what_is_short_enough_is_left_as_it_is(vector):
    short = np.nan_to_num(vector, nan=0.0, posinf=0.5, neginf=0.0)
    short = short / max(1.0, np.abs(short).max(initial=0.0)) / (1 + len(short))
    clipped, _ = clip_to(short, 1.0)
    assert (clipped == short).all()
    assert clipped is not short


@pytest.mark.parametrize("extreme", [5e-324, 1e-310, 1e-200, 1e200, 1.7e308])
def test_denormal_and_huge_numbers(extreme):
    vector = np.full(1000, extreme)
    clipped, _ = clip_to(vector, 1.0)
    if extreme > 1:
        assert norm(clipped) == pytest.approx(1.0)
    else:
        assert (clipped == vector).all()


def test_a_sum_of_clipped_rows_counts_broken_ones_and_adds_in_float64():
    rows = np.array([[3.0, 4.0], [np.nan, 1.0], [0.3, 0.4], [np.inf, -np.inf]], dtype=np.float32)
    total, broken = clipped_sum(rows, 1.0)
    assert broken == 2
    assert total == pytest.approx([0.9, 1.2], rel=1e-7)
    assert total.dtype == np.float64
    assert clipped_sum(np.zeros((0, 3)), 1.0)[0].tolist() == [0, 0, 0]
    for wrong in (np.zeros(3), np.zeros((MAX_SUMMANDS + 1, 1))):
        with pytest.raises(EncodingError, match="rows"):
            clipped_sum(wrong, 1.0)


def test_adding_a_row_moves_a_large_sum_by_no_more_than_clip_and_slack():
    """In float32 it moves by more: the reason why sums are made in float64."""
    rows = np.random.default_rng(1).normal(size=(4_001, 50)) * 10
    without, _ = clipped_sum(rows[:-1], 1.0)
    with_it, _ = clipped_sum(rows, 1.0)
    assert norm(with_it - without) <= 1 + 2.0**-40
    clipped = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    single = np.add.accumulate(clipped.astype(np.float32), axis=0)
    assert abs(norm(single[-1].astype(float) - single[-2].astype(float)) - 1) > 2.0**-24


@given(finite, st.integers(0, 100))
def test_rounding_goes_to_a_neighbour_and_leaves_integers_alone(vector, seed):
    rounded = stochastic_round(vector, source("round", seed))
    assert (np.abs(rounded - vector) < 1).all()
    whole = np.round(vector)
    assert (stochastic_round(whole, source("round", seed)) == whole).all()


@pytest.mark.parametrize("value", [0.5, 0.001, -0.25, -7.9, 1e6 + 0.125, 3.0, -1e-9])
def test_the_mean_of_the_rounding_is_the_number(value):
    count = 200_000
    rounded = stochastic_round(np.full(count, value), source("mean", str(value)))
    fraction = value - math.floor(value)
    assert abs(rounded.mean() - value) <= 5.5 * math.sqrt(fraction * (1 - fraction) / count) + 1e-7


def test_numbers_out_of_reach_are_cut():
    rounded = stochastic_round(np.array([1e300, -1e300, 2.0**60]), source("cut"))
    assert rounded.tolist() == [2**53, -(2**53), 2**53]


def adversarial(dimension, kind):
    """Vectors of norm C_s whose fractional parts make rounding overshoot as often or as far as it can."""
    clip = scaled_clip(dimension)
    flat = np.full(dimension, clip / math.sqrt(dimension))
    if kind == "flat":
        return flat
    if kind == "half":  # every coordinate an odd half: the largest variance
        vector = np.floor(flat) - 0.5
    elif kind == "just above":  # as far up as it goes, but rarely
        vector = np.floor(flat) - 1 + 1e-9
    elif kind == "just below":  # nearly always up by nearly nothing
        vector = np.nextafter(np.floor(flat), 0)
    elif kind == "one":
        vector = np.zeros(dimension)
        vector[0] = clip
    else:  # tiny: all coordinates but one nearly zero
        vector = np.full(dimension, 5e-324)
        vector[-1] = -clip
    return vector * min(1.0, clip / norm(vector))


KINDS = ["flat", "half", "just above", "just below", "one", "tiny"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimension", [1, 7, 1000, 1_000_000])
def test_the_bound_of_the_silo_unit_is_never_exceeded(dimension, kind):
    limit = delta2_squared(dimension, Unit.SILO)
    vector = adversarial(dimension, kind)
    for attempt in range(3 if dimension > 1000 else 50):
        rounded, redrawn = round_within(vector, limit, source("adversary", kind, dimension, attempt))
        assert int((rounded**2).sum()) <= limit
        assert 0 <= redrawn <= MAX_REDRAWS
        assert (np.abs(rounded - vector) <= 1).all()


@given(anything, st.integers(0, 50))
@settings(max_examples=200)
def test_the_bound_holds_whatever_came_before(vector, seed):
    """Even for vectors that nobody clipped: they are rounded to nothing."""
    limit = delta2_squared(max(1, len(vector)), Unit.SILO)
    rounded, _ = round_within(np.nan_to_num(vector), limit, source("unclipped", seed))
    assert sum(int(x) ** 2 for x in rounded) <= limit


def test_when_every_draw_is_too_long_it_is_rounded_towards_zero():
    rounded, redrawn = round_within(np.array([1.5, -1.5]), 2, source("short"), redraws=0)
    assert redrawn == 0
    assert int((rounded**2).sum()) <= 2
    tight = np.array([0.999999, -0.999999, 0.999999])
    rounded, redrawn = round_within(tight, 1, source("tight"))
    assert (rounded.tolist(), redrawn) == ([0, 0, 0], MAX_REDRAWS)
    assert round_within(np.array([5.0, 5.0]), 1, source("never"))[0].tolist() == [0, 0]


@pytest.mark.parametrize("dimension", [1, 7, 1000, 200_000])
@pytest.mark.parametrize("kind", KINDS)
def test_removing_a_record_moves_the_rounded_sum_by_at_most_delta2(dimension, kind):
    """The record unit: both sums are rounded with the same random numbers, and never redrawn."""
    limit = delta2_squared(dimension, Unit.RECORD)
    removed = adversarial(dimension, kind)
    others = np.random.default_rng(2).normal(size=dimension) * 20
    for attempt in range(2 if dimension > 1000 else 30):
        name = ("coupled", kind, dimension, attempt)
        difference = stochastic_round(others + removed, source(*name)) - stochastic_round(others, source(*name))
        assert int((difference**2).sum()) <= limit
        clamped = np.clip(stochastic_round(others + removed, source(*name)), -20, 20)
        clamped -= np.clip(stochastic_round(others, source(*name)), -20, 20)
        assert int((clamped**2).sum()) <= int((difference**2).sum())


def test_the_formula_of_the_sensitivity():
    """Kairouz et al. 2021, proposition 26: min{c^2 + d/4 + t (c + sqrt(d)/2), (c + sqrt(d))^2}."""
    assert delta2_squared(1, Unit.SILO) == math.floor(256 + 0.25 + 16.5)
    assert delta2_squared(10_000, Unit.SILO) == math.floor(1600**2 + 2500 + 1600 + 50)
    spread = math.sqrt(120 * math.log(2))
    widened = (1600**2 + 2500 + spread * 1650) * (1 + 2.0**-20) ** 2
    assert delta2_squared(10_000, Unit.RECORD) == math.floor(widened)
    assert delta2_squared(1, Unit.RECORD) == math.floor(17**2 * (1 + 2.0**-20) ** 2)


@given(st.integers(1, 10**7), st.sampled_from(list(Unit)), st.sampled_from([1.0, 2.0, 4.0, 16.0]))
def test_the_sensitivity_is_never_below_the_clip_and_close_to_it_for_a_fine_grid(dimension, unit, kappa):
    ratio = math.sqrt(delta2_squared(dimension, unit, kappa)) / scaled_clip(dimension, kappa)
    assert ratio >= math.sqrt(1 - 1e-12)
    if kappa == 16.0 and dimension >= 10_000:
        assert ratio <= 1.0036
    if kappa == 16.0 and dimension >= 1_000_000:
        assert ratio <= 1.0009


@given(st.floats(0, 50), st.integers(1, 10**9), st.integers(1, 40))
def test_the_shares_of_the_noise_add_up_to_at_least_what_was_promised(multiplier, delta2, shares):
    variance = share_variance(multiplier, delta2, shares)
    promised = Fraction(multiplier) ** 2 * delta2
    assert variance * shares >= promised
    assert (variance - 1) * shares < promised or variance == 0


@pytest.mark.parametrize(
    ("dimension", "kappa"), [(0, 16.0), (-1, 16.0), (5, 0.5), (5, math.nan), (5, 2000.0), (2**31, 16.0)]
)
def test_numbers_that_make_no_encoding_are_refused(dimension, kappa):
    with pytest.raises(EncodingError):
        delta2_squared(dimension, Unit.RECORD, kappa)


@pytest.mark.parametrize(("multiplier", "shares"), [(-1.0, 1), (math.nan, 1), (math.inf, 1), (1.0, 0)])
def test_noise_that_is_none_is_refused(multiplier, shares):
    with pytest.raises(EncodingError, match="noise needs"):
        share_variance(multiplier, 100, shares)
