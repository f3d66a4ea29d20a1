"""`quire verify` and what operators have approved: held against the log, the roster, and the run."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from private_runs import OVERRIDES, SILOS, Consortium, write_run

from quire.clients.code import code_hash
from quire.conf.compose import compose
from quire.privacy.approval import APPROVED, REJECTED, Binding, Statement
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import settings_hash
from quire.simulation.verify import verify_run
from quire.simulation.verify_approvals import check_approvals
from quire.strategies.approvals import APPROVALS_FILE, Approvals
from quire.strategies.folder import read_about
from quire.transparency.entries import Entry
from quire.transparency.errors import LogError
from quire.transparency.log import Log, origin_of
from quire.transparency.reading import Entries
from quire.transparency.verify import Place, verify_log

CONSORTIUM = Consortium()
KEY = PrivateIdentity.from_seed(b"log".ljust(32))
SETTINGS = settings_hash(compose(OVERRIDES).as_dict())
ROSTER = CONSORTIUM.signed.roster


def statement(silo, decision=APPROVED, run="7", key=None, time=100, **changes):
    told = {"code": code_hash(), "settings": SETTINGS, "roster": ROSTER.hash, **changes}
    return Statement.sign(Binding(run, **told), silo, decision, time, None, key or CONSORTIUM.keys[silo])


def approvals():
    found = Approvals("7", code_hash(), SETTINGS, roster=ROSTER)
    for silo in SILOS:
        found.take(silo, statement(silo).encode(), APPROVED)
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", CONSORTIUM, log_key=KEY, approvals=approvals())


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture(scope="module")
def unlogged(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", CONSORTIUM, approvals=approvals())


def lines(run):
    return (run / APPROVALS_FILE).read_bytes().splitlines(keepends=True)


def put(run, *statements):
    (run / APPROVALS_FILE).write_bytes(b"".join(one.encode() + b"\n" for one in statements))


def wrong(run):
    return verify_run(run).wrong


def test_an_approved_run_verifies_with_and_without_a_log(original, unlogged):
    for folder in (original, unlogged):
        found = verify_run(folder)
        assert found.wrong == []
        assert "Approvals: 3 statements, signed by their silos." in found.notes
    assert len(lines(original)) == 3


def test_an_approval_that_was_not_logged_is_found(tmp_path):
    """The server puts a statement into the folder of a run whose log says nothing of it."""
    folder = write_run(tmp_path / "run", CONSORTIUM, log_key=KEY)
    put(folder, statement("hospital-2"))
    assert wrong(folder) == ["In approvals.jsonl: that hospital-2 has approved run 7 is not in the log."]


def test_an_approval_that_was_taken_away_is_found(run):
    (run / APPROVALS_FILE).write_bytes(b"".join(lines(run)[1:]))
    (only,) = wrong(run)
    assert only.startswith("The log says that hospital-1 has approved run 7 (")
    assert only.endswith("), and approvals.jsonl does not: its statement was taken away, or changed.")
    (run / APPROVALS_FILE).unlink()
    assert len(wrong(run)) == 3


def test_a_rejection_in_the_place_of_an_approval_is_found(run):
    put(run, statement("hospital-1", REJECTED), *(statement(silo) for silo in list(SILOS)[1:]))
    assert "In approvals.jsonl: that hospital-1 has rejected run 7 is not in the log." in wrong(run)


def test_an_approval_of_another_run_is_found_whatever_it_is_about(run, unlogged, tmp_path):
    genuine = [Statement.decode(line[:-1]) for line in lines(run)]
    for change, words in (
        ({"run": "8"}, "is not in the log"),
        ({"settings": "ab" * 32}, "is about a run with other settings"),
        ({"code": "ab" * 32}, "is about a run of other code than run.json names"),
        ({"roster": "ab" * 32}, "is about a run under another roster"),
    ):
        other = statement("hospital-3", **change)
        put(run, *genuine[:2], other)
        where = f"In approvals.jsonl: that hospital-3 has approved run {change.get('run', 7)} {words}."
        assert where in wrong(run)
    # Without a log nobody can tell whether the run was gone on with: a reader is told.
    bare = shutil.copytree(unlogged, tmp_path / "bare")
    put(bare, *genuine, statement("hospital-3", run="8"))
    found = verify_run(bare)
    assert found.wrong == []
    assert any("has decisions about run 8, and there is no log" in words for words in found.notes)
    put(bare, *genuine, statement("hospital-3", settings="ab" * 32))
    assert any("with other settings" in words for words in wrong(bare))


def test_a_signature_that_is_not_the_silo_s_is_found(run, unlogged, tmp_path):
    genuine = [Statement.decode(line[:-1]) for line in lines(run)]
    bare = shutil.copytree(unlogged, tmp_path / "bare")
    forged = Statement(genuine[0].body, genuine[1].signature, genuine[0].signer)
    for folder in (run, bare):
        put(folder, forged, *genuine[1:])
        assert wrong(folder) == [
            "In approvals.jsonl: that hospital-1 has approved run 7 does not hold: its signature does not verify: "
            "it was changed after it was signed."
        ]
        put(folder, statement("hospital-1", key=CONSORTIUM.keys["hospital-2"]), *genuine[1:])
        assert any("does not hold: it is signed by " in words for words in wrong(folder))
    put(bare, *genuine, statement("mallory", key=KEY))
    assert any(
        words.startswith("In approvals.jsonl: that mallory has approved run 7 does not") for words in wrong(bare)
    )


def test_two_decisions_of_one_silo_about_one_run_are_found(run):
    with (run / APPROVALS_FILE).open("ab") as file:
        file.write(statement("hospital-1", time=101).encode() + b"\n")
    assert wrong(run) == ["approvals.jsonl has more than one decision of hospital-1 about run 7."]


def test_what_the_server_had_logged_before_it_was_killed_is_no_finding(run):
    """The log comes first: a run without a round that ended in between has an entry and no statement."""
    place = Place.of(run)
    notes = verify_log(place).notes
    entries = [entry for _, entry in Entries(place.entries).each()]
    origin = origin_of(run / "log")
    shutil.rmtree(run / "log")
    with Log.open(run / "log", origin, KEY, 1) as log:
        killed = next(entry for entry in entries if entry.kind == "approval")
        log.append(type(killed)(killed.kind, "6", 0, killed.time, {**killed.body, "what": "cd" * 32}))
        log.append(*entries[1:])
        log.checkpoint(notes[-1].checkpoint.time)
    found = verify_run(run)
    assert found.wrong == []
    assert any(words.endswith("the server stopped before that run had a round.") for words in found.notes)


def test_nor_is_it_after_two_crashes_in_a_row(original):
    """Run 6 logged what run 5's last round had left, then its approvals, and was killed before it had a round."""
    entries = [entry for _, entry in Entries(Place.of(original).entries).each()]
    approval, session = (next(one for one in entries if one.kind == kind) for kind in ("approval", "session"))
    left = [one for one in entries if one.round == 1]
    assert {"cohort", "journal", "model"} <= {one.kind for one in left}

    def of_run_6(*them):
        return [Entry(one.kind, "6", one.round, one.time, one.body) for one in them]

    undecided = Entry("approval", "6", 0, approval.time, {**approval.body, "what": "cd" * 32})
    before = [*of_run_6(*left, session), *of_run_6(*(one for one in left if one.kind == "journal")), undecided]
    about, told = read_about(original), compose(OVERRIDES)
    wrong, notes = check_approvals(original, about, told, ROSTER, [*before, *entries])
    assert wrong == []
    assert any(words.endswith("the server stopped before that run had a round.") for words in notes)
    # With a round of its own behind them, its approvals should be there.
    wrong, _ = check_approvals(original, about, told, ROSTER, [*before, *of_run_6(*left), *entries])
    assert [words.rpartition(": ")[2] for words in wrong] == ["its statement was taken away, or changed."]


