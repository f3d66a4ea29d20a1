"""Receipts: one spelling, nothing left out, and nothing changed without its signature failing."""

from __future__ import annotations

import copy
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.dp.events import DiscreteGaussian, Gaussian, NonPrivate, SampledDiscreteGaussian, SampledGaussian
from quire.privacy.dp.spending import Spending
from quire.privacy.receipts import (
    FORMAT,
    SHARED,
    SHARED_FORMAT,
    Receipt,
    ReceiptError,
    canonical,
    merged,
    repeated,
    settings_hash,
    simulated_identity,
    simulated_roster,
    statement,
)
from tests.support.private_runs import SILOS, Consortium, changed, leaves, put

CONSORTIUM = Consortium()
DATA = CONSORTIUM.receipt("hospital-1", 1, "a" * 64)
PUBLIC = CONSORTIUM.keys["hospital-1"].public


def test_a_receipt_comes_back_as_it_was_signed():
    receipt = Receipt.decode(DATA)
    assert receipt.encode() == DATA
    assert receipt.body["silo"] == "hospital-1"
    receipt.check(PUBLIC)
    with pytest.raises(ReceiptError, match="signed by"):
        receipt.check(CONSORTIUM.keys["hospital-2"].public)


def test_no_leaf_of_it_changes_without_notice():
    document = json.loads(DATA)
    for path, value in leaves(document):
        forged = copy.deepcopy(document)
        put(forged, path, changed(value))
        with pytest.raises(ReceiptError):
            Receipt.decode(canonical(forged)).check(PUBLIC)


@pytest.mark.parametrize("key", json.loads(DATA)["body"])
def test_no_field_may_be_missing(key):
    document = json.loads(DATA)
    del document["body"][key]
    with pytest.raises(ReceiptError, match="missing or unknown fields"):
        Receipt.decode(canonical(document))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("clip", 1, "written as a float"),
        ("clip", -1.0, "at least 0"),
        ("round", 0, "at least 1"),
        ("round", True, "whole number"),
        ("records", 2.0, "whole number"),
        ("guarded", 1, "true or false"),
        ("silo", "hospital-\u00e9", "printable ASCII"),
        ("model", "A" * 64, "is a hash"),
        ("event", {"kind": "magic"}, "Unknown kind"),
        ("broken_gradients", 3, "is private"),
        ("ledger", None, "where its ledger stands"),
        ("simulated", True, "no run, no population and no ledger"),
    ],
)
def test_a_field_of_another_type_is_refused_in_words(key, value, words):
    body = {**json.loads(DATA)["body"], key: value}
    with pytest.raises(ReceiptError, match=words):
        Receipt.sign(body, CONSORTIUM.keys["hospital-1"])


@pytest.mark.parametrize(
    "spelt",
    [
        DATA + b"\n",
        DATA.replace(b":", b": ", 1),
        DATA.replace(b'"clip":1.0', b'"clip":1.00'),
        DATA.replace(b'"clip":1.0', b'"clip":1e0'),
        DATA.replace(b'"clip":1.0', b'"clip":NaN'),
        DATA.replace(b'"clip":1.0', b'"clip":1.0,"clip":1.0'),
        DATA.replace(b'"hospital-1"', b'"\\u0068ospital-1"'),
        b"[" * 50_000,
        b"0" * 70_000,
        b"",
    ],
)
def test_there_is_one_spelling(spelt):
    assert spelt != DATA
    with pytest.raises(ReceiptError):
        Receipt.decode(spelt)


@given(st.binary(max_size=300))
def test_bytes_that_are_none_are_refused_and_never_crash(data):
    with pytest.raises(ReceiptError):
        Receipt.decode(data)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_noticed(place, bits):
    data = bytearray(DATA)
    data[place] ^= bits
    with pytest.raises(ReceiptError):
        Receipt.decode(bytes(data)).check(PUBLIC)


EVENTS = [
    NonPrivate(),
    Gaussian(2.0, 3),
    SampledGaussian(1.5, 0.1, 4),
    DiscreteGaussian(Fraction(9, 4), 1, 2, failure=2**-50, divergence=1e-9),
    SampledDiscreteGaussian(Fraction(4), 1, 0.2, 5, failure=2**-55),
]


@settings(deadline=None)  # the first call imports the library
@given(st.lists(st.sampled_from(EVENTS), min_size=1, max_size=12))
def test_events_joined_cost_what_they_cost_apart(events):
    joined = merged(events)
    assert len(joined) == len(set(map(type, events)))
    apart, together = Spending.of(*events), Spending.of(*joined)
    np.testing.assert_allclose(together.rdp, apart.rdp, rtol=1e-12)
    assert math.isclose(together.delta, apart.delta, rel_tol=1e-12)


@pytest.mark.parametrize("event", EVENTS)
@given(times=st.integers(1, 50))
def test_an_event_repeated_is_that_event_so_many_times(event, times):
    assert [repeated(event, times)] == merged([event] * times)


def test_a_statement_adds_rounds_up():
    receipts = [Receipt.decode(CONSORTIUM.receipt("hospital-1", number, "a" * 64)) for number in (1, 2, 3)]
    whole = statement(receipts)
    assert whole["steps"] == 3 * receipts[0].body["steps"]
    assert len(whole["events"]) == 1


def test_the_hash_of_settings_leaves_out_what_the_launcher_keeps_for_itself():
    tree = {"seed": 1, "output": {"report": True}, "tracking": {"name": "none"}, "overrides": "seed=1"}
    assert settings_hash(tree) == settings_hash({"seed": 1})
    assert settings_hash(tree) != settings_hash({**tree, "seed": 2})


def test_a_simulated_silo_signs_with_the_key_that_the_simulations_roster_has():
    roster = simulated_roster(3, list(SILOS))
    for silo in SILOS:
        assert roster.member(silo).identity == simulated_identity(3, silo).public
    assert simulated_identity(4, "hospital-1").public != simulated_identity(3, "hospital-1").public


# ------------------------------------------------------------------------------------- where silos share the noise
def shared(**changes):
    body = json.loads(DATA)["body"]
    numbers = {"format": SHARED_FORMAT, "members": 5, "colluders": 1, "min_survivors": 4}
    return {**body, **numbers, **changes}


def test_a_receipt_of_shared_noise_has_three_numbers_more_and_no_other_receipt_has_them():
    identity = CONSORTIUM.keys["hospital-1"]
    receipt = Receipt.sign(shared(), identity)
    assert Receipt.decode(receipt.encode()) == receipt
    assert json.loads(DATA)["body"]["format"] == FORMAT
    for key in SHARED:
        with pytest.raises(ReceiptError, match=f"missing or unknown fields: {key}"):
            Receipt.sign({name: value for name, value in shared().items() if name != key}, identity)
        with pytest.raises(ReceiptError, match=f"missing or unknown fields: {key}"):
            Receipt.sign({**json.loads(DATA)["body"], key: 1}, identity)
        for wrong in (-1, 1.0, "5", None, True):
            with pytest.raises(ReceiptError, match=f"A receipt's {key} is a whole number"):
                Receipt.sign(shared(**{key: wrong}), identity)
    with pytest.raises(ReceiptError, match="of the format"):
        Receipt.sign({**json.loads(DATA)["body"], "format": "quire-receipt-3"}, identity)
