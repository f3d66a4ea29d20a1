"""A card says what its events say; every field that is changed, alone or consistently, is found."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from quire.privacy.dp.calibration import calibrate
from quire.privacy.dp.card import FORMAT, STATEMENT, CardError, card, conflicts, discrepancies, figures
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import Gaussian, Geometric, NonPrivate, SampledGaussian, to_json
from quire.privacy.dp.spending import Spending

NOISE = calibrate(2.0, 1e-5, 100, 0.1)


def statement(**changes: Any) -> dict[str, Any]:
    return {
        "silo": "hospital-1",
        "unit": "record",
        "relation": "add_remove",
        "weights": "uniform",
        "clip": 1.5,
        "mechanism": "sampled_gaussian",
        "noise_multiplier": NOISE,
        "sampling_rate": 0.1,
        "steps": 100,
        "records": 303,
        "delta": 1e-5,
        "epsilon": 2.0,
        "events": [to_json(SampledGaussian(NOISE, 0.1, 60)), to_json(SampledGaussian(NOISE, 0.1, 40))],
    } | changes


def silo_statement(**changes: Any) -> dict[str, Any]:
    noise = calibrate(4.0, 1e-4, 20, 1.0)
    return statement(
        unit="silo",
        relation="zero_out",
        weights="capped",
        mechanism="gaussian",
        noise_multiplier=noise,
        sampling_rate=1.0,
        steps=20,
        records=None,
        delta=1e-4,
        epsilon=4.0,
        events=[to_json(Gaussian(noise, 20))],
    ) | dict(changes)


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return card([statement(), statement(silo="hospital-2", records=600, delta=1e-6, epsilon=2.6)])


def test_a_card_is_what_its_events_say(good: dict[str, Any]) -> None:
    first = good["silos"][0]["figures"]
    spent = Spending.of(SampledGaussian(NOISE, 0.1, 100))
    assert first["rdp"] == pytest.approx(spent.epsilon(1e-5), rel=1e-12)
    assert first["pld"] < first["rdp"] <= 2.0
    assert (first["sensitivity"], first["noise"]) == (1.5, 1.5 * NOISE)
    assert [row["delta"] for row in first["at"]] == [1e-4, 1e-5, 1e-6, 1e-7]
    assert good["worst"]["silo"] == "hospital-2"
    assert discrepancies(good) == []


def test_a_card_read_from_a_file_is_the_same_card(good: dict[str, Any]) -> None:
    assert discrepancies(json.loads(json.dumps(good, allow_nan=False))) == []


def test_a_noisy_count_is_on_no_card() -> None:
    wrong = statement(events=[to_json(Geometric(1, 100))], mechanism="geometric")
    assert "on no card" in conflicts(wrong)[0]


def test_the_silo_unit_and_no_noise_have_cards_too() -> None:
    assert discrepancies(card([silo_statement()])) == []
    bare = statement(
        mechanism="non_private",
        noise_multiplier=0.0,
        sampling_rate=1.0,
        steps=0,
        epsilon="inf",
        events=[to_json(NonPrivate())],
    )
    made = card([bare])
    assert made["worst"]["rdp"] == "inf"
    assert discrepancies(json.loads(json.dumps(made, allow_nan=False))) == []


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return value + "x"
    return 7 if value is None else value * 0.99 if isinstance(value, float) else value + 1


# Free of the events by nature: they are bound by the silo's signature, not by arithmetic.
FREE = {"silo", "records", "epsilon"}


def test_every_field_changed_alone_is_found(good: dict[str, Any]) -> None:
    tried = 0
    for path in leaves(good):
        if path[0] == "silos" and path[1] == 1:
            continue  # the same fields once more
        tampered = copy.deepcopy(good)
        node = tampered
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = changed(node[path[-1]])
        tried += 1
        if path[-1] in FREE and path[0] == "silos":
            continue
        assert discrepancies(tampered), path
    assert tried > 30


def test_a_card_changed_consistently_contradicts_its_target(good: dict[str, Any]) -> None:
    weaker = statement(noise_multiplier=0.9 * NOISE, events=[to_json(SampledGaussian(0.9 * NOISE, 0.1, 100))])
    forged = copy.deepcopy(good)
    forged["silos"][0] = {"statement": weaker, "figures": figures(weaker)}
    assert any("was promised" in text for text in discrepancies(forged))
    with pytest.raises(CardError, match="was promised"):
        card([weaker])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relation": "zero_out"}, "add_remove"),
        ({"unit": "patient"}, "patient"),
        ({"weights": "capped"}, "weighted alike"),
        ({"clip": 0.0}, "clip"),
        ({"clip": True}, "clip"),
        ({"mechanism": "laplace"}, "laplace"),
        ({"mechanism": "gaussian"}, "mechanism"),
        ({"steps": 99}, "steps"),
        ({"sampling_rate": 0.05}, "sampling_rate"),
        ({"noise_multiplier": 2 * NOISE}, "noise_multiplier"),
        ({"events": []}, "at least one event"),
        ({"events": [{"kind": "gaussian"}]}, "fields"),
        ({"delta": 0.1}, "1/303"),
        ({"records": 0}, "records"),
        ({"records": None}, "records"),
        ({"records": 303.0}, "records"),
        ({"epsilon": 1.9}, "was promised"),
        ({"silo": ""}, "names its silo"),
    ],
)
def test_a_statement_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PrivacyError, match=words):
        card([statement(**changes)])


def test_amplification_for_a_cohort_is_found() -> None:
    forged = silo_statement(mechanism="sampled_gaussian", sampling_rate=0.1, epsilon=50.0)
    forged["events"] = [to_json(SampledGaussian(forged["noise_multiplier"], 0.1, 20))]
    assert any("amplification" in text for text in conflicts(forged))


@pytest.mark.parametrize("field", STATEMENT)
def test_a_missing_field_is_named(field: str) -> None:
    short = {key: value for key, value in statement().items() if key != field}
    assert any(field in text or "silo" in text for text in conflicts(short))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "card",
        {},
        {"format": FORMAT},
        {"format": FORMAT, "silos": [], "worst": {}},
        {"format": FORMAT, "silos": [1], "worst": {}},
        {"format": FORMAT, "silos": [{"statement": 1, "figures": 2}], "worst": 3},
    ],
)
def test_what_is_no_card_is_said_to_be_none(broken: Any) -> None:
    assert discrepancies(broken)


def test_a_silo_stands_on_a_card_once() -> None:
    with pytest.raises(CardError, match="every silo once"):
        card([statement(), statement()])
    with pytest.raises(CardError, match="at least one silo"):
        card([])


def test_a_number_that_is_none_is_found(good: dict[str, Any]) -> None:
    for bad in (math.nan, math.inf, "1", None):
        tampered = copy.deepcopy(good)
        tampered["silos"][0]["statement"]["delta"] = bad
        assert discrepancies(tampered)