@pytest.fixture(scope="module")
def said(original):
    """Say what is wrong with a file of statements in the folder of the run."""
    entries = [entry for _, entry in Entries(Place.of(original).entries).each()]
    about, told = read_about(original), compose(OVERRIDES)

    def wrong(folder, data):
        (folder / APPROVALS_FILE).write_bytes(data)
        return check_approvals(folder, about, told, ROSTER, entries)[0]

    assert wrong(original, (original / APPROVALS_FILE).read_bytes()) == []
    return wrong


ONCE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(data=st.data())
@ONCE
def test_any_changed_byte_is_found(original, said, tmp_path, data):
    whole = bytearray((original / APPROVALS_FILE).read_bytes())
    at = data.draw(st.integers(0, len(whole) - 2))  # the last line feed ends the file, and says nothing
    whole[at] ^= data.draw(st.integers(1, 255))
    assert said(tmp_path, bytes(whole))


@given(garbage=st.binary(max_size=300) | st.just(b"[" * 20_000) | st.just(json.dumps({"body": 1}).encode()))
@ONCE
def test_whatever_lies_there_is_said_in_words(said, tmp_path, garbage):
    assert len(said(tmp_path, garbage)) >= 3


def test_with_a_damaged_log_the_statements_are_still_checked(run):
    entries = Place.of(run).entries
    entries.write_bytes(entries.read_bytes().replace(b'"approved"', b'"rejected"', 1))
    put(run, statement("hospital-1", key=KEY))
    found = wrong(run)
    assert any(words.startswith("The log: ") for words in found)
    assert any("hospital-1 has approved run 7 does not hold" in words for words in found)
    with pytest.raises(LogError):
        Log.open(run / "log", origin_of(run / "log"), KEY, 1)
