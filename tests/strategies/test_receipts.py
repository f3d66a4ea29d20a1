"""The server takes no receipt that is not signed by its silo, or does not say what was agreed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quire.clients.code import code_hash
from quire.conf.compose import compose
from quire.errors import DataError
from quire.privacy.dp.events import NonPrivate, SampledGaussian, to_json
from quire.privacy.receipts import Receipt
from quire.strategies.receipts import Receipts, read_server_roster
from tests.support.private_runs import OVERRIDES, SILOS, Consortium

CONSORTIUM = Consortium()
MODEL = "a" * 64


@pytest.fixture
def receipts():
    return Receipts(compose(OVERRIDES), code_hash(), CONSORTIUM.signed.roster, "7")


def objection(receipts, data, silo="hospital-1", number=1, records=SILOS):
    return receipts.objections(records, number, MODEL)(silo, data)


def test_an_honest_receipt_is_taken(receipts):
    for silo in SILOS:
        assert objection(receipts, CONSORTIUM.receipt(silo, 1, MODEL), silo) is None


def test_no_receipt_is_no_receipt(receipts):
    assert "no receipt" in objection(receipts, b"")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"round": 2}, "round is 2, not 1"),
        ({"run": "8"}, "another silo or run"),
        ({"silo": "hospital-2"}, "another silo or run"),
        ({"settings": "b" * 64}, "settings is"),
        ({"code": "b" * 64}, "code is"),
        ({"model": "b" * 64}, "model is"),
        ({"records": 151}, "other records than were declared"),
        ({"unit": "silo"}, "unit is silo, not record"),
        ({"relation": "zero_out"}, "relation is"),
        ({"weights": "capped"}, "weights is"),
        ({"clip": 2.0}, "clip is 2.0, not 1.0"),
        ({"delta": 1e-6}, "delta is"),
        ({"epsilon": 4.0}, "epsilon is 4.0, not 3.0"),
        ({"epsilon": "inf"}, "epsilon is inf"),
        ({"sampling_rate": 0.001}, "sampling_rate is"),
        ({"steps": 1}, "steps is 1"),
        ({"noise_multiplier": 9.0}, "noise_multiplier"),
    ],
)
def test_a_signed_receipt_that_says_something_else_is_not_taken(receipts, changes, words):
    assert words in objection(receipts, CONSORTIUM.receipt("hospital-1", 1, MODEL, **changes))


def test_less_noise_than_the_promise_needs_is_not_taken(receipts):
    body = Receipt.decode(CONSORTIUM.receipt("hospital-1", 1, MODEL)).body
    weak = SampledGaussian(0.6, body["sampling_rate"], body["steps"])
    data = CONSORTIUM.receipt("hospital-1", 1, MODEL, event=to_json(weak), noise_multiplier=0.6)
    assert "exceed the epsilon that was promised" in objection(receipts, data)
    data = CONSORTIUM.receipt("hospital-1", 1, MODEL, event=to_json(NonPrivate()))
    assert objection(receipts, data) is not None


def test_a_signature_counts_under_the_rosters_key_only(receipts):
    data = CONSORTIUM.receipt("hospital-2", 1, MODEL)
    assert "signed by" in objection(receipts, data, "hospital-1")
    assert "no member" in objection(receipts, data, "hospital-9", records={"hospital-9": 5})


def test_a_member_whose_time_is_over_is_not_taken(receipts):
    roster = CONSORTIUM.signed.roster
    members = tuple(replace(member, valid_to=1) for member in roster.members)
    expired = Receipts(receipts.settings, receipts.code, replace(roster, members=members), "7")
    assert "not valid now" in objection(expired, CONSORTIUM.receipt("hospital-1", 1, MODEL))


def test_without_a_roster_the_content_is_checked_all_the_same(receipts):
    unchecked = Receipts(receipts.settings, receipts.code, None, "7")
    assert objection(unchecked, CONSORTIUM.receipt("hospital-1", 1, MODEL)) is None
    assert "clip is" in objection(unchecked, CONSORTIUM.receipt("hospital-1", 1, MODEL, clip=2.0))


def test_the_servers_roster_has_to_be_signed_by_its_admins(tmp_path):
    path = tmp_path / "roster.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_server_roster(path)
    path.write_bytes(replace(CONSORTIUM.signed, signatures=()).encode())
    with pytest.raises(DataError, match="signed by 0 of its own admins"):
        read_server_roster(path)
    path.write_bytes(CONSORTIUM.signed.encode())
    assert read_server_roster(path) == CONSORTIUM.signed
