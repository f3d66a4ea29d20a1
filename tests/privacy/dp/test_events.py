"""Contracts and events: what is derived, what is refused, what is written down and read again."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.dp.contract import Contract, PrivacyError, Relation, Unit, Weights, capped_weight
from quire.privacy.dp.events import (
    DiscreteGaussian,
    Event,
    EventError,
    Gaussian,
    Geometric,
    NonPrivate,
    SampledDiscreteGaussian,
    SampledGaussian,
    from_json,
    to_json,
)

noises = st.floats(1e-3, 1e4)
rates = st.floats(1e-6, 1.0)
counts = st.integers(1, 10**6)
exact = st.one_of(st.integers(1, 10**40), st.fractions(min_value=Fraction(1, 10**6), max_value=10**6))
small = st.floats(0.0, 0.5)
events = st.one_of(
    st.just(NonPrivate()),
    st.builds(Gaussian, noises, counts),
    st.builds(SampledGaussian, noises, rates, counts),
    st.builds(DiscreteGaussian, exact, exact, counts, small, small),
    st.builds(SampledDiscreteGaussian, exact, exact, rates, counts, small, small),
    st.builds(Geometric, st.fractions(Fraction(1, 10**6), 1000), counts),
)


@given(events)
def test_an_event_survives_being_written_and_read(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


@given(exact, exact)
def test_the_noise_multiplier_of_integers_is_rounded_down(sigma: Fraction | int, delta: Fraction | int) -> None:
    found = DiscreteGaussian(sigma, delta).noise_multiplier
    ratio = Fraction(sigma) / Fraction(delta)
    assert Fraction(found) ** 2 <= ratio < Fraction(found) ** 2 * (1 + Fraction(1, 10**15))


GOOD = to_json(SampledDiscreteGaussian(4096, Fraction(5, 2), 0.05, 100, 1e-16, 0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "laplace"},
        {"kind": ["gaussian"]},
        {"sigma_squared": 4096},
        {"sigma_squared": "04096"},
        {"sigma_squared": "4096.0"},
        {"sigma_squared": "0"},
        {"sigma_squared": "-1"},
        {"sigma_squared": "٣"},
        {"delta2_squared": "10/4"},
        {"delta2_squared": "5/0"},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.01},
        {"sampling_rate": True},
        {"sampling_rate": "0.05"},
        {"steps": 0},
        {"steps": 1.0},
        {"steps": True},
        {"steps": 10**13},
        {"failure": -1e-9},
        {"failure": math.nan},
        {"divergence": math.inf},
        {"more": 1},
    ],
)
def test_a_malformed_event_is_refused_in_a_sentence(change: dict[str, object]) -> None:
    with pytest.raises(EventError, match=r"\.$"):
        from_json({**GOOD, **change})


@pytest.mark.parametrize("field", sorted(set(GOOD) - {"kind"}))
def test_a_missing_field_is_never_guessed(field: str) -> None:
    with pytest.raises(EventError, match=field):
        from_json({key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan, True])
def test_no_noise_is_not_a_gaussian(bad: float) -> None:
    with pytest.raises(EventError, match="NonPrivate"):
        Gaussian(bad)


def test_an_inexact_parameter_of_discrete_noise_is_refused() -> None:
    with pytest.raises(EventError, match="exact"):
        DiscreteGaussian(4.5, 2)  # type: ignore[arg-type]


def test_sensitivities_follow_from_clip_and_weights() -> None:
    record = Contract.of(Unit.RECORD, 1.5)
    assert (record.relation, record.sensitivity) == (Relation.ADD_REMOVE, 1.5)
    assert record.sensitivity_of_mean(0.05 * 200) == pytest.approx(0.15)
    assert record.noise(2.0) == 3.0
    assert record.noise(2.0, 10) == pytest.approx(0.3)
    capped = Contract.of(Unit.SILO, 2.0, Weights.CAPPED)
    assert (capped.relation, capped.sensitivity) == (Relation.ZERO_OUT, 2.0)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(-5, 5)), min_size=2, max_size=8), st.integers(1, 400))
def test_no_silo_moves_a_capped_sum_by_more_than_the_sensitivity(silos: list[tuple[int, float]], cap: int) -> None:
    contract = Contract.of(Unit.SILO, 1.25, Weights.CAPPED)
    terms = [capped_weight(records, cap) * max(-1.25, min(1.25, update)) for records, update in silos]
    for left_out in range(len(terms)):
        assert abs(sum(terms) - sum(terms[:left_out] + terms[left_out + 1 :])) <= contract.sensitivity + 1e-12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((Unit.RECORD, Relation.ZERO_OUT, 1.0), "add_remove"),
        ((Unit.SILO, Relation.ADD_REMOVE, 1.0), "zero_out"),
        ((Unit.RECORD, Relation.ADD_REMOVE, 0.0), "clip"),
        ((Unit.RECORD, Relation.ADD_REMOVE, math.inf), "clip"),
        ((Unit.RECORD, Relation.ADD_REMOVE, math.nan), "clip"),
        ((Unit.RECORD, Relation.ADD_REMOVE, 1.0, Weights.CAPPED), "example weights"),
    ],
)
def test_a_combination_without_a_derivation_is_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(PrivacyError, match=words):
        Contract(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("denominator", [0.0, -1.0, math.nan, math.inf])
def test_a_denominator_is_a_public_number_above_zero(denominator: float) -> None:
    with pytest.raises(PrivacyError, match="denominator"):
        Contract.of(Unit.RECORD, 1.0).sensitivity_of_mean(denominator)


@pytest.mark.parametrize(("records", "cap"), [(0, 10), (10, 0)])
def test_a_capped_weight_needs_records_and_a_cap(records: int, cap: int) -> None:
    with pytest.raises(PrivacyError, match="cap"):
        capped_weight(records, cap)
