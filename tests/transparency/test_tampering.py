"""Whatever is done to a log, `verify_log` finds it, offline, and says where."""

import shutil
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import SERVER, SILOS, entry, identity, opened, roster, signed_by, written

from quire.transparency.checkpoints import Note, sign
from quire.transparency.entries import Entry
from quire.transparency.errors import CheckpointError, LogError, ProofError
from quire.transparency.proofs import Proof, prove
from quire.transparency.reading import CHECKPOINTS, ENTRIES, Entries, read_notes
from quire.transparency.verify import Place, verify_log, verify_proof

KEY = SERVER.public


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return written(tmp_path_factory.mktemp("source") / "log").entries.parent


@pytest.fixture
def place(source, tmp_path):
    shutil.copytree(source, tmp_path / "log")
    return Place.of(tmp_path / "log")


def wrong(place, **options):
    return verify_log(place, KEY, roster(), SILOS, **options).wrong


def lines_of(place):
    return place.entries.read_bytes().splitlines(keepends=True)


def rewrite(place, notes):
    place.checkpoints.write_bytes(b"".join(note.encode() + b"\n" for note in notes))


def test_a_log_as_it_was_written_verifies(place):
    found = verify_log(place, KEY, roster(), SILOS)
    assert found.wrong == []
    assert (found.size, found.kinds, len(found.notes)) == (11, {"begin": 1, "cohort": 5, "model": 5}, 5)
    assert "15 countersignatures were checked" in found.remarks[1]
    alone = verify_log(place)
    assert alone.wrong == []
    assert "compare it" in alone.remarks[0]
    assert "15 countersignatures were not checked" in alone.remarks[1]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_byte_of_any_entry(place, source, data):
    content = bytearray((source / ENTRIES).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    place.entries.write_bytes(content)
    assert wrong(place)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_any_byte_of_any_checkpoint(place, source, data):
    content = bytearray((source / CHECKPOINTS).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    place.checkpoints.write_bytes(content)
    assert wrong(place)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_entries_moved_dropped_doubled_or_put_in(place, source, data):
    lines = (source / ENTRIES).read_bytes().splitlines(keepends=True)
    one, other = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True))
    kind = data.draw(st.sampled_from(["swap", "drop", "double", "put in"]))
    if kind == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == "drop":
        del lines[one]
    elif kind == "double":
        lines.insert(min(one, other), lines[one])
    else:
        lines.insert(one, entry(77).data)  # before another: behind all of them it would be a log that grew
    place.entries.write_bytes(b"".join(lines))
    assert wrong(place)


@pytest.mark.parametrize("kept", [0, 1, 5, 10])
def test_a_truncated_log(place, kept):
    place.entries.write_bytes(b"".join(lines_of(place)[:kept]))
    assert any("entries were cut off" in words or "no entries" in words for words in wrong(place))


def test_a_log_and_its_checkpoints_truncated_together_show_in_what_others_keep(place, tmp_path):
    """Nothing in a folder can tell that its end is gone; a copy, a proof or a silo's memory can."""
    full = prove(Entries(place.entries), read_notes(place.checkpoints)[0], 10)
    notes, _ = read_notes(place.checkpoints)
    place.entries.write_bytes(b"".join(lines_of(place)[:5]))
    rewrite(place, notes[:2])
    assert wrong(place) == []
    assert "for another log" in wrong(place, proofs=[full])[0]


def test_a_checkpoint_taken_out_moved_or_missing(place):
    notes, _ = read_notes(place.checkpoints)
    for kept in (notes[1:], [*notes[:2], *notes[3:]], [notes[0], notes[2], notes[1], *notes[3:]], notes[::-1]):
        rewrite(place, kept)
        assert any("does not follow the one before" in words for words in wrong(place))
    place.checkpoints.unlink()
    unsigned = "There is no checkpoint: nobody has signed this log."
    assert wrong(place) == [unsigned, "There is no checkpoint that anybody could have countersigned."]
    assert verify_log(place, KEY).wrong == [unsigned]
    assert unsigned in verify_log(place).remarks


def test_a_rewritten_history_signed_by_the_log_itself(place, tmp_path):
    """The server forges everything it has keys for: all is consistent, and no silo has signed it."""
    forged = written(tmp_path / "forged", silos=(), fork_at=2)
    assert verify_log(forged, KEY).wrong == []
    found = wrong(forged)
    assert len(found) == 5
    assert "lacks the countersignature of silo-1, silo-2, silo-3" in found[0]
    # With the silos' old signatures put on: they are over other roots.
    old, _ = read_notes(place.checkpoints)
    new, _ = read_notes(forged.checkpoints)
    rewrite(forged, [Note(two.checkpoint, (*two.marks, *one.marks[1:])) for one, two in zip(old, new, strict=True)])
    assert any("does not verify" in words for words in wrong(forged))


