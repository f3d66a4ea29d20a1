"""Real silos that are shown a transparency log: they take it, remember it and sign it, or the round goes on without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import split_view
from flwr.app import ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from log_place import FIRST, NAMES, journalled, log_of, place_of, refused, seen, served, signers
from secure_place import RUN, SILOS, Place
from secure_silos import overrides_of, serve

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.identity import load_identity, new_identity
from quire.clients.secure.memory import InContext
from quire.clients.secure.shown import take
from quire.clients.secure.terms import terms_of
from quire.conf.compose import compose
from quire.errors import RunFailed
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.secagg import server_round
from quire.privacy.secagg.errors import LogMismatch
from quire.privacy.secagg.server_round import ServerRound
from quire.simulation.grid import _NODE_GONE, _runtime_error
from quire.strategies.log_bound import Bound
from quire.transparency import checkpoints
from quire.transparency.checkpoints import Checkpoint, sign
from quire.transparency.entries import Entry
from quire.transparency.log import Log
from quire.transparency.shown import LogName


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateIdentity:
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))
    return load_identity(tmp_path / "log.key")


# ------------------------------------------------------------------------------------------------- honest
def test_silos_take_remember_and_countersign_what_binds_the_round(tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 2)
    reports = served(place)
    notes = log_of(place).notes
    assert signers(place) == [set(NAMES), set(NAMES), set(), set()]
    assert [report.secure["checkpoint"] for report in reports] == [note.checkpoint.hash for note in notes[:2]]
    assert [seen(place, silo) for silo in NAMES] == [notes[1].checkpoint] * SILOS
    assert [report.replied for report in reports] == [NAMES] * 2


def test_another_run_and_its_log_are_another_matter(tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 1)
    (report,) = served(place)
    shutil.move(tmp_path / "run", tmp_path / "first")
    other = Place.__new__(Place)
    other.folder, other.overrides, other.files = place.folder, place.overrides, place.files
    other.grid = type(place.grid)(place.files, 8, place.overrides, tmp_path / "left")
    ((again, _),) = serve(other.grid, 8, tmp_path / "run", tmp_path / "silos" / "roster.json", place.overrides)
    assert again.replied == report.replied == NAMES
    assert len(list((place.files[FIRST].parent / "store" / "logs").iterdir())) == 2


def test_a_silo_whose_answer_was_lost_is_shown_how_the_log_goes_on(tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 3)
    deliver = place.grid._deliver

    def losing(message: Message) -> Message:
        reply, about = deliver(message), message.metadata
        lost = (about.message_type, place.grid._names[about.dst_node_id]) == (contract.SHARES, FIRST)
        return _runtime_error(message, _NODE_GONE) if lost and about.group_id in ("1", "2") else reply

    place.grid._deliver = losing  # type: ignore[method-assign]
    reports = served(place)
    assert [report.replied for report in reports] == [NAMES[1:], NAMES[1:], NAMES]
    others = set(NAMES[1:])
    assert signers(place) == [others, others, set(NAMES), set(), set()]


def test_a_silo_with_an_old_copy_of_its_memory_says_so_and_takes_part_again(
    tmp_path: Path, key: PrivateIdentity
) -> None:
    place = place_of(tmp_path, 4)
    logs, kept = place.files[FIRST].parent / "store" / "logs", tmp_path / "kept"

    def swap(message: Message, name: str) -> None:
        if (message.metadata.message_type, name) == (contract.SHARES, FIRST):
            if message.metadata.group_id == "2":
                shutil.copytree(logs, kept)  # as round 1 left it
            elif message.metadata.group_id == "3":
                shutil.rmtree(logs)
                shutil.copytree(kept, logs)
                logs.chmod(0o700)

    place.grid.swap = swap
    reports = served(place)
    assert [report.replied for report in reports] == [NAMES, NAMES, NAMES[1:], NAMES]
    assert refused(reports[2]) == {(FIRST, "log_mismatch")}
    assert signers(place)[3] == set(NAMES)


# ----------------------------------------------------------------------------------------------- what is signed
def replying(place: Place, tamper: Callable[[ConfigRecord, str], None], number: str) -> None:
    """Let silos say something else of the log beside their answers."""
    deliver = place.grid._deliver

    def lying(message: Message) -> Message:
        reply, about = deliver(message), message.metadata
        if (about.message_type, about.group_id) == (contract.SHARES, number):
            record = reply.content[contract.LOG]
            assert isinstance(record, ConfigRecord)
            tamper(record, place.grid._names[about.dst_node_id])
        return reply

    place.grid._deliver = lying  # type: ignore[method-assign]


def test_a_countersignature_of_another_checkpoint_is_that_silos_failure(tmp_path: Path, key: PrivateIdentity) -> None:
    place, first = place_of(tmp_path, 2), dict[str, Any]()

    def replayed(record: ConfigRecord, silo: str) -> None:
        if silo == FIRST:
            record[contract.COUNTERSIGNATURE] = first[silo]

    replying(place, lambda record, silo: first.update({silo: record[contract.COUNTERSIGNATURE]}), "1")
    replying(place, replayed, "2")
    reports = served(place)
    assert [report.replied for report in reports] == [NAMES, NAMES[1:]]
    assert refused(reports[1]) == {(FIRST, "bad_countersignature")}
    assert signers(place)[:2] == [set(NAMES), set(NAMES[1:])]


def test_anothers_countersignature_and_none_are_failures_too(tmp_path: Path, key: PrivateIdentity) -> None:
    place, last = place_of(tmp_path, 1, "aggregation.attempts=1"), dict[str, Any]()

    def swapped(record: ConfigRecord, silo: str) -> None:
        last.setdefault("first", record[contract.COUNTERSIGNATURE])
        if silo == NAMES[1]:
            del record[contract.COUNTERSIGNATURE]
        if silo == NAMES[2]:
            record[contract.COUNTERSIGNATURE] = last["first"]

    replying(place, swapped, "1")
    with pytest.raises(RunFailed, match="came to nothing in 1 attempt"):
        place.serve()
    (failed,) = journalled(place, "failed")
    codes = {(one["silo"], one["code"]) for one in failed["failed"]}
    assert codes >= {(NAMES[1], "no_countersignature"), (NAMES[2], "bad_countersignature")}
    assert signers(place)[0] == {FIRST}


# -------------------------------------------------------------------------------------------------- the policy
def test_a_silo_whose_operator_asks_for_a_log_takes_part_in_no_run_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of(tmp_path, 1)
    file = place.files[FIRST]
    file.write_text(file.read_text().replace("policy: {", "policy: {log: required, "))
    (report,) = served(place)
    assert report.replied == NAMES[1:]
    assert refused(report) == {(FIRST, "log_refused")}
    assert "policy.log (silo.yaml, line 5) asks for a transparency log, and this run has none" in caplog.text


@pytest.mark.parametrize("pinned", ["required", "own", "other"])
def test_a_silo_whose_operator_has_pinned_a_key_takes_that_alone(
    pinned: str, tmp_path: Path, key: PrivateIdentity
) -> None:
    place = place_of(tmp_path, 1)
    value = {"required": "required", "own": key.public.fingerprint, "other": "ab" * 32}[pinned]
    file = place.files[FIRST]
    file.write_text(file.read_text().replace("policy: {", f"policy: {{log: '{value}', "))
    (report,) = served(place)
    assert report.replied == (NAMES[1:] if pinned == "other" else NAMES)
    assert refused(report) == ({(FIRST, "log_refused")} if pinned == "other" else set())


def test_a_silo_with_a_pin_that_has_lost_its_session_is_given_a_new_one(tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 3)
    file = place.files[FIRST]
    file.write_text(file.read_text().replace("policy: {", f"policy: {{log: '{key.public.fingerprint}', "))

    def swap(message: Message, name: str) -> None:
        about = message.metadata
        if (about.message_type, about.group_id, name) == (contract.SHARES, "2", FIRST):
            with place.store(FIRST) as store:
                store.secrets.wipe_all(f"secure/run-{RUN}/state")

    place.grid.swap = swap
    reports = served(place)
    assert refused(reports[1]) == {(FIRST, "stage_order")}
    assert [report.replied for report in reports] == [NAMES, NAMES[1:], NAMES]


# ------------------------------------------------------------------------------------------------- two logs
def test_silos_that_are_shown_different_logs_have_no_sum_together(
    tmp_path: Path, key: PrivateIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server leaves out whoever it showed another log; one that does not gets shares that open to nobody."""
    changed = ((Bound, ("beside", "accept")), (ServerRound, ("_authentic", "mask_request")), (server_round, ("cover",)))
    for owner, name in ((owner, name) for owner, names in changed for name in names):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # to be put back
    split_view.lie()
    place = place_of(tmp_path, 1, "aggregation.attempts=1")
    with pytest.raises(RunFailed, match="came to nothing in 1 attempt"):
        place.serve()
    (failed,) = journalled(place, "failed")
    (attempt,) = failed["secure"]["attempts"]
    assert (attempt["u2"], attempt["u3"]) == (NAMES, [])
    blamed = {(note["silo"], note["error"]) for note in attempt["blame"] if note["refused"]}
    assert blamed == {(silo, "BadShareCiphertext") for silo in NAMES}


