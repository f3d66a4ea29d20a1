"""Checkpoints as notes: their form, the log's signature, the silos' countersignatures."""

import base64
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import ORIGIN, SERVER, SILOS, identity, roster, signed_by

from quire.transparency.checkpoints import (
    Checkpoint,
    Mark,
    Note,
    check_countersigned,
    check_signed,
    countersign,
    countersigners,
    sign,
)
from quire.transparency.errors import CheckpointError
from quire.transparency.merkle import EMPTY

ONE = Checkpoint(ORIGIN, 42, bytes(range(32)), 1763757962, "ab" * 32)
NOTE = sign(ONE, SERVER)
FULL = NOTE.with_marks(*signed_by(NOTE, *SILOS))


def checked(data):
    note = Note.decode(data)
    check_signed(note, SERVER.public)
    check_countersigned(note, roster(), SILOS)


def test_a_note_has_the_lines_of_a_c2sp_checkpoint():
    lines = FULL.encode().decode().split("\n")
    assert lines[:3] == [ORIGIN, "42", base64.b64encode(bytes(range(32))).decode()]
    assert lines[3:6] == ["time 1763757962", f"previous {'ab' * 32}", ""]
    assert [line.split(" ")[:2] for line in lines[6:-1]] == [["\u2014", name] for name in (ORIGIN, *SILOS)]
    # signed-note: four bytes of SHA-256(name || LF || type || key), here with the type left to others and its name.
    key = sha256(ORIGIN.encode() + b"\n\xffquire/log/checkpoint/1\n" + SERVER.public.encode()).digest()[:4]
    assert base64.b64decode(lines[6].split(" ")[2])[:4] == key
    assert Note.decode(FULL.encode()) == FULL


def test_the_log_and_its_silos_signed():
    check_signed(FULL, SERVER.public)
    assert countersigners(FULL, roster()) == dict.fromkeys(SILOS, 2000)
    check_countersigned(FULL, roster(), SILOS)
    assert countersigners(NOTE, roster()) == {}


def test_post_quantum_keys_sign_with_both():
    server, silo = identity("pq", True), identity("silo-1", True)
    note = sign(ONE, server)
    note = note.with_marks(countersign(ONE, "silo-1", silo, 2000))
    note = Note.decode(note.encode())
    check_signed(note, server.public)
    check_countersigned(note, roster(("silo-1",), True), ["silo-1"])
    with pytest.raises(CheckpointError):
        check_signed(note, identity("pq").public)
    with pytest.raises(CheckpointError):
        countersigners(note, roster(("silo-1",)))


@given(st.data())
def test_any_changed_byte_of_a_note_is_found(data):
    encoded = bytearray(FULL.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointError):
        checked(bytes(encoded))


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_no_garbage_is_a_note(data):
    with pytest.raises(CheckpointError):
        Note.decode(data)


@pytest.mark.parametrize(
    "text",
    [
        FULL.encode()[:-1],
        FULL.encode() + b"\n",
        FULL.encode().replace(b"\n42\n", b"\n042\n"),
        FULL.encode().replace(b"\n42\n", b"\n-42\n"),
        FULL.encode().replace(b"time ", b"time  "),
        FULL.encode().replace(b"\n", b"\r\n"),
        f"{ONE.text}\n".encode(),
        NOTE.encode() * 2,
        (ONE.text + "\n" + f"{NOTE.marks[0].text}\n" * 10_000).encode(),
    ],
)
def test_another_form_is_refused(text):
    with pytest.raises(CheckpointError):
        Note.decode(text)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "heart/run-8"},
        {"size": 41},
        {"root": bytes(32)},
        {"time": 1763757963},
        {"previous": "cd" * 32},
    ],
)
def test_signatures_of_one_checkpoint_are_none_of_another(change):
    other = replace(ONE, **change)
    assert other.hash != ONE.hash
    marks = tuple(replace(mark, name=other.origin) if mark.name == ORIGIN else mark for mark in FULL.marks)
    note = Note(other, marks)
    with pytest.raises(CheckpointError):
        check_signed(note, SERVER.public)
    with pytest.raises(CheckpointError):
        countersigners(note, roster())


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "Heart"},
        {"origin": "a b"},
        {"origin": ""},
        {"size": -1},
        {"size": 0},
        {"root": bytes(31)},
        {"time": -1},
        {"previous": "x"},
    ],
)
def test_what_cannot_be_a_checkpoint_is_not_made(fields):
    with pytest.raises(CheckpointError):
        replace(ONE, **fields)
    Checkpoint(ORIGIN, 0, EMPTY, 0)


