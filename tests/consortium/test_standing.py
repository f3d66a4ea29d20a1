"""How a folder stands: who is in, what ends when, what is amiss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from consortium_parties import NOW, Parties

from quire.clients.identity import read_roster
from quire.consortium.certificates import DAY
from quire.consortium.errors import ConsortiumError
from quire.consortium.standing import ENDING, EXPIRED, GOOD, WAITING, WRONG, Item, standing

CERTIFICATE, MEMBER = ("certificate", "hospital-1"), ("member", "hospital-1")


def items(root: Path, now: int) -> dict[tuple[str, str], Item]:
    return {(item.what, item.name): item for item in standing(root, now).items}


def test_the_standing_warns_in_time_and_fails_when_it_is_late(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    parties.invite("hospital-2")
    for days, state in ((0, GOOD), (75, GOOD), (77, ENDING), (89, ENDING), (91, EXPIRED)):
        now = NOW + days * DAY
        for root, key in (
            (silo.root, ("certificate", "hospital-1")),
            (parties.operator.root, ("member", "hospital-1")),
        ):
            assert items(root, now)[key].state == state, (days, key)
            assert standing(root, now).failing is (state == EXPIRED)
    operator = parties.operator.root
    assert items(operator, NOW)["invitation", "hospital-2"].state == WAITING
    assert "anew" in items(operator, NOW + 31 * DAY)["invitation", "hospital-2"].words
    assert items(operator, NOW + 352 * DAY)["server", "127.0.0.1"].state == ENDING
    assert items(operator, NOW + 3500 * DAY)["authority", "heart"].state == ENDING
    assert items(operator, NOW - DAY)["authority", "heart"].state == WRONG


def test_the_standing_of_a_silo_that_waits(parties: Parties) -> None:
    parties.ask("hospital-1")
    found = standing(parties.silo("hospital-1").root, NOW)
    assert not found.failing
    assert [item.state for item in found.items] == [GOOD, GOOD, GOOD, WAITING]


def test_the_last_member_that_is_revoked_stays_in_the_roster_until_another_comes(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    parties.revoke("hospital-1")
    found = standing(parties.operator.root, NOW)
    assert not found.failing
    assert [item.name for item in found.items if item.what == "member"] == ["hospital-1"]
    assert standing(silo.root, NOW).version == 1
    parties.bring("hospital-2")
    assert [one.name for one in read_roster(parties.operator.roster_version(2)).roster.members] == ["hospital-2"]
    assert [one.name for one in standing(parties.operator.root, NOW).items if one.what == "member"] == ["hospital-2"]


def test_what_is_amiss_at_a_silo_is_said(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    other = parties.bring("hospital-2")
    silo.client_key.write_bytes(other.client_key.read_bytes())
    silo.crl.write_bytes(b"x")
    silo.roster_version(1).write_bytes(silo.roster_version(1).read_bytes().replace(b"silo", b"solo"))
    found = standing(silo.root, NOW)
    wrong = " ".join(item.words for item in found.items if item.state == WRONG)
    assert found.failing
    for word in ("client.key", "crl.pem", "roster-1.json"):
        assert word in wrong


def test_the_standing_as_json(parties: Parties) -> None:
    parties.bring("hospital-1")
    found = json.loads(standing(parties.operator.root, NOW).to_json())
    assert found["folder"] == "operator"
    assert found["version"] == 1
    assert found["failing"] is False
    member = next(item for item in found["items"] if item["what"] == "member")
    assert member["until"] == NOW + 90 * DAY
    assert len(member["fingerprint"]) == 64


def test_a_folder_that_is_neither_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConsortiumError, match="is not a silo's folder"):
        standing(tmp_path, NOW)
