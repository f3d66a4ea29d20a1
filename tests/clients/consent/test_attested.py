"""Attestations of erasure: what they say of runs and of clean models, and what keeps a silo from signing one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from consenting import CONSENT, PLAIN, Consenting

from quire.clients.data.consent import place
from quire.clients.data.consent.attest import attest, check_attestation, read_attestation
from quire.clients.data.consent.requests import record, requests_of
from quire.clients.identity import load_identity, new_identity
from quire.errors import DataError


@pytest.fixture
def silo(tmp_path: Path) -> Consenting:
    return Consenting(tmp_path)


def trained(silo: Consenting) -> list[str]:
    return silo.load().sifted.train_ids


def test_an_attestation_says_what_was_done_and_names_nobody(silo: Consenting) -> None:
    one = trained(silo)[0]
    assert silo.train(1) == "ANSWERED"
    request, _ = record(silo.place, one, "patient")
    assert silo.train(2) == "ANSWERED"
    identity, out = load_identity(silo.folder / "silo.key"), silo.folder / "attestation.json"
    made = attest(silo.place, request, "clinic-1", "rows deleted", identity, out)
    assert read_attestation(out) == made
    check_attestation(made, identity.public)
    assert made.body["rounds"] == 1
    assert [(run["run"], run["first"], run["last"], run["clean"]) for run in made.body["runs"]] == [("5", 1, 1, None)]
    assert "not a proof" in made.body["statement"]
    told = out.read_bytes()
    assert request.subject.hex().encode() not in told
    assert set(made.body) & {"came", "trained", "left_out", "subject"} == set()
    assert requests_of(silo.place)[request.id].attested
    with pytest.raises(DataError, match="exists already"):
        attest(silo.place, request, "clinic-1", None, identity, out)


def test_nothing_is_attested_against_the_silos_own_record(silo: Consenting) -> None:
    """Somebody took the section out for a while, so that the requests were not looked at."""
    one = trained(silo)[0]
    request, _ = record(silo.place, one, "patient")
    book = silo.store / "consent" / "erasures.jsonl"
    kept = book.read_bytes()
    book.write_bytes(b"")
    assert silo.train(1) == "ANSWERED"
    book.write_bytes(kept)
    identity = load_identity(silo.folder / "silo.key")
    with pytest.raises(DataError, match="round 1 of run 5 trained on the subject after request"):
        attest(silo.place, request, "clinic-1", None, identity, silo.folder / "a.json")
    assert not (silo.folder / "a.json").exists()


def test_a_clock_that_was_set_back_hides_no_round(silo: Consenting, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came after a request is told by the lineage's lines, not by what the clock said."""
    one = trained(silo)[0]
    assert silo.train(1) == "ANSWERED"
    request, _ = record(silo.place, one, "patient")
    monkeypatch.setattr(place, "now", lambda: "2001-01-01T00:00:00.000000+00:00")
    assert silo.train(2) == "ANSWERED"
    identity = load_identity(silo.folder / "silo.key")
    made = attest(silo.place, request, "clinic-1", None, identity, silo.folder / "a.json")
    assert made.body["rounds"] == 1
    lineage = silo.store / "consent" / "lineage.jsonl"
    lineage.write_bytes(b"")
    with pytest.raises(DataError, match=r"has 0 lines, and when request .* was recorded it had 1"):
        attest(silo.place, request, "clinic-1", None, identity, silo.folder / "b.json")


def test_what_cannot_be_said_is_not_said_and_what_else_is_wrong_keeps_its_words(silo: Consenting) -> None:
    request, _ = record(silo.place, "p3", "patient")
    identity, out = load_identity(silo.folder / "silo.key"), silo.folder / "a.json"
    with pytest.raises(DataError, match="--say takes one line"):
        attest(silo.place, request, "clinic-1", "two\nlines", identity, out)
    with pytest.raises(DataError, match="cannot be attested: An attestation of an erasure says"):
        attest(silo.place, request, "a name\n", "rows deleted", identity, out)
    assert not out.exists()


def test_another_key_or_another_word_does_not_verify(silo: Consenting) -> None:
    request, _ = record(silo.place, "p1", "patient")
    identity, out = load_identity(silo.folder / "silo.key"), silo.folder / "a.json"
    attest(silo.place, request, "clinic-1", None, identity, out)
    other = new_identity(silo.folder / "other.key")
    with pytest.raises(DataError, match="does not hold: it is signed by"):
        check_attestation(read_attestation(out), other)
    out.write_bytes(out.read_bytes().replace(b'"rounds":0', b'"rounds":9'))
    with pytest.raises(DataError, match="does not hold: its signature does not verify"):
        check_attestation(read_attestation(out), identity.public)
    out.write_bytes(json.dumps(json.loads(out.read_bytes()), indent=1).encode())
    with pytest.raises(DataError, match="no attestation of an erasure"):
        read_attestation(out)


@pytest.mark.parametrize(
    ("history", "clean"),
    [
        ([(5, 1, "unnoted"), (5, 2, "unnoted"), (5, 3, "in")], None),
        ([(5, 1, "unnoted"), (5, 2, "out"), (5, 3, "in")], None),
        ([(5, 1, "unnoted"), (5, 2, "unnoted"), (6, 3, "in")], None),
        ([(5, 1, "out"), (5, 2, "out"), (6, 3, "in")], None),
        ([(5, 1, "out"), (5, 3, "in")], None),
        ([(5, 1, "out"), (5, 2, "out"), (5, 3, "in")], 2),
    ],
)
def test_no_state_is_called_clean_if_a_round_before_it_was_not_noted(
    silo: Consenting, history: list[tuple[int, int, str]], clean: int | None
) -> None:
    """Of rounds before the silo's file had the section there is no lineage: who was in them nobody can tell."""
    one = trained(silo)[0]
    for run, number, how in history:
        if run != silo.run:
            silo.run, silo.state = run, type(silo.state)()
        silo.write("" if how == "unnoted" else CONSENT, **PLAIN)
        silo.withdraw(*([one] if how == "out" else []))
        assert silo.train(number) == "ANSWERED"
    request, _ = record(silo.place, one, "patient")
    identity, out = load_identity(silo.folder / "silo.key"), silo.folder / "a.json"
    made = attest(silo.place, request, "clinic-1", None, identity, out)
    assert [(run["first"], run["clean"]) for run in made.body["runs"]] == [(3, clean)]
