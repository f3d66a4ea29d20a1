"""The log on the disk: what is acknowledged stays, what is torn goes, one process writes at a time."""

import math
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import ORIGIN, SERVER, entry, identity, opened, roster, signed_by

from quire.transparency import checkpoints, merkle
from quire.transparency.checkpoints import Mark
from quire.transparency.entries import Entry
from quire.transparency.errors import CheckpointError, LogBusy, LogDamaged, LogError, ProofError
from quire.transparency.log import Log
from quire.transparency.reading import CHECKPOINTS, ENTRIES, Entries, read_notes


def leaves(folder):
    return (folder / ENTRIES).read_bytes().splitlines(keepends=True)


def test_a_log_begins_with_its_name_and_key(tmp_path):
    with opened(tmp_path / "log") as log:
        assert log.size == 1
        begin = log.entry(0)
    assert begin.body == {"origin": ORIGIN, "identity": SERVER.public.encode().hex()}
    with opened(tmp_path / "log") as log:
        assert log.size == 1
    with pytest.raises(LogError, match="another name or key"):
        opened(tmp_path / "log", identity("other"))
    with pytest.raises(LogError, match="another name or key"):
        Log.open(tmp_path / "log", "heart/run-8", SERVER, 1)


@pytest.mark.parametrize("name", ["", "A", "a b", "/a", "x" * 129, "a\n"])
def test_a_name_that_is_none_makes_no_log(tmp_path, name):
    with pytest.raises(LogError, match="cannot name a log"):
        Log.open(tmp_path / "log", name, SERVER, 1)
    assert not (tmp_path / "log").exists()


def test_entries_are_the_leaves_in_order(tmp_path):
    with opened(tmp_path / "log") as log:
        assert log.append(entry(1), entry(2)) == 1
        assert log.append(entry(3)) == 3
        assert log.append() == 4
        root, size = log.root(), log.size
        assert [log.entry(number).data for number in range(size)] == leaves(tmp_path / "log")
    hashes = merkle.leaf_hashes(leaves(tmp_path / "log"))
    left, right = merkle.parents(hashes)
    assert root == merkle.node_hash(left, right)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(batches=st.lists(st.integers(0, 300), max_size=6), data=st.data())
def test_proofs_hold_whatever_the_batches_and_after_opening_anew(tmp_path, batches, data):
    folder = tmp_path / "log"
    shutil.rmtree(folder, ignore_errors=True)
    roots = {}
    with opened(folder) as log:
        for batch in batches:
            roots[log.size] = log.root()
            log.append(*(entry(log.size + number) for number in range(batch)))
        roots[log.size] = log.root()
    with opened(folder) as log:
        lines, size = leaves(folder), log.size
        assert size == 1 + sum(batches) == len(lines)
        for old, root in roots.items():
            merkle.verify_consistency(old, root, size, log.root(), log.consistency(old))
            index = data.draw(st.integers(0, old - 1))
            path = log.inclusion(index, old)
            assert len(path) <= math.ceil(math.log2(old))
            merkle.verify_inclusion(merkle.leaf_hash(lines[index]), index, old, path, root)
            assert log.entry(index).data == lines[index]
    found = Entries(folder / ENTRIES, sorted(roots), forms=True)
    assert found.roots == roots


def test_what_is_not_there_is_not_shown(tmp_path):
    with opened(tmp_path / "log") as log:
        for number in (1, 5, -1):
            with pytest.raises(LogError):
                log.entry(number)
            with pytest.raises(ProofError):
                log.inclusion(number)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_a_torn_tail_is_cut_and_nothing_before_it(tmp_path, data):
    folder = tmp_path / "log"
    shutil.rmtree(folder, ignore_errors=True)
    with opened(folder) as log:
        log.append(entry(1), entry(2))
        log.checkpoint(1)
        log.append(entry(3))
    whole, notes = (folder / ENTRIES).read_bytes(), (folder / CHECKPOINTS).read_bytes()
    torn = data.draw(st.sampled_from([entry(4).data, b"\0" * 4096])) * data.draw(st.integers(1, 2))
    torn = torn.replace(b"\n", b"")[: data.draw(st.integers(1, 400))]
    (folder / ENTRIES).write_bytes(whole + torn)
    (folder / CHECKPOINTS).write_bytes(notes + notes[: data.draw(st.integers(0, len(notes) - 1))])
    assert Entries(folder / ENTRIES).torn == len(torn)
    with opened(folder) as log:
        assert (log.size, len(log.notes)) == (4, 1)
        assert (folder / ENTRIES).read_bytes() == whole
        assert (folder / CHECKPOINTS).read_bytes() == notes
        log.append(entry(4))
    assert leaves(folder)[-1] == entry(4).data


def test_an_entry_under_a_checkpoint_is_never_taken_for_a_torn_one(tmp_path):
    folder = tmp_path / "log"
    with opened(folder) as log:
        log.append(entry(1))
        log.checkpoint(1)
    os.truncate(folder / ENTRIES, (folder / ENTRIES).stat().st_size - 1)
    before = (folder / ENTRIES).read_bytes()
    with pytest.raises(LogDamaged, match="not the log of its own checkpoint at 2 entries"):
        opened(folder)
    assert (folder / ENTRIES).read_bytes() == before


def test_a_changed_log_is_not_written_to(tmp_path):
    folder = tmp_path / "log"
    with opened(folder) as log:
        log.append(entry(1), entry(2))
        log.checkpoint(1)
    data = bytearray((folder / ENTRIES).read_bytes())
    data[-20] ^= 1
    (folder / ENTRIES).write_bytes(data)
    with pytest.raises(LogDamaged):
        opened(folder)
    (folder / CHECKPOINTS).write_bytes(b"x\n\nx\n\n")
    with pytest.raises(LogDamaged, match=r"checkpoints\.txt"):
        opened(folder)