@pytest.mark.parametrize("change", [{"root": bytes(32)}, {"size": 4}, {"time": 5}, {"previous": "ab" * 32}])
def test_a_rewritten_checkpoint(place, change):
    notes, _ = read_notes(place.checkpoints)
    other = sign(replace(notes[1].checkpoint, **change), SERVER)
    rewrite(place, [notes[0], other.with_marks(*signed_by(other, *SILOS)), *notes[2:]])
    assert wrong(place)


def test_a_checkpoint_signed_with_another_key(place):
    notes, _ = read_notes(place.checkpoints)
    forged = sign(notes[1].checkpoint, identity("mallory"))
    rewrite(place, [notes[0], Note(forged.checkpoint, forged.marks + notes[1].marks[1:]), *notes[2:]])
    assert any("is not signed with its key" in words for words in wrong(place))
    assert any("names the key" in words for words in verify_log(place, identity("mallory").public).wrong)


def test_missing_and_strange_countersignatures(place):
    notes, _ = read_notes(place.checkpoints)
    for marks, words in [
        (notes[1].marks[:-1], "lacks the countersignature of silo-3"),
        ((*notes[1].marks, *signed_by(notes[1], "mallory")), "who is not a member"),
        ((*notes[1].marks[:-1], *signed_by(notes[0], "silo-3")), "does not verify"),
    ]:
        rewrite(place, [notes[0], Note(notes[1].checkpoint, marks), *notes[2:]])
        found = wrong(place)
        assert len(found) == 1
        assert words in found[0]
    rewrite(place, notes)
    outside = verify_log(place, KEY, roster(), SILOS[:2]).wrong
    assert len(outside) == 5
    assert "by silo-3, not of the cohort" in outside[0]
    assert verify_log(place, KEY, None, SILOS).wrong == [
        "Who countersigned cannot be told without the roster: name it with --roster."
    ]


def test_a_fork_is_found_at_the_entry_where_it_parts(place, tmp_path):
    fork = written(tmp_path / "fork", fork_at=3)
    found = wrong(place, other=fork)
    assert found == [f"{fork.entries} is another log: the two part at entry 6."]
    shorter = written(tmp_path / "shorter", rounds=2)
    assert wrong(place, other=shorter) == []
    assert any("which is 5 entries" in words for words in verify_log(place, other=shorter).remarks)


def test_a_log_that_begins_twice_or_not_at_all(tmp_path):
    with opened(tmp_path / "log") as log:
        log.append(Entry("begin", "log", 0, 1, dict(log.entry(0).body)))
    assert verify_log(Place.of(tmp_path / "log")).wrong == ["The log begins more than once."]
    lines = (tmp_path / "log" / ENTRIES).read_bytes().splitlines(keepends=True)
    (tmp_path / "log" / ENTRIES).write_bytes(entry(1).data + lines[0])
    assert "the beginning is missing" in verify_log(Place.of(tmp_path / "log")).wrong[0]
    nonsense = Entry("begin", "log", 0, 1, {"origin": "x", "identity": "00"})
    (tmp_path / "log" / ENTRIES).write_bytes(nonsense.data)
    assert "names no key" in verify_log(Place.of(tmp_path / "log")).wrong[0]
    with pytest.raises(LogError):
        Place.of(tmp_path / "nowhere")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_proofs_stand_alone_and_any_changed_byte_is_found(source, data):
    place = Place.of(source)
    notes, _ = read_notes(place.checkpoints)
    index = data.draw(st.integers(0, 10))
    proof = prove(Entries(place.entries), notes, index)
    assert Proof.decode(proof.encode()) == proof
    assert verify_proof(proof, KEY, roster(), SILOS) == []
    assert wrong(place, proofs=[proof]) == []
    content = bytearray(proof.encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((ProofError, CheckpointError)):
        verify_proof(Proof.decode(bytes(content)), KEY, roster(), SILOS)


@given(st.binary(max_size=200))
def test_no_garbage_is_a_proof(data):
    with pytest.raises(ProofError):
        Proof.decode(data)


def test_what_a_proof_does_not_show(place, tmp_path):
    notes, _ = read_notes(place.checkpoints)
    entries = Entries(place.entries)
    proof = prove(entries, notes, 3)
    with pytest.raises(CheckpointError):
        verify_proof(proof, identity("other").public)
    with pytest.raises(CheckpointError):
        verify_proof(proof, KEY, roster(), SILOS[:2])
    with pytest.raises(CheckpointError):
        verify_proof(proof, KEY, None, SILOS)
    assert len(verify_proof(proof)) == 2
    with pytest.raises(ProofError):
        verify_proof(replace(proof, entry=entry(3)), KEY)
    with pytest.raises(ProofError):
        verify_proof(replace(proof, note=notes[0]), KEY)
    bare = prove(entries, [], 3)
    assert "Nobody has signed" in verify_proof(bare)[0]
    with pytest.raises(CheckpointError):
        verify_proof(bare, KEY)
    with pytest.raises(ProofError, match="not under a checkpoint yet"):
        prove(entries, notes[:1], 5)
    with pytest.raises(ProofError, match="There is no entry"):
        prove(entries, notes, 11)
    assert "another log" in wrong(written(tmp_path / "fork", fork_at=1), proofs=[proof])[0]