# ---------------------------------------------------------------------------------------------- whatever comes
LOG = PrivateIdentity.from_seed(b"log".ljust(32))
NAME = LogName("run/x", LOG.public.fingerprint)
VALUES = st.one_of(st.binary(max_size=80), st.integers(-1, 99), st.lists(st.integers(-9, 9)), st.lists(st.binary()))
KEYS = st.sampled_from((contract.CHECKPOINT, contract.LOG_KEY, contract.SIZES, contract.PATHS, "x"))


@given(st.dictionaries(KEYS, VALUES), st.booleans())
def test_whatever_is_shown_is_taken_or_refused_in_words(record: dict[str, Any], genuine: bool) -> None:
    memory = InContext(RecordDict())
    known = sign(Checkpoint("run/x", 3, sha256(b"3").digest(), 1), LOG)
    memory.see(known, LOG.public, ())
    base = {contract.CHECKPOINT: known.encode(), contract.LOG_KEY: LOG.public.encode()} if genuine else {}
    message: Any = type("Told", (), {"content": RecordDict({contract.LOG: ConfigRecord({**base, **record})})})()
    try:
        found = take(message, memory, NAME)
    except (Refusal, LogMismatch):
        found = known.checkpoint
    assert found == known.checkpoint
    assert memory.seen("run/x") == 3


