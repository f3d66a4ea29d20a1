"""Audits: against small cases worked out by force, on honest mechanisms, and on broken ones."""

from __future__ import annotations

import itertools
import math

import dp_accounting
import numpy as np
import pytest
from scipy.stats import binom, chi2, nct

from quire.privacy.dp.audit import _least_shift, bound_of_guesses, gaussian, one_run, p_value
from quire.privacy.dp.contract import PrivacyError


@pytest.mark.parametrize(("guesses", "correct"), [(1, 1), (4, 3), (7, 5), (10, 10)])
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_the_p_value_is_its_definition_summed_by_hand(guesses: int, correct: int, epsilon: float) -> None:
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))
    mass = [0.0] * (guesses + 1)
    for outcome in itertools.product((0, 1), repeat=guesses):
        right = sum(outcome)
        mass[right] += chance**right * (1 - chance) ** (guesses - right)
    worst = max(sum(mass[correct - i : correct]) / i for i in range(1, correct + 1))
    expected = min(1.0, sum(mass[correct:]) + 2 * 20 * 1e-3 * worst)
    assert p_value(epsilon, 1e-3, 20, guesses, correct) == pytest.approx(expected, rel=1e-10)


def test_randomised_response_meets_the_bound_with_equality() -> None:
    """Each canary answers truthfully with probability e^eps / (1 + e^eps): that is the worst case of the theorem."""
    assert p_value(1.0, 0.0, 50, 50, 40) == pytest.approx(
        sum(math.comb(50, k) * (math.e / (1 + math.e)) ** k * (1 / (1 + math.e)) ** (50 - k) for k in range(40, 51))
    )


def test_the_bound_when_every_guess_is_right() -> None:
    for guesses in (10, 100, 1000):
        chance = 0.05 ** (1 / guesses)
        assert bound_of_guesses(0.0, guesses, guesses, guesses) == pytest.approx(
            math.log(chance / (1 - chance)), abs=1e-5
        )
    # Measured for the design, delta 1e-5.
    for canaries, cap in ((100, 3.5), (1000, 5.8), (10_000, 7.8)):
        assert bound_of_guesses(1e-5, canaries, canaries, canaries) == pytest.approx(cap, abs=0.06)


def test_more_right_guesses_refute_more() -> None:
    bounds = [bound_of_guesses(1e-5, 1000, 200, correct) for correct in range(90, 201, 10)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0.0 < bounds[-1]


def canaries(random: np.random.Generator, noise: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Dirac canaries at rate 1: each its own coordinate, one Gaussian release."""
    coins = random.random(count) < 0.5
    return coins + random.normal(0, noise, count), coins


CLAIM = dp_accounting.get_epsilon_gaussian(1.0, 1e-5)


def test_an_honest_mechanism_is_not_refuted_and_the_audit_has_power() -> None:
    assert pytest.approx(4.38, abs=0.5) == CLAIM
    found = []
    for seed in range(20):
        scores, coins = canaries(np.random.default_rng(seed), 1.0, 10_000)
        run, normal = one_run(scores, coins, 1e-5), gaussian(scores, coins, 1e-5)
        assert run.epsilon <= CLAIM
        assert run.highest > CLAIM
        found.append((run.epsilon, normal.epsilon))
    assert np.median([run for run, _ in found]) >= 1.8
    assert np.median([normal for _, normal in found]) >= 0.85 * CLAIM
    assert sum(normal > CLAIM for _, normal in found) <= 3


@pytest.mark.parametrize("noise", [0.0, 0.1, 10**-0.5])
def test_broken_noise_is_caught_every_time(noise: float) -> None:
    for seed in range(3):
        scores, coins = canaries(np.random.default_rng(seed), noise, 10_000)
        assert one_run(scores, coins, 1e-5).epsilon > CLAIM
        assert gaussian(scores, coins, 1e-5).epsilon > CLAIM


def test_the_gaussian_limit_inverts_the_noncentral_t_distribution() -> None:
    for freedom, t in ((8, 3.0), (98, 7.0), (998, 20.0), (9998, 55.0), (98, 60.0)):
        shift = _least_shift(t, freedom, 0.05)
        assert nct.sf(t, freedom, shift) == pytest.approx(0.05, rel=1e-6)


def test_the_gaussian_limit_where_one_of_the_two_estimates_is_all_that_varies() -> None:
    """For a vast t only the deviation does, by its chi-squared distribution; for many canaries only the mean."""
    assert _least_shift(1e9, 98, 0.05) == pytest.approx(1e9 * math.sqrt(chi2.ppf(0.05, 98) / 98), rel=1e-6)
    assert _least_shift(5.0, 10**9, 0.05) == pytest.approx(5.0 - 1.6448536, abs=1e-4)
    assert _least_shift(1.0, 98, 0.05) == _least_shift(-3.0, 98, 0.05) == 0.0


@pytest.mark.parametrize(("count", "mu"), [(12, 1.0), (12, 6.0), (60, 0.3), (60, 3.0)])
def test_the_gaussian_bound_is_wrong_as_often_as_it_says_for_few_canaries_too(count: int, mu: float) -> None:
    random = np.random.default_rng(8)
    coins = np.arange(count) % 2 == 0
    exact = dp_accounting.get_epsilon_gaussian(1 / mu, 1e-5)
    wrong = sum(gaussian(random.normal(mu * coins), coins, 1e-5, 0.9).epsilon > exact for _ in range(200))
    assert 0.001 < binom.cdf(wrong, 200, 0.1) < 0.999


def test_scores_that_hardly_vary_or_do_not_at_all_are_infinitely_telling() -> None:
    coins = np.arange(200) % 2 == 0
    noise = 1e-9 * np.random.default_rng(1).normal(size=200)
    assert math.isinf(gaussian(coins + noise, coins, 1e-5).epsilon)
    assert math.isinf(gaussian(coins, coins, 1e-5).epsilon)


def test_scores_without_information_show_nothing() -> None:
    random = np.random.default_rng(3)
    coins = random.random(2000) < 0.5
    assert one_run(random.normal(size=2000), coins, 1e-5).epsilon < 0.3
    assert one_run(-1.0 * coins, coins, 1e-5).epsilon == 0.0
    assert gaussian(-1.0 * coins + random.normal(size=2000), coins, 1e-5).epsilon == 0.0
    assert gaussian(np.zeros(2000), coins, 1e-5).epsilon == 0.0


def test_malformed_audits_are_refused() -> None:
    with pytest.raises(PrivacyError, match="one score"):
        one_run([0.1, 0.2], [True], 1e-5)
    with pytest.raises(PrivacyError, match="NaN"):
        one_run([0.1, math.nan], [True, False], 1e-5)
    with pytest.raises(PrivacyError, match="at least two"):
        gaussian([0.1, 0.2, 0.3], [True, False, False], 1e-5)
    with pytest.raises(PrivacyError, match="cannot be"):
        p_value(1.0, 1e-5, 10, 5, 6)
