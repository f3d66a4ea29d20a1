"""Enrolment under a charter that demands attestation: no silo without a record, and the roster says which enclave."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from charters import charter, key, member, signed, written
from consortium_parties import Parties

from quire.charter.attestation import Attestation
from quire.clients.identity.rosters import read_roster
from quire.consortium.errors import ConsortiumError
from quire.consortium.index import read_index
from quire.consortium.operator import opened
from quire.privacy.identity.attested import Aggregator, Attested

CODE = "11" * 32


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    made = Parties(tmp_path)
    made.found()
    return made


def charter_of(parties: Parties) -> str:
    began = int(time.time()) - 3600
    demand = Attestation(frozenset({"silos"}), measurements=frozenset({CODE}))
    members = tuple(member(name, identity=key(name).public) for name in ("basel", "berlin", "bern"))
    found = charter(members=members, issued=began - 3600, not_before=began, attestation=demand)
    written(parties.operator.charter, signed(found))
    return found.hash


def enclave(policy: str, **changes: object) -> Attested:
    made = Attested(CODE, "22" * 32, 1, 3, "UpToDate", (), policy, int(time.time()), "ab" * 32)
    return replace(made, **changes)


def test_a_silo_is_admitted_with_the_enclave_that_the_charter_lists_and_not_without(parties: Parties) -> None:
    policy = charter_of(parties)
    asked = parties.ask("bern")
    identity = asked.identity("identity")
    now = int(time.time())

    def admit(record: Aggregator | None) -> None:
        with opened(parties.operator.root, None, now) as operator:
            operator.admit(asked, identity.fingerprint, 90, now, record)

    before = parties.operator.issued.read_bytes()
    for record, words in (
        (None, "bern has no attested enclave: verify its answer with `quire enclave record`"),
        (Aggregator(identity, enclave(policy, measurement="33" * 32)), "which is not listed"),
        (Aggregator(identity, enclave("44" * 32)), "a quote for another charter"),
        (Aggregator(identity, enclave(policy, verified=now - 91 * 86_400)), "more than 90 days ago"),
        (Aggregator(identity, enclave(policy, root="55" * 32)), "verified up to the root 5555"),
        (Aggregator(identity, enclave(policy, status="OutOfDate")), "whose state is OutOfDate"),
        (Aggregator(identity, enclave(policy, advisories=("INTEL-SA-00615",))), "INTEL-SA-00615 applies"),
        (Aggregator(key("other").public, enclave(policy)), "The enclave that was attested has the key"),
    ):
        with pytest.raises(ConsortiumError, match=words):
            admit(record)
    assert parties.operator.issued.read_bytes() == before
    admit(Aggregator(identity, enclave(policy)))
    (one,) = read_roster(parties.operator.rosters()[-1]).roster.members
    assert one.attested == enclave(policy, verified=one.attested.verified)

    later = enclave(policy, verified=now, version=4)
    with opened(parties.operator.root, None, now) as operator:
        operator.attest("bern", Aggregator(identity, later), now)
        with pytest.raises(ConsortiumError, match="has no member 'basel'"):
            operator.attest("basel", Aggregator(identity, later), now)
    assert read_roster(parties.operator.rosters()[-1]).roster.members[0].attested == later
    assert read_index(parties.operator.issued).members["bern"].attested == later


def test_without_a_demand_nothing_of_it_is_written(parties: Parties) -> None:
    parties.bring("bern")
    assert b"attested" not in parties.operator.issued.read_bytes()
    assert b"attested" not in parties.operator.rosters()[-1].read_bytes()
