"""The numbers of distributed noise: what is left unknown, what it costs whom, and that less noise always costs more."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.dp.accounting import ORDERS, default_delta, rdp, tight_epsilon
from quire.privacy.dp.calibration import CalibrationError, calibrate
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.distributed import DISTANCE_FAILURE, DIVERGENCE, SharedNoise
from quire.privacy.dp.events import DiscreteGaussian, NonPrivate, SampledDiscreteGaussian
from quire.privacy.dp.forecast import DROWNING, forecast
from quire.privacy.dp.rounding import ROUNDING_FAILURE, EncodingError
from quire.privacy.dp.shares import encoding_of, probes_for
from quire.privacy.dp.spending import Budget, Spending
from quire.privacy.secagg.errors import CohortTooSmall
from quire.privacy.secagg.params import Thresholds, default_colluders, thresholds

DELTA = 1e-5


def record(members=10, colluders=3, min_survivors=7, noise=1.0, **changes):
    values = {"parties": members, "sampling_rate": 0.05, "rounds": 100, "denominator": 72.0, "batch": 8} | changes
    return SharedNoise(Unit.RECORD, 1.0, members, colluders, min_survivors, noise_multiplier=noise, **values)


def silo(members=10, colluders=3, min_survivors=7, noise=6.0, **changes):
    values = {"parties": members, "sampling_rate": 1.0, "rounds": 100, "denominator": float(members)} | changes
    return SharedNoise(Unit.SILO, 1.0, members, colluders, min_survivors, noise_multiplier=noise, **values)


@st.composite
def rosters(draw: st.DrawFn) -> Thresholds:
    members = draw(st.integers(2, 40))
    colluders = draw(st.integers(0, min(members - 2, default_colluders(members) + 3)))
    least = max((members + colluders) // 2 + 1, colluders + 2)
    return thresholds(members, colluders, draw(st.integers(least, members)))


@settings(deadline=None)
@given(rosters(), st.floats(0.3, 50.0), st.integers(1, 100_000), st.sampled_from(list(Unit)), st.data())
def test_whoever_survives_and_omits_enough_noise_is_left(limits, z, dimension, unit, data):
    """The promise of the whole file, in exact arithmetic on the very parameter that is sampled from."""
    noise = (record if unit is Unit.RECORD else silo)(limits.members, limits.colluders, limits.min_survivors, z)
    try:
        encoding = encoding_of(noise, dimension)
    except EncodingError:
        return  # a share would be too small, and is refused
    assert encoding.noise_variance >= 256
    survivors = data.draw(st.integers(limits.min_survivors, limits.members))
    believed = data.draw(st.integers(0, limits.colluders))
    for against in {believed, limits.colluders}:
        left = (survivors - against - 1) * encoding.noise_variance
        promised = noise.released(1, against)
        assert left >= promised.sigma_squared * encoding.delta2_squared
        assert left >= Fraction(noise.multiplier(against)) ** 2 * encoding.delta2_squared * (1 - Fraction(1, 10**12))
    assert (survivors - limits.colluders - 1) * encoding.noise_variance >= Fraction(z) ** 2 * encoding.delta2_squared
    assert encoding.noise_variance >= noise.released_alone(1).sigma_squared * encoding.delta2_squared


def test_the_thresholds_of_the_specification():
    assert [record(c_n[0], c_n[1], c_n[2]).shares for c_n in ((10, 3, 7), (10, 0, 9), (2, 0, 2), (4, 1, 3))] == [
        3,
        8,
        1,
        1,
    ]
    assert record(10, 0, 9).excess(10) == pytest.approx(math.sqrt(10 / 8))
    assert record(10, 3, 7).excess(10) == pytest.approx(math.sqrt(10 / 3))


@pytest.mark.parametrize(
    ("members", "colluders", "survivors", "parties"),
    [(10, 3, 6, 10), (10, 3, 11, 11), (10, 9, 10, 10), (10, 3, 7, 6), (10, 3, 7, 11), (1, 0, 1, 1), (10, -1, 9, 10)],
)
def test_thresholds_that_protect_nobody_are_refused(members, colluders, survivors, parties):
    with pytest.raises((PrivacyError, CohortTooSmall)):
        record(members, colluders, survivors, parties=parties)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"noise": -1.0},
        {"noise": math.nan},
        {"noise": math.inf},
        {"rounds": 0},
        {"denominator": 0.0},
        {"batch": 0},
        {"batch": 2**15 + 1},
    ],
    ids=str,
)
def test_numbers_that_do_not_go_together_are_refused(changes):
    with pytest.raises(PrivacyError):
        record(**changes)
    with pytest.raises(PrivacyError, match="1 for silos"):
        silo(sampling_rate=0.5)


def plan(unit=Unit.RECORD, limits=None, epsilons=(1.0,) * 10, records=(143,) * 10, rate=0.05, **changes):
    limits = limits or thresholds(10, 3, 7)
    targets = [Budget(epsilon, DELTA) for epsilon in epsilons]
    counts = {"records": sum(records), "largest": max(records)}
    extra = {**counts, "sampling_rate": rate} if unit is Unit.RECORD else {}
    return SharedNoise.plan(unit, 1.0, limits, **{"rounds": 300, "targets": targets, **extra, **changes})


def test_one_multiplier_serves_the_strictest_silo_and_every_silo_keeps_its_target():
    """A3: sizes differ, so deltas do; the rate is common. With a common *batch* the small silo would spend far more."""
    records = (30, 199, 5000, 20_000)
    targets = [Budget(2.0, default_delta(count)) for count in records]
    noise = plan(limits=thresholds(4, 1), targets=targets, records=records)
    alone = [
        calibrate(2.0, target.delta, 300, 0.05, discrete=True, failure=noise.released(300).failure)
        for target in targets
    ]
    assert noise.noise_multiplier == max(alone)
    spent = [noise.epsilon(target.delta) for target in targets]
    assert max(spent) <= 2.0
    assert max(spent) > 1.99
    assert replace(noise, noise_multiplier=0.99 * noise.noise_multiplier).epsilon(min(t.delta for t in targets)) > 2.0
    assert noise.denominator == pytest.approx(0.05 * sum(records))
    assert noise.batch == 1000


def test_the_plan_follows_epsilons_and_takes_the_smallest():
    assert plan(epsilons=(4.0, 1.0, 8.0)).noise_multiplier == plan(epsilons=(1.0,)).noise_multiplier
    assert plan(epsilons=(math.inf, 4.0)).noise_multiplier == plan(epsilons=(4.0,)).noise_multiplier
    nothing = plan(epsilons=(math.inf,))
    assert nothing.released(1) == nothing.charged(1) == NonPrivate()
    assert nothing.epsilon(DELTA) == math.inf


def test_fewer_silos_asked_than_members_share_the_denominator():
    assert plan(parties=8).denominator == pytest.approx(0.05 * 1430 * 0.8)
    assert plan(Unit.SILO, parties=8).denominator == 8.0


@pytest.mark.parametrize(
    "changes", [{"records": (1,) * 9}, {"largest": 142}, {"records": (0,) * 10}, {"targets": []}, {"epsilons": (50.0,)}]
)
def test_a_plan_without_its_public_numbers_is_refused(changes):
    with pytest.raises(PrivacyError):
        plan(**changes)


def test_an_additive_term_that_uses_up_delta_is_refused():
    with pytest.raises(CalibrationError, match="used up"):
        plan(targets=[Budget(1.0, 1e-16)])


def test_what_is_charged_is_the_sum_over_rounds_with_every_term_of_delta():
    noise = record()
    event = noise.released(100)
    assert isinstance(event, SampledDiscreteGaussian)
    assert (event.steps, event.sampling_rate, event.divergence) == (100, 0.05, DIVERGENCE)
    assert event.failure == pytest.approx(100 * (ROUNDING_FAILURE + DISTANCE_FAILURE), rel=1e-12, abs=0)
    one = Spending.of(noise.released(1))
    assert Spending.sum([one] * 100).epsilon(DELTA) == pytest.approx(noise.epsilon(DELTA), rel=1e-9)
    assert Spending.sum([one] * 101).epsilon(DELTA) > noise.epsilon(DELTA)  # an attempt that was repeated
    assert isinstance(silo().released(3), DiscreteGaussian)
    assert silo().released(3).failure == pytest.approx(3 * DISTANCE_FAILURE, rel=1e-12, abs=0)


def test_the_constants_cover_the_longest_vector_and_the_smallest_share():
    from quire.privacy.dp.discrete_gaussian import tv_bound
    from quire.privacy.secagg.params import MAX_COHORT, MAX_LENGTH

    assert (1 + math.exp(44.0)) * tv_bound(256, MAX_COHORT * MAX_LENGTH) <= DISTANCE_FAILURE
    assert DISTANCE_FAILURE < 1e-16
    log_tau = math.log(10 * MAX_COHORT) - math.pi**2 * 256  # k / (k + 1) is at least a half
    assert log_tau + math.log(MAX_LENGTH) < math.log(DIVERGENCE)


def test_a_silo_s_records_cost_as_if_the_update_moved_by_two_clips():
    noise = silo()
    assert noise.charged(1).sigma_squared * 4 == noise.released(1).sigma_squared
    assert record().charged(7) == record().released(7)
    assert Spending.of(noise.charged(100)).epsilon(DELTA) > 2 * noise.epsilon(DELTA)


def test_the_card_s_epsilons_are_ordered():
    """Fewer colluders than the run reckons with cost less; all others dishonest cost most."""
    noise = record(rounds=20, noise=2.0)
    spent = [noise.epsilon(DELTA, colluders) for colluders in (0, 1, 2, 3, 4, 5)]
    assert spent == sorted(spent)
    assert len(set(spent)) == 6
    assert spent[-1] == pytest.approx(noise.epsilon_alone(DELTA), rel=1e-12)  # 7 survivors, 5 against it, one observer
    assert noise.multiplier(0) == pytest.approx(2.0 * math.sqrt(6 / 3))
    with pytest.raises(PrivacyError, match="no noise is left"):
        noise.epsilon(DELTA, 6)
    assert tight_epsilon([noise.released(20)], DELTA) < noise.epsilon(DELTA)


def test_less_noise_than_agreed_costs_more():
    """What a lying server could ask for: fewer survivors, a smaller z, more colluders, more rounds, a larger rate."""
    noise = record(rounds=20, noise=1.5)
    honest = noise.epsilon(DELTA)
    for weaker in (
        noise.epsilon(DELTA, survivors=6),
        noise.epsilon(DELTA, colluders=4),
        replace(noise, noise_multiplier=1.4).epsilon(DELTA),
        replace(noise, rounds=21).epsilon(DELTA),
        replace(noise, sampling_rate=0.06).epsilon(DELTA),
    ):
        assert weaker > honest
    assert noise.epsilon(DELTA, survivors=8) < honest


@settings(deadline=None, max_examples=30)
@given(rosters(), st.floats(0.5, 20.0), st.floats(0.5, 0.999), st.sampled_from(list(Unit)))
def test_every_share_shrinks_with_z_and_with_fewer_shares_to_be_known(limits, z, factor, unit):
    build = record if unit is Unit.RECORD else silo
    noise = build(limits.members, limits.colluders, limits.min_survivors, z)
    less = build(limits.members, limits.colluders, limits.min_survivors, z * factor)
    assert less.released(1).sigma_squared < noise.released(1).sigma_squared
    assert less.noise() < noise.noise()
    if limits.min_survivors < limits.members:  # more survivors insisted on: each adds less, and z stays
        more = build(limits.members, limits.colluders, limits.min_survivors + 1, z)
        assert more.released(1) == noise.released(1)
        assert more.released_alone(1).sigma_squared < noise.released_alone(1).sigma_squared
        assert more.noise() < noise.noise()


def test_the_silo_unit_with_few_silos_drowns_and_says_what_it_would_take():
    """The table of the specification: z = 6.38 for epsilon 8 over 100 rounds; ten silos are too few, 600 are not."""
    few = plan(Unit.SILO, thresholds(10, 0, 9), epsilons=(8.0,), rounds=100)
    assert few.noise_multiplier == pytest.approx(6.38, abs=0.01)
    told = forecast(few, 10_000)
    assert told.drowned
    assert told.coordinate == pytest.approx(6.38 * math.sqrt(10 / 8) / 10, rel=1e-3)
    assert told.step == pytest.approx(100 * told.coordinate)
    assert told.run == pytest.approx(told.step / 10)
    more = thresholds(told.parties_needed, 0, math.ceil(0.9 * told.parties_needed))
    enough = plan(Unit.SILO, more, epsilons=(8.0,), rounds=100)
    assert forecast(enough, 10_000).run == pytest.approx(DROWNING, rel=0.1)
    assert not forecast(plan(Unit.SILO, thresholds(600, 0, 540), epsilons=(8.0,), rounds=100), 10_000).drowned
    assert forecast(few, told.dimension_needed).run <= DROWNING
    assert forecast(few, told.dimension_needed + 1).run > DROWNING
    assert not forecast(plan(epsilons=(1.0,)), 650).drowned


def test_without_noise_there_is_nothing_to_drown_in():
    told = forecast(silo(noise=0.0), 100)
    assert (told.step, told.drowned, told.dimension_needed) == (0.0, False, 100)


def test_the_number_of_probes_finds_one_missing_share_of_ten():
    assert [probes_for(parties) for parties in (1, 2, 5, 7, 8, 10, 12, 20, 100)] == [1024] * 4 + [2048] * 2 + [
        4096,
        8192,
        8192,
    ]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_a_sampled_sum_of_shares_costs_no_more_than_one_discrete_gaussian_and_its_divergence(count, rate):
    """Renyi divergences summed over the integers, both ways, where shares are so small that the divergence counts."""
    reach = np.arange(-30, 31)  # beyond, floats run out
    share = np.exp(-(reach**2) / 2.0)
    total = share / share.sum()
    for _ in range(count - 1):
        total = np.convolve(total, share / share.sum())
    moved = np.roll(total, 1)
    inside = slice(len(total) // 2 - 24, len(total) // 2 + 25)
    zero, moved = total[inside], moved[inside]
    mixed = (1 - rate) * zero + rate * moved
    tau = 10 * sum(math.exp(-2 * math.pi**2 * k / (k + 1)) for k in range(1, count))
    bound = rdp(SampledDiscreteGaussian(count, 1, rate, 1, divergence=tau))
    bare = rdp(SampledDiscreteGaussian(count, 1, rate, 1))
    for order in (2.0, 3.0, 5.0, 8.0):
        most = bound[ORDERS.index(order)]
        for one, other in ((mixed, zero), (zero, mixed)):
            logs = order * np.log(one) + (1 - order) * np.log(other)
            found = math.log(float(np.exp(logs).sum())) / (order - 1)
            assert found <= most
            assert found <= 1.01 * bare[ORDERS.index(order)] + 1e-9
