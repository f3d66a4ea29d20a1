"""What a charter demands of enclaves: its one spelling, its words, what it lets in; and that older charters stay."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from charters import ISSUED, amended, charter, key, signed
from hypothesis import given, settings
from hypothesis import strategies as some

from quire.charter.attestation import Attestation
from quire.charter.document import from_json, to_json
from quire.charter.drafts import read_draft
from quire.charter.errors import CharterError
from quire.charter.signed import SignedCharter
from quire.charter.words import changes, described
from quire.errors import DataError
from quire.privacy.identity.attested import Aggregator, Attested
from quire.privacy.identity.errors import IdentityError, RosterError
from quire.privacy.identity.roster import Admin, Member, Roster
from quire.privacy.identity.roster import from_json as roster_from_json
from quire.privacy.identity.roster import to_json as roster_to_json

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32
DEMAND = Attestation(frozenset({"silos"}), frozenset({A}), frozenset({(B, C)}), frozenset({(C, 1, 3)}))
RECORD = Attested(A, B, 1, 3, "UpToDate", ("INTEL-SA-00615",), C, ISSUED, B)
#: As charters and rosters were before they knew of enclaves.
CHARTER_HASH = "210aca68101f78be83a3db3d913a0ea603614d13ebe62393a0b682bff7dc4c42"
ROSTER_HASH = "7da8668d43e3c06dc39a789ee75527dc87c884568f2ecf024d0c206d83214a9c"


def roster(**changes: object) -> Roster:
    member = Member(0, "bern", key("bern").public, valid_from=ISSUED)
    told = {"members": (member,), "admins": (Admin("anna", key("anna").public),), "quorum": 1, "next_index": 1}
    return Roster("heart", 1, **{**told, **changes})


def said(read):
    """Return what was read, or the one sentence of ours with which it was refused."""
    try:
        return read()
    except (CharterError, IdentityError) as error:
        return str(error)


def test_what_demands_and_records_nothing_is_spelled_as_ever() -> None:
    assert charter().hash == CHARTER_HASH
    assert roster().hash == ROSTER_HASH
    for body in (charter().body, roster().body):
        assert b"attest" not in body
        assert b"aggregator" not in body


def test_a_charter_with_a_demand_is_read_as_it_was_written() -> None:
    made = charter(attestation=DEMAND)
    again = SignedCharter.decode(signed(made).encode()).charter
    assert (again, again.hash) == (made, made.hash)
    assert made.hash != charter().hash


def test_a_roster_with_records_is_read_as_it_was_written() -> None:
    member = replace(roster().members[0], attested=RECORD)
    made = roster(members=(member,), aggregator=Aggregator(key("server").public, RECORD))
    again = roster_from_json(json.loads(made.body))
    assert (again, again.hash) == (made, made.hash)
    assert made.hash != roster().hash


@settings(max_examples=60, deadline=None)
@given(
    some.sampled_from(sorted(DEMAND.to_json())),
    some.one_of(
        some.none(), some.text(max_size=3), some.integers(-1, 4000), some.lists(some.text(max_size=2), max_size=2)
    ),
)
def test_a_demand_of_any_other_form_is_refused_in_a_sentence(name, value) -> None:
    body = to_json(charter(attestation=DEMAND))
    body["attestation"][name] = value
    told = said(lambda: to_json(from_json(body)))
    assert told == body or str(told).endswith(".")


@settings(max_examples=60, deadline=None)
@given(
    some.sampled_from(sorted(RECORD.to_json())),
    some.one_of(some.none(), some.text(max_size=3), some.integers(-1, 2**41), some.lists(some.integers(), max_size=2)),
)
def test_a_record_of_any_other_form_is_refused_in_a_sentence(name, value) -> None:
    body = roster_to_json(roster(members=(replace(roster().members[0], attested=RECORD),)))
    body["members"][0]["attested"][name] = value
    told = said(lambda: roster_to_json(roster_from_json(body)))
    assert told == body or str(told).endswith(".")


@pytest.mark.parametrize(
    ("changes_", "words"),
    [
        ({"of": frozenset()}, "of silos, of server"),
        ({"of": frozenset({"clients"})}, "of silos, of server"),
        ({"measurements": frozenset(), "signed": frozenset(), "signers": frozenset()}, "lets in nothing"),
        ({"measurements": frozenset({"AA" * 32})}, "64 hexadecimal digits"),
        ({"signers": frozenset({(A, 1, 2**16)})}, "below 65536"),
        ({"statuses": frozenset()}, "one status or more"),
        ({"advisories": frozenset({"SA-1"})}, "INTEL-SA-00615"),
        ({"days": 0}, "from 1 to 3650"),
        ({"root": "mine"}, "'intel' or the hash"),
    ],
)
def test_contradictions_are_refused(changes_, words) -> None:
    with pytest.raises(CharterError, match=words):
        replace(DEMAND, **changes_)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (None, "has no attested enclave"),
        (replace(RECORD, advisories=()), None),
        (replace(RECORD, advisories=(), measurement=B, signer=C, version=0), None),
        (replace(RECORD, advisories=(), measurement=B), "which is not listed"),
        (replace(RECORD, advisories=(), measurement=C, signer=C), None),
        (replace(RECORD, advisories=(), measurement=C, signer=C, version=2), "which is not listed"),
        (replace(RECORD, advisories=(), measurement=C, signer=C, product=2), "which is not listed"),
        (RECORD, "INTEL-SA-00615 applies"),
        (replace(RECORD, status="Revoked"), "whose state is Revoked"),
        (replace(RECORD, root=B), "up to the root bbbb"),
        (replace(RECORD, policy=A), "another charter"),
        (replace(RECORD, verified=ISSUED - 91 * 86_400), "more than 90 days ago"),
        (replace(RECORD, verified=ISSUED + 3601), "at a time that is still to come"),
        (replace(RECORD, advisories=(), verified=ISSUED + 3600), None),
    ],
)
def test_a_record_is_let_in_by_measurement_or_signer_and_state(record, words) -> None:
    found = DEMAND.objection(record, C, ISSUED)
    assert found is None if words is None else words in found


@pytest.mark.parametrize("who", ["bern", "anna"])
def test_the_key_of_an_attested_server_is_nobody_elses(who) -> None:
    with pytest.raises(RosterError, match="which a member or an admin has as well"):
        roster(aggregator=Aggregator(key(who).public, RECORD))
    assert roster(aggregator=Aggregator(key("server").public, RECORD)).aggregator is not None


def test_an_amendment_says_what_it_demands_otherwise() -> None:
    old = charter()
    words = [(one.effect, one.words) for one in changes(old, amended(old, attestation=DEMAND))]
    assert ("stricter", "attestation is demanded of every silo") in words
    back = [(one.effect, one.words) for one in changes(amended(old, attestation=DEMAND), old)]
    assert ("looser", "attestation is no longer demanded of every silo") in back
    other = replace(
        DEMAND,
        **{"of": frozenset({"silos", "server"}), "measurements": frozenset({A, C}), "days": 30},
        **{"signers": frozenset(), "statuses": frozenset({"UpToDate", "OutOfDate"})},
    )
    more = [(o.effect, o.words) for o in changes(charter(attestation=DEMAND), amended(old, attestation=other))]
    assert ("stricter", "attestation is demanded of the server") in more
    assert ("looser", f"the enclave {C} is admitted") in more
    assert ("stricter", f"the signer {C}, product 1, version 3 or later is no longer admitted") in more
    assert ("looser", "a platform in the state OutOfDate is admitted") in more
    assert ("stricter", "days for which an attestation counts: 30 instead of 90") in more
    text = "\n".join(described(charter(attestation=DEMAND)))
    assert "Attestation: of silos, verified within 90 days, up to the root intel" in text
    assert f"enclave {A}" in text


DRAFT = """charter: heart
version: 1
purpose: Research.
members:
  basel: {{fingerprint: "{basel}", epsilon: 4.0, delta: 1.0e-5}}
  bern: {{fingerprint: "{bern}", epsilon: 4.0, delta: 1.0e-5}}