def test_who_is_missing_is_named():
    note = NOTE.with_marks(*signed_by(NOTE, "silo-1", "silo-3"))
    with pytest.raises(CheckpointError, match="lacks the countersignature of silo-2"):
        check_countersigned(note, roster(), SILOS)


def test_who_is_not_of_the_cohort_is_named():
    with pytest.raises(CheckpointError, match="by silo-3, not of the cohort"):
        check_countersigned(FULL, roster(), SILOS[:2])


def test_who_is_no_member_is_named():
    note = NOTE.with_marks(*signed_by(NOTE, "mallory"))
    with pytest.raises(CheckpointError, match="'mallory', who is not a member"):
        countersigners(note, roster())


def test_one_silo_does_not_sign_for_another():
    forged = countersign(ONE, "silo-2", identity("silo-1"), 2000)
    with pytest.raises(CheckpointError, match="with another key"):
        countersigners(NOTE.with_marks(forged), roster())
    moved = Mark("silo-2", signed_by(NOTE, "silo-1")[0].blob)
    with pytest.raises(CheckpointError, match="with another key"):
        countersigners(NOTE.with_marks(moved), roster())


def test_a_countersignature_counts_once_and_at_its_time():
    twice = NOTE.with_marks(*signed_by(NOTE, "silo-1"), *signed_by(NOTE, "silo-1", time=2001))
    with pytest.raises(CheckpointError, match="twice"):
        countersigners(twice, roster())
    with pytest.raises(CheckpointError, match="when its key was not valid"):
        countersigners(FULL, roster(valid_to=2000))
    mark = signed_by(NOTE, "silo-1")[0]
    later = Mark(mark.name, mark.blob[:4] + (2001).to_bytes(8, "big") + mark.blob[12:])
    with pytest.raises(CheckpointError, match="does not verify"):
        countersigners(NOTE.with_marks(later), roster())


def test_a_silo_s_signature_is_not_the_log_s():
    note = Note(ONE, (Mark(ORIGIN, countersign(ONE, ORIGIN, SERVER, 2000).blob),))
    with pytest.raises(CheckpointError):
        check_signed(note, SERVER.public)
    with pytest.raises(CheckpointError):
        check_signed(NOTE, identity("other").public)
    with pytest.raises(CheckpointError):
        check_signed(Note(ONE, (*NOTE.marks, Mark(ORIGIN, b"x" * 70))), SERVER.public)


# --------------------------------------------------------------------------- what was verified is not verified again
def test_what_was_verified_before_holds_for_that_checkpoint_signature_and_key_alone():
    verified = set()
    assert countersigners(FULL, roster(), verified) == dict.fromkeys(SILOS, 2000)
    assert len(verified) == 3
    mark = FULL.marks[1]
    spoilt = Mark(mark.name, mark.blob[:-1] + bytes([mark.blob[-1] ^ 1]))
    members = list(roster().members)
    members[0] = replace(members[0], identity=identity("another").public)
    for note, known in (
        (Note(replace(ONE, size=43), FULL.marks), roster()),
        (Note(ONE, (NOTE.marks[0], spoilt)), roster()),
        (FULL, replace(roster(), members=tuple(members))),
        (FULL, roster(valid_to=2000)),
        (FULL, roster(SILOS[:2])),
    ):
        with pytest.raises(CheckpointError):
            countersigners(note, known, verified)
    assert len(verified) == 3


def test_what_does_not_verify_is_not_remembered():
    verified = set()
    mark = FULL.marks[1]
    spoilt = Note(ONE, (NOTE.marks[0], Mark(mark.name, mark.blob[:-1] + bytes([mark.blob[-1] ^ 1]))))
    for _ in range(2):
        with pytest.raises(CheckpointError, match="does not verify"):
            countersigners(spoilt, roster(), verified)
    assert verified == set()
