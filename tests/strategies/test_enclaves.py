"""What a server takes from silos about their enclaves, what it keeps, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fake_grid import FakeGrid, identity

from quire.clients.gate.mark import BANNER
from quire.privacy.identity.attested import YEAR_10000, Aggregator, Attested
from quire.privacy.identity.errors import RosterError
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.identity.roster import Admin, Member, Roster
from quire.strategies.cohort import enrol
from quire.strategies.enclaves import FILE, NONE, EnclavesError, banner, keep, read, sentences

A, B = "aa" * 32, "bb" * 32
RECORD = Attested(A, B, 1, 3, "UpToDate", ("INTEL-SA-00615",), B, 1_790_000_000, A)


def key(number: int):
    return PrivateIdentity.from_seed(bytes([number]) * 32).public


def roster(aggregator: bool = False) -> Roster:
    members = (Member(0, "a", key(1), attested=RECORD), Member(1, "b", key(2)), Member(2, "z", key(4), attested=RECORD))
    server = Aggregator(key(3), RECORD) if aggregator else None
    return Roster("heart", 1, members, (Admin("anna", key(9)),), 1, 3, aggregator=server)


def test_what_a_silo_says_is_one_of_two_words_or_it_is_left_out() -> None:
    answers = {1: identity("a") | {"enclave": "direct-dev"}, 2: identity("b"), 3: identity("c") | {"enclave": "cloud"}}
    said: dict[str, str] = {}
    enrolled, failed = enrol(FakeGrid(answers), 3, 2, "x", join_timeout=20, simulated=False, enclaves=said)
    assert (enrolled.names, said) == (["a", "b"], {"a": "direct-dev"})
    assert [one.words for one in failed] == ["what it says of its enclave is no word of the contract"]


def test_nothing_is_written_where_there_is_nothing_to_say(tmp_path) -> None:
    keep(tmp_path, {}, None, ["a"])
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path) is NONE
    assert sentences(NONE) == []


def test_what_is_kept_is_of_those_who_take_part_and_loose_ones_stay_loose(tmp_path) -> None:
    keep(tmp_path, {"b": "direct-dev"}, roster(True), ["a", "b"])
    found = read(tmp_path)
    assert (found.says, found.attested, found.server) == ({"b": "direct-dev"}, {"a": RECORD}, RECORD)
    keep(tmp_path, {"b": "sgx-prod", "a": "sgx-prod"}, None, ["a", "b"])  # the run went on
    assert read(tmp_path).says == {"a": "sgx-prod", "b": "direct-dev"}


def test_only_what_was_verified_is_said_as_verified(tmp_path) -> None:
    keep(tmp_path, {"b": "sgx-prod"}, roster(True), ["a", "b"])
    found = read(tmp_path)
    first, second, third = sentences(found)
    assert banner(found) is None
    assert first.startswith(f"a: its key was made in the enclave {A} (signer {B[:16]}, product 1, version 3;")
    assert first.endswith(
        "platform UpToDate, INTEL-SA-00615), as the admins of the roster verified on 2026-09-21, up to Intel's root."
    )
    assert second == "b says that it runs in an enclave, and no roster records that anybody verified it."
    assert third.startswith("The server: its key was made")
    assert third.endswith("Whether that key signed this run's log, the log itself shows.")
    keep(tmp_path, {"a": "direct-dev"}, roster(), ["a"])
    (loud,) = [text for text in sentences(read(tmp_path)) if text.startswith(BANNER)]
    assert "a ran under direct-dev" in loud
    assert not any(text.startswith("a: its key") for text in sentences(read(tmp_path)))


def test_of_a_roster_those_are_named_who_took_part() -> None:
    found = NONE.by(roster(), ["a", "b"])
    assert sorted(found.attested) == ["a"]
    assert sorted(found.by(roster(), ["a", "z"]).attested) == ["a", "z"]


def test_the_last_second_that_a_record_can_name_is_said_as_a_day(tmp_path) -> None:
    last = replace(RECORD, verified=YEAR_10000 - 1)
    members = (Member(0, "a", key(1), attested=last),)
    keep(tmp_path, {}, Roster("heart", 1, members, (Admin("anna", key(9)),), 1, 1), ["a"])
    assert "verified on 9999-12-31" in sentences(read(tmp_path))[0]
    with pytest.raises(RosterError, match="must be a time"):
        replace(RECORD, verified=YEAR_10000)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("says"),
        lambda body: body.update(format="quire-enclaves-2"),
        lambda body: body.update(says={"a": "cloud"}),
        lambda body: body.update(says=[]),
        lambda body: body["attested"]["a"].update(measurement="short"),
        lambda body: body.update(server=1),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change) -> None:
    keep(tmp_path, {"a": "sgx-prod"}, roster(), ["a"])
    body = json.loads((tmp_path / FILE).read_text())
    change(body)
    (tmp_path / FILE).write_text(json.dumps(body))
    with pytest.raises(EnclavesError, match="is not what a run writes"):
        read(tmp_path)
