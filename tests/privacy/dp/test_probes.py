"""The always-on test of the noise: quiet while the promise is kept, loud within five rounds when it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from noise_support import source

from quire.privacy.dp.contract import Unit
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.probes import PROBES, ProbeError, ProbeTest, detection_power, p_value, probes_needed

PARTIES, ROUNDS = 10, 5


def encoding(probes=PROBES):
    return Encoding.plan(
        Unit.RECORD, 10, 1.0, parties=PARTIES, noise_multiplier=1.0, noise_shares=6, probes=probes, kappa=64.0
    )


def run(name, spoil=lambda noise, party: noise, parties=PARTIES, rounds=ROUNDS, probes=PROBES, test=None):
    """Release the probes of some rounds, each party's noise spoilt in some way, and test them."""
    numbers, test = encoding(probes), test or ProbeTest()
    for round_number in range(rounds):
        drawn = [numbers.noise(source("probes", name, round_number, party)) for party in range(parties)]
        total = sum(spoil(noise, party) for party, noise in enumerate(drawn))
        test = test.observe(total[-probes:], parties * numbers.noise_variance)
    return test


@pytest.mark.parametrize("survivors", [PARTIES, 7])
def test_honest_noise_raises_no_alarm_with_and_without_dropouts(survivors):
    test = run(f"honest {survivors}", parties=survivors)
    assert not test.alarm
    assert (test.looks, test.probes) == (5, 5 * PROBES)
    low, high = test.interval(0.9999)
    assert low < 1 < high
    assert low < test.ratio < high


@pytest.mark.parametrize("seed", range(20))
def test_noise_a_tenth_too_small_is_found_within_five_rounds(seed):
    test = run(f"times 0.9 {seed}", lambda noise, party: np.round(0.9 * noise).astype(int))
    assert test.too_little is not None
    assert test.too_much is None


@pytest.mark.parametrize("seed", range(5))
def test_a_missing_square_root_is_found_in_the_first_round(seed):
    """Every silo divides sigma by the number of shares instead of by its root, or multiplies where it should not."""
    shares = 6
    too_small = run(f"root {seed}", lambda noise, party: np.round(noise / math.sqrt(shares)).astype(int))
    too_large = run(f"root {seed}", lambda noise, party: np.round(noise * math.sqrt(shares)).astype(int))
    assert too_small.too_little == 1
    assert too_large.too_much == 1


def test_one_of_ten_silos_that_adds_no_noise_is_found_with_the_probes_that_are_planned_for_it():
    probes = probes_needed((PARTIES - 1) / PARTIES, ROUNDS)
    assert probes == 2048
    found = [run(f"silent {seed}", lambda noise, party: noise * (party != 3), probes=probes) for seed in range(20)]
    assert all(test.too_little is not None for test in found)


def test_the_default_number_of_probes_finds_a_silent_silo_among_five():
    assert detection_power(0.8, PROBES, ROUNDS) > 0.9999
    assert probes_needed(0.8, ROUNDS) == PROBES
    assert detection_power(0.9, PROBES, ROUNDS) == pytest.approx(0.87, abs=0.01)


def test_an_alarm_stays():
    test = run("first bad", lambda noise, party: noise // 2, rounds=1)
    assert test.too_little == 1
    assert run("then good", test=test, rounds=30).too_little == 1


def test_alarms_are_as_rare_as_stated_however_often_one_looks():
    """2,000 honest runs of 40 looks each at alpha = 0.05: false alarms stay below that, and are not absent."""
    alarms = 0
    normals = np.random.default_rng(5)
    for _ in range(2_000):
        test = ProbeTest(alpha=0.05)
        for _ in range(40):
            test = test.observe(np.round(normals.normal(size=50) * 1000).astype(int), 1000**2)
        alarms += test.alarm
    assert 10 < alarms < 2_000 * 0.05 + 3 * math.sqrt(2_000 * 0.05)


def test_the_power_stated_is_the_power_there_is():
    found = 0
    normals = np.random.default_rng(6)
    for _ in range(400):
        test = ProbeTest()
        for _ in range(3):
            test = test.observe(np.round(normals.normal(size=1024) * 900).astype(int), 1000**2 * 0.9)
        found += test.too_little is not None
    assert found / 400 >= detection_power(0.9, 1024, 3) - 3 * math.sqrt(0.25 / 400)


def test_huge_noise_does_not_overflow():
    test = ProbeTest().observe(np.full(10, 2**45), 2**90)
    assert test.ratio == 1.0


@pytest.mark.parametrize(
    ("released", "variance"), [(np.zeros(0, int), 1), (np.zeros(5, int), 0), (np.zeros(5, int), -1)]
)
def test_what_cannot_be_tested_is_refused(released, variance):
    with pytest.raises(ProbeError):
        ProbeTest().observe(released, variance)


@pytest.mark.parametrize(
    ("ratio", "looks", "power"), [(1.0, 5, 0.9), (0.0, 5, 0.9), (0.9, 0, 0.9), (0.9, 5, 1.0), (0.9999, 1, 0.9)]
)
def test_plans_that_cannot_be_made_are_refused(ratio, looks, power):
    with pytest.raises(ProbeError):
        probes_needed(ratio, looks, power)


def test_nothing_is_known_before_the_first_round():
    test = ProbeTest()
    assert math.isnan(test.ratio)
    assert test.interval() == (0.0, math.inf)
    assert not test.alarm


def test_a_round_is_the_same_by_its_values_or_by_its_statistic():
    values = np.random.default_rng(5).normal(0, 100, 1024).round().astype(np.int64)
    statistic = float(np.square(values.astype(float)).sum()) / 10_000
    assert ProbeTest().observe(values, 10_000) == ProbeTest().add(1024, statistic)


@pytest.mark.parametrize("wrong", [(0, 1.0), (1, -1.0), (1, float("nan")), (1, float("inf"))])
def test_a_round_that_is_none_is_refused(wrong):
    with pytest.raises(ProbeError):
        ProbeTest().add(*wrong)


def test_p_values_are_uniform_under_the_promise_and_small_beyond_it():
    rng = np.random.default_rng(6)
    found = [p_value(1024, float(np.square(rng.normal(size=1024)).sum())) for _ in range(400)]
    assert 0.4 < np.mean(found) < 0.6
    assert p_value(1024, 1024 * 0.81) < 1e-5
    assert p_value(1024, 1024 * 1.21) < 1e-5