signatures: {{this_version: 2, amendments: 2}}
tasks: [tabular]
code: any
privacy: [record]
aggregation: [secure]
min_cohort: 2
colluders: 0
approval: none
attestation: {attestation}
not_before: 2030-01-01
not_after: 2030-12-31
exit: {{kept: a, destroyed: b, use: c}}
"""


def drafted(tmp_path, attestation):
    keys = {one.fingerprint: one for one in (key("basel").public, key("bern").public)}
    prints = {name: key(name).public.fingerprint for name in ("basel", "bern")}
    (tmp_path / "charter.yaml").write_text(DRAFT.format(attestation=attestation, **prints))
    return read_draft(tmp_path / "charter.yaml", ISSUED, keys).attestation


def test_people_write_a_demand_and_mistakes_are_said_with_their_place(tmp_path) -> None:
    text = f'{{of: [silos], measurements: ["{A}"], signed_measurements: [{{measurement: "{B}", signer: "{C}"}}]'
    text += f', signers: [{{signer: "{C}", product: 1, version: 3}}]}}'
    assert drafted(tmp_path, text) == DEMAND
    for wrong, words in (
        ("[]", "attestation"),
        ("{of: [silos], measurements: [short]}", "64 hexadecimal"),
        ("{of: [everybody], measurements: []}", "'attestation' is of"),
        (f'{{of: [silos], signers: [{{signer: "{A}", product: 1}}]}}', "version"),
        (f'{{of: [silos], measurements: ["{A}"], days: 0}}', "days"),
        (f'{{of: [silos], measurement: ["{A}"]}}', "measurement"),
    ):
        with pytest.raises((DataError, CharterError), match=words):
            drafted(tmp_path, wrong)