def test_a_silo_verifies_what_it_remembers_and_what_it_is_shown_and_neither_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, counted = InContext(RecordDict()), []
    verify = checkpoints.verify
    monkeypatch.setattr(checkpoints, "verify", lambda *told: (counted.append(told), verify(*told)))
    with Log.open(tmp_path / "log", NAME.origin, LOG, 1) as log:
        for number, expected in ((1, 1), (2, 2), (3, 2)):
            before = log.size
            log.append(Entry("model", "x", number, 1, {"model": "ab" * 32}))
            note, path = log.checkpoint(1), b"".join(log.consistency(before))
            record = {contract.CHECKPOINT: note.encode(), contract.LOG_KEY: LOG.public.encode()}
            record |= {contract.SIZES: [before], contract.PATHS: [path]}
            message: Any = type("Told", (), {"content": RecordDict({contract.LOG: ConfigRecord(record)})})()
            counted.clear()
            assert take(message, memory, NAME) == note.checkpoint
            assert len(counted) == expected


def test_the_log_is_part_of_what_every_silo_signs() -> None:
    settings = compose(overrides_of(SILOS, 1))
    logs = None, NAME, LogName("run/y", NAME.key), LogName("run/x", "ab" * 32)
    said = [terms_of(settings, settings.aggregation, 3, log).application for log in logs]  # type: ignore[arg-type]
    assert len(set(said)) == 4
    assert [LogName.agreed(application) for application in said] == [*logs]


@given(st.binary(max_size=60) | st.sampled_from((b"[]", b'{"log":1}', b'{"log":{"origin":1,"key":"x"}}', b"[" * 9999)))
def test_a_configuration_that_names_no_log_names_none(application: bytes) -> None:
    assert LogName.agreed(application) is None