def test_one_process_writes(tmp_path):
    with opened(tmp_path / "log"):
        with pytest.raises(LogBusy):
            opened(tmp_path / "log")
        child = os.fork()
        if not child:
            try:
                opened(tmp_path / "log")
            except LogBusy:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    opened(tmp_path / "log").close()


def test_a_line_without_end_is_no_log_and_takes_no_memory(tmp_path):
    path = tmp_path / ENTRIES
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(LogDamaged, match="no log"):
        Entries(path)


def test_what_cannot_be_written_is_not_acknowledged(tmp_path):
    """A full disk: the batch is taken back as a whole, and the log goes on once there is room."""
    import resource
    import signal

    folder = tmp_path / "log"
    with opened(folder) as log:
        log.append(entry(1))
        size = (folder / ENTRIES).stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
            with pytest.raises(LogError, match="cannot be written"):
                log.append(entry(2), entry(3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert (log.size, (folder / ENTRIES).stat().st_size) == (2, size)
        log.append(entry(2))
        log.checkpoint(1)
    assert leaves(folder)[1:] == [entry(1).data, entry(2).data]
    opened(folder).close()


def test_checkpoints_follow_one_another(tmp_path):
    with opened(tmp_path / "log") as log:
        first = log.checkpoint(50)
        assert log.checkpoint(60) is first
        log.append(entry(1))
        second = log.checkpoint(40).checkpoint
        assert (second.size, second.time, second.previous) == (2, 50, first.checkpoint.hash)
        assert second.root == log.root()
    assert read_notes(tmp_path / "log" / CHECKPOINTS)[0] == log.notes


def test_countersignatures_are_checked_and_kept(tmp_path):
    folder = tmp_path / "log"
    with opened(folder) as log:
        with pytest.raises(CheckpointError, match="no checkpoint yet"):
            log.add_countersignatures([], roster())
        note = log.checkpoint(1)
        with pytest.raises(CheckpointError):
            log.add_countersignatures(signed_by(note, "silo-1", "mallory"), roster())
        assert log.notes == [note]
        log.add_countersignatures(signed_by(note, "silo-1"), roster())
        size = (folder / CHECKPOINTS).stat().st_size
        log.add_countersignatures(signed_by(note, "silo-1"), roster())
        assert (folder / CHECKPOINTS).stat().st_size == size
        log.add_countersignatures(signed_by(note, "silo-2"), roster())
    with opened(folder) as log:
        assert [mark.name for mark in log.notes[0].marks] == [ORIGIN, "silo-1", "silo-2"]
        log.append(Entry("checkpoint", "run-7", 1, 5, {"size": 1, "checkpoint": note.checkpoint.hash, "silos": []}))


def test_a_countersignature_that_was_checked_is_verified_once_and_for_its_checkpoint(tmp_path, monkeypatch):
    counted = []
    verify = checkpoints.verify
    monkeypatch.setattr(checkpoints, "verify", lambda *told: (counted.append(told), verify(*told)))
    with opened(tmp_path / "log") as log:
        with pytest.raises(CheckpointError, match="no checkpoint yet"):
            log.check_countersignature(Mark("silo-1", b""), roster())
        note = log.checkpoint(1)
        (mark,) = signed_by(note, "silo-1")
        log.check_countersignature(mark, roster())
        log.check_countersignature(mark, roster())
        with pytest.raises(CheckpointError, match="does not verify"):
            log.check_countersignature(Mark("silo-1", mark.blob[:-1] + bytes([mark.blob[-1] ^ 1])), roster())
        assert len(counted) == 2
        log.add_countersignatures([mark, *signed_by(note, "silo-2")], roster())
        assert len(counted) == 3  # that of the second silo, which nobody had checked
        log.append(entry(1))
        log.checkpoint(2)
        with pytest.raises(CheckpointError, match="does not verify"):
            log.check_countersignature(mark, roster())
        with pytest.raises(CheckpointError):
            log.add_countersignatures([Mark(ORIGIN, b"x" * 70)], roster())
    assert len(log.notes[-1].marks) == 1


def test_checkpoints_are_found_by_their_size(tmp_path):
    with opened(tmp_path / "log") as log:
        assert log.at(0) is None
        for number in range(1, 6):
            log.append(entry(number), entry(number + 50))
            log.checkpoint(number)
        assert [log.at(size) for size in range(13)] == [
            next((at for at, note in enumerate(log.notes) if note.checkpoint.size == size), None) for size in range(13)
        ]


def test_what_another_key_has_signed_is_not_gone_on_with(tmp_path):
    with opened(tmp_path / "own") as log:
        log.append(entry(0))
        log.checkpoint(1)
    with opened(tmp_path / "other", identity("somebody")) as log:
        log.append(entry(0))
        log.checkpoint(1)
    (tmp_path / "own" / CHECKPOINTS).write_bytes((tmp_path / "other" / CHECKPOINTS).read_bytes())
    (tmp_path / "own" / ENTRIES).write_bytes((tmp_path / "other" / ENTRIES).read_bytes())
    with pytest.raises(LogError):
        opened(tmp_path / "own")


def test_counts_go_as_far_as_those_of_receipts():
    fields = {"silo": "silo-1", "entries": 2**53 - 1, "head": "0" * 64}
    assert Entry("ledger_head", "run-7", 1, 1000, fields).body == fields
