"""Calibrated noise: enough, not 1 % more than enough, monotone, and refused where nothing is enough."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.dp.calibration import CalibrationError, calibrate, round_up
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.events import Gaussian, SampledDiscreteGaussian, SampledGaussian
from quire.privacy.dp.spending import Spending


def spent(noise: float, rate: float, steps: int, delta: float, discrete: bool = False) -> float:
    if not discrete:
        return Spending.of(SampledGaussian(noise, rate, steps)).epsilon(delta)
    scaled = math.ceil(noise**2 * 10**12)
    return Spending.of(SampledDiscreteGaussian(scaled, 10**12, rate, steps)).epsilon(delta)


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.1, 50),
    st.sampled_from([1e-4, 1e-5, 1e-7]),
    st.integers(1, 20_000),
    st.floats(1e-3, 1.0).map(lambda rate: round(rate, 4)),
    st.booleans(),
)
def test_enough_and_not_a_hundredth_more(epsilon: float, delta: float, steps: int, rate: float, discrete: bool) -> None:
    noise = calibrate(epsilon, delta, steps, rate, discrete=discrete)
    assert spent(noise, rate, steps, delta, discrete) <= epsilon * (1 + 1e-9)
    assert spent(0.99 * noise, rate, steps, delta, discrete) > epsilon


def test_the_noises_measured_for_the_design() -> None:
    for epsilon, noise in {0.5: 4.08, 1: 2.32, 2: 1.45, 4: 1.01, 8: 0.74}.items():
        assert calibrate(epsilon, 1e-5, 100, 0.05) == pytest.approx(noise, abs=0.006)
    for epsilon, noise in {0.5: 12.2, 1: 6.50, 2: 3.53, 4: 2.01, 8: 1.26}.items():
        assert calibrate(epsilon, 1e-5, 1000, 0.05) == pytest.approx(noise, abs=0.06)
    for epsilon, noise in {1: 40.5, 2: 21.5, 4: 11.6, 8: 6.38, 16: 3.66}.items():
        assert calibrate(epsilon, 1e-5, 100, 1.0, Unit.SILO) == pytest.approx(noise, rel=0.012)


@pytest.mark.slow
def test_monotone_in_everything() -> None:
    def rising(values: list[float]) -> bool:
        return values == sorted(values) and values[0] < values[-1]

    assert rising([calibrate(2, 1e-5, steps, 0.05) for steps in (1, 2, 10, 11, 100, 1000, 1001)])
    assert rising([calibrate(2, 1e-5, 100, rate) for rate in (0.01, 0.0101, 0.1, 0.4, 0.6, 0.99, 1.0)])
    assert rising([-calibrate(epsilon, 1e-5, 100, 0.05) for epsilon in (0.5, 0.501, 1, 4, 16)])
    assert rising([-calibrate(2, delta, 100, 0.05) for delta in (1e-8, 1e-6, 1.01e-6, 1e-4)])
    assert rising([calibrate(2, 1e-5, 100, 0.05, failure=part) for part in (0.0, 1e-7, 5e-6, 9e-6)])


def test_discrete_noise_needs_no_less() -> None:
    for epsilon in (0.5, 2, 8):
        smooth = calibrate(epsilon, 1e-5, 100, 0.05)
        assert smooth <= calibrate(epsilon, 1e-5, 100, 0.05, discrete=True) <= 1.01 * smooth
    assert calibrate(2, 1e-5, 100, 1.0, discrete=True) == calibrate(2, 1e-5, 100, 1.0)


def test_no_limit_means_no_noise() -> None:
    assert calibrate(math.inf, 1e-5, 100, 0.05) == 0.0


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ((0.0, 1e-5, 10, 0.1), {}, "epsilon"),
        ((-1.0, 1e-5, 10, 0.1), {}, "epsilon"),
        ((math.nan, 1e-5, 10, 0.1), {}, "epsilon"),
        ((1.0, 0.0, 10, 0.1), {}, "delta"),
        ((1.0, 1.0, 10, 0.1), {}, "delta"),
        ((1.0, 1e-5, 0, 0.1), {}, "step"),
        ((1.0, 1e-5, 1.5, 0.1), {}, "step"),
        ((1.0, 1e-5, 10, 0.0), {}, "sampling rate"),
        ((1.0, 1e-5, 10, 1.1), {}, "batch too large"),
        ((1.0, 1e-5, 10, 0.1, Unit.SILO), {}, "amplified"),
        ((1.0, 1e-5, 10, 0.1), {"failure": 1e-5}, "used up"),
        ((1.0, 1e-5, 10, 0.1), {"failure": math.nan}, "at least 0"),
        ((1e-6, 1e-12, 10**9, 1.0), {}, "No noise up to 1e"),
        ((1e9, 1e-5, 1, 0.5), {}, "protects nothing"),
    ],
)
def test_what_cannot_be_reached_is_one_clear_sentence(
    arguments: tuple[object, ...], keywords: dict[str, float], words: str
) -> None:
    with pytest.raises(PrivacyError, match=words) as caught:
        calibrate(*arguments, **keywords)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CalibrationError) or words == "delta"


def test_the_epsilon_of_the_silo_unit_is_that_of_gaussian_releases() -> None:
    noise = calibrate(3.0, 1e-4, 25, 1.0, Unit.SILO)
    assert (
        Spending.of(Gaussian(noise, 25)).epsilon(1e-4) <= 3.0 < Spending.of(Gaussian(0.999 * noise, 25)).epsilon(1e-4)
    )


@given(st.floats(1e-3, 1e6))
def test_answers_lie_on_five_digits_and_never_below(value: float) -> None:
    rounded = round_up(value)
    assert value <= rounded <= value * (1 + 1.0001e-4)
    assert float(f"{rounded:.4e}") == rounded
