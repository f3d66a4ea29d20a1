"""The noise of one release: a lattice point from the distribution that is accounted for, with the numbers to do so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_support import FALSE_ALARM, chi_squared, goodness, source
from scipy import special

from quire.privacy.dp.accounting import ORDERS, rdp
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.events import SampledDiscreteGaussian, SampledGaussian
from quire.privacy.dp.lattice import NoiseKind, Release, noisy_sum, noisy_sum_gaussian
from quire.privacy.dp.rounding import SLACK, EncodingError, delta2_squared, scaled_clip


@pytest.mark.parametrize(("dimension", "clip", "multiplier"), [(1, 1.0, 1.0), (50, 0.1, 0.5), (20_000, 3.0, 2.0)])
def test_what_is_released_is_a_lattice_point_at_a_discrete_gaussian_distance(dimension, clip, multiplier):
    """On lattice points the rounding changes nothing, so the noise itself can be tested, with all its bits."""
    release = Release(NoiseKind.DISCRETE, dimension, clip, multiplier)
    points = np.arange(dimension) % 100 - 50
    noise = []
    for step in range(max(1, 20_000 // dimension)):
        released, facts = noisy_sum(points / release.scale, clip, multiplier, source("lattice", dimension, step))
        assert facts == release
        integers = released * release.scale
        assert np.abs(integers - np.round(integers)).max() < 1e-6
        noise.append(np.round(integers).astype(int) - points)
    assert goodness(np.concatenate(noise), release.sigma_squared, bins=32) > FALSE_ALARM


def test_the_lattice_does_not_depend_on_the_data():
    """The hole that Mironov (2012) found: which floats can come out tells what went in. Here all can."""
    release = Release(NoiseKind.DISCRETE, 200, 1.0, 1.0)
    for signal in (0.0, 1e-9, math.pi / 100, 1 / 3):
        released, _ = noisy_sum(np.full(200, signal), 1.0, 1.0, source("grid", str(signal)))
        points = np.round(released * release.scale).astype(np.int64)
        assert (released == points / release.scale).all()


def test_the_mean_is_the_sum():
    total = np.random.default_rng(4).normal(size=100_000)
    released, release = noisy_sum(total, 1.0, 1.0, source("mean"))
    error = released - total
    assert abs(error.mean()) < 5.5 * release.standard_deviation / len(error) ** 0.5
    assert error.std() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("dimension", [10_000, 1_000_000])
def test_the_noise_is_hardly_larger_than_that_of_the_gaussian_mechanism(dimension):
    release = Release(NoiseKind.DISCRETE, dimension, 2.0, 1.5)
    assert 1.0 <= release.standard_deviation / 3.0 <= (1.004 if dimension == 10_000 else 1.001)


@given(st.integers(1, 10**6), st.floats(0.01, 100), st.floats(1e-3, 1e3))
def test_the_accounted_ratio_is_at_least_the_multiplier(dimension, multiplier, clip):
    release = Release(NoiseKind.DISCRETE, dimension, clip, multiplier)
    assert release.delta2_squared == delta2_squared(dimension, Unit.RECORD)
    assert release.delta2_squared >= math.floor(scaled_clip(dimension) ** 2 * (1 + SLACK))
    assert release.event(0.1, 3).noise_multiplier >= multiplier * (1 - 1e-15)


def test_the_event_costs_what_the_gaussian_one_does_plus_what_rounding_adds_to_delta():
    release = Release(NoiseKind.DISCRETE, 1000, 1.0, 1.2)
    event = release.event(0.05, 400)
    assert isinstance(event, SampledDiscreteGaussian)
    assert event.failure == pytest.approx(400 * 2.0**-60, rel=1e-6)
    assert event.failure > 400 * 2.0**-60
    gaussian = rdp(SampledGaussian(1.2, 0.05, 400))
    whole = np.array([order == int(order) for order in ORDERS])  # the argument for sampled discrete noise needs these
    assert (rdp(event)[whole] <= gaussian[whole] * (1 + 1e-9)).all()
    assert Release(NoiseKind.GAUSSIAN, 1000, 1.0, 1.2).event(0.05, 400) == SampledGaussian(1.2, 0.05, 400)


def test_the_gaussian_variant_has_its_standard_deviation_and_shape():
    released, release = noisy_sum_gaussian(np.full(100_000, 5.0), 2.0, 1.5, source("gaussian"))
    assert release.kind is NoiseKind.GAUSSIAN
    assert release.failure == 0.0
    cells = np.minimum((special.ndtr((released - 5.0) / 3.0) * 100).astype(int), 99)
    assert chi_squared(np.bincount(cells, minlength=100), np.full(100, 1_000.0)) > FALSE_ALARM


@pytest.mark.parametrize("release", [noisy_sum, noisy_sum_gaussian])
@pytest.mark.parametrize(
    ("total", "clip", "multiplier", "words"),
    [
        (np.array([1.0, np.nan]), 1.0, 1.0, "finite"),
        (np.array([np.inf]), 1.0, 1.0, "finite"),
        (np.ones(3, dtype=np.float32), 1.0, 1.0, "float64"),
        (np.ones((2, 2)), 1.0, 1.0, "float64"),
        (np.ones(0), 1.0, 1.0, "dimension"),
        (np.ones(3), 0.0, 1.0, "clip"),
        (np.ones(3), math.inf, 1.0, "clip"),
        (np.ones(3), 1.0, 0.0, "multiplier"),
        (np.ones(3), 1.0, math.nan, "multiplier"),
    ],
)
def test_what_cannot_be_released_privately_is_refused(release, total, clip, multiplier, words):
    with pytest.raises(EncodingError, match=words):
        release(total, clip, multiplier, source("refused"))


def test_the_input_is_left_alone_and_every_release_is_fresh():
    total = np.zeros(500)
    drawn = source("fresh")
    first, _ = noisy_sum(total, 1.0, 1.0, drawn)
    second, _ = noisy_sum(total, 1.0, 1.0, drawn)
    assert not total.any()
    assert (first != second).mean() > 0.9
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25
