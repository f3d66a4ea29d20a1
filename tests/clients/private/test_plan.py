"""What a run costs a silo: calibrated to the target, from public figures only."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.data.simulated import federation
from quire.clients.private.plan import plan_of, steps_in_round
from quire.conf.compose import compose
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.events import NonPrivate
from quire.privacy.dp.release import release_of
from quire.privacy.dp.spending import Spending

RUN = "task=breast_cancer partition=iid strategy.rounds=20 training.batch_size=16"


def plan(overrides, records=91):
    epochs = "" if "training." in overrides else "training.epochs=2"
    return plan_of(compose(f"{RUN} {epochs} {overrides}"), records)


@pytest.mark.parametrize("noise", ["discrete", "gaussian"])
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("records", [40, 91, 5000])
def test_every_silo_reaches_the_target_for_its_own_records(noise, epsilon, records):
    made = plan(f"privacy=record privacy.epsilon={epsilon} privacy.noise={noise}", records)
    assert made.steps == 2 * math.ceil(records / 16)
    assert made.rate == 16 / records
    spent = Spending.of(made.released(20)).epsilon(made.delta)
    assert 0.99 * epsilon < spent <= epsilon


def test_local_steps_are_what_is_accounted():
    few, many = (
        plan("privacy=record training.epochs=1 training.steps=1"),
        plan("privacy=record training.epochs=1 training.steps=50"),
    )
    assert (few.steps, many.steps) == (1, 50)
    assert many.noise_multiplier > few.noise_multiplier
    assert steps_in_round(compose(f"{RUN} training.epochs=3").training, 33) == 9


def test_the_default_delta_is_below_a_tenth_of_one_over_the_records():
    assert plan("privacy=record").delta == 1e-5
    assert plan("privacy=record", 10**6).delta == pytest.approx(1e-7)


def test_what_discrete_noise_is_drawn_with_costs_no_more_than_planned():
    made = plan("privacy=record")
    for dimension in (1, 31, 10**6):
        drawn = release_of(dimension, made.clip, made.noise_multiplier, "discrete").event(made.rate, 20 * made.steps)
        assert Spending.of(drawn).epsilon(made.delta) <= Spending.of(made.released(20)).epsilon(made.delta)


def test_no_noise_costs_everything():
    made = plan("privacy=record privacy.epsilon=inf")
    assert made.noise_multiplier == 0.0
    assert made.released(1) == NonPrivate()
    assert math.isinf(Spending.of(made.charged(1)).epsilon(1e-5))


def test_a_silo_unit_run_charges_records_for_twice_the_clip():
    made = plan("privacy=silo privacy.delta=1e-5 privacy.epsilon=4")
    assert made.unit is Unit.SILO
    assert Spending.of(made.released(20)).epsilon(1e-5) == pytest.approx(4.0, rel=1e-3)
    released, charged = Spending.of(made.released(20)), Spending.of(made.charged(20))
    assert charged.rdp == pytest.approx(4.0 * released.rdp)  # half the noise at the same order


def test_capped_weights_come_from_the_public_count():
    made = plan("privacy=silo privacy.delta=1e-5 privacy.weights=capped privacy.cap=200", 91)
    assert made.weight == 91 / 200
    assert plan("privacy=silo privacy.delta=1e-5 privacy.weights=capped privacy.cap=50", 91).weight == 1.0


SHARED = (
    "privacy=record_distributed aggregation=secure privacy.sampling_rate=0.2 privacy.delta=1e-7 privacy.epsilon=8 "
    "privacy.records=3000 privacy.largest=1000"  # what a server says
)


def test_as_many_rows_as_a_sum_holds_are_accepted():
    assert plan(SHARED.replace("largest=1000", "largest=163840"), 163_840).batch == 32_768
    chosen = compose(f"{RUN} privacy=record")  # as a file's rows would allow
    chosen = replace(chosen, training=replace(chosen.training, batch_size=32_768))
    assert plan_of(chosen, 10**6).batch == 32_768
    chosen = replace(chosen, training=replace(chosen.training, batch_size=32_769))
    with pytest.raises(PrivacyError, match=r"32769 expected records is more than 32768.*lower training\.batch_size"):
        plan_of(chosen, 10**6)


@given(st.integers(2, 2000), st.integers(2, 2000), st.sampled_from([0.01, 0.05, 0.2, 1.0]))
@settings(max_examples=50, deadline=None)
def test_a_silo_takes_part_where_its_batches_are_no_larger_than_the_run_expects(records, largest, rate):
    """So that sums of honest silos are within what is plausible, which goes by the run's own number."""
    text = SHARED.replace("sampling_rate=0.2", f"sampling_rate={rate}").replace("largest=1000", f"largest={largest}")
    text = text.replace("records=3000", f"records={5 * largest}").replace("delta=1e-7", "delta=1e-4")
    if math.ceil(rate * records) <= math.ceil(rate * largest):
        assert plan(text, records).batch <= math.ceil(rate * largest)
    else:
        with pytest.raises(PrivacyError, match=r"raise privacy\.largest, and privacy\.records with it"):
            plan(text, records)


@pytest.mark.parametrize("silos", [3, 5, 8, 10])
@pytest.mark.parametrize("more", ["", "data.validation_fraction=0.2", "data.test_fraction=0.33"])
def test_simulated_silos_declare_no_more_than_their_run_expects(silos, more):
    chosen = compose(
        f"task=digits partition=iid partition.silos={silos} aggregation=secure privacy=record_distributed "
        f"privacy.sampling_rate=1 {more}"
    )
    for silo in federation(chosen):
        assert plan_of(chosen, len(silo.train)).batch == len(silo.train)


@pytest.mark.parametrize(
    ("overrides", "records", "words"),
    [
        ("privacy=record", 1, "A silo of one record"),
        ("privacy=record", 15, "batch_size=16 is larger than the silo's 15 records"),
        (SHARED, 1_001, r"1001 declared records are 201 in a batch, more than the 200 .*raise privacy\.largest"),
        (SHARED, 163_841, "32769 expected records is more than 32768.*sampling_rate"),
        ("privacy=record privacy.delta=0.02", 91, "not below 1/91"),
        ("privacy=record privacy.delta=1e-17", 91, "used up by the additive terms"),
    ],
)
def test_what_cannot_be_private_is_refused_in_words(overrides, records, words):
    with pytest.raises(PrivacyError, match=words):
        plan(overrides, records)
