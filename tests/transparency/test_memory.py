"""A silo's memory: it goes on with the log that it has seen, and with no other."""

import pytest
from logs import SERVER, entry, identity, opened

from quire.clients.store.errors import StoreError
from quire.transparency.checkpoints import Checkpoint, Note, sign
from quire.transparency.errors import CheckpointError, LogDamaged, SplitView
from quire.transparency.memory import Memory

KEY = SERVER.public


@pytest.fixture
def log(tmp_path):
    with opened(tmp_path / "log") as log:
        for number in range(1, 6):
            log.append(entry(number))
            log.checkpoint(number)
        yield log


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path / "seen")


def size(memory, log):
    return memory.last(log.origin)[0].checkpoint.size


def proof(log, old, new):
    return log.consistency(log.notes[old].checkpoint.size, log.notes[new].checkpoint.size)


def test_a_silo_goes_on_with_a_log_that_grows(memory, log, tmp_path):
    assert memory.last(log.origin) is None
    memory.accept(log.notes[0], KEY)
    memory.accept(log.notes[1], KEY, proof(log, 0, 1))
    memory.accept(log.notes[1], KEY)
    memory.accept(log.notes[4], KEY, proof(log, 1, 4))
    assert Memory(tmp_path / "seen").last(log.origin) == (log.notes[4], KEY)


def test_of_several_proofs_that_from_where_it_stands_is_taken(memory, log, tmp_path):
    memory.accept(log.notes[1], KEY, {})
    paths = {log.notes[at].checkpoint.size: proof(log, at, 4) for at in range(4)}
    swapped = {**paths, log.notes[1].checkpoint.size: paths[log.notes[2].checkpoint.size]}
    for wrong in ({}, swapped, {size: path for size, path in paths.items() if size != log.notes[1].checkpoint.size}):
        with pytest.raises(SplitView, match="not shown to go on"):
            memory.accept(log.notes[4], KEY, wrong)
    memory.accept(log.notes[4], KEY, paths)
    memory.accept(log.notes[4], KEY, paths)
    assert size(memory, log) == log.notes[4].checkpoint.size


def test_a_log_that_was_rolled_back_is_refused(memory, log):
    memory.accept(log.notes[3], KEY)
    for path in ([], proof(log, 1, 3)):
        with pytest.raises(SplitView, match="rolled back"):
            memory.accept(log.notes[1], KEY, path)
    assert size(memory, log) == 5


def test_a_forked_log_is_refused_even_with_a_proof_of_its_own(memory, log, tmp_path):
    memory.accept(log.notes[2], KEY)
    with opened(tmp_path / "fork") as fork:
        fork.append(entry(1), entry(99))
        fork.append(*(entry(number) for number in range(3, 9)))
        note = fork.checkpoint(9)
        for path in (fork.consistency(4), [], proof(log, 2, 4)):
            with pytest.raises(SplitView, match="forked"):
                memory.accept(note, KEY, path)
    same_size = sign(Checkpoint(log.origin, 4, bytes(32), 9, "0" * 64), SERVER)
    with pytest.raises(SplitView, match="forked"):
        memory.accept(same_size, KEY)
    assert size(memory, log) == 4
    memory.accept(log.notes[4], KEY, proof(log, 2, 4))


def test_a_checkpoint_that_nobody_signed_is_refused(memory, log):
    stranger = identity("mallory")
    with pytest.raises(CheckpointError):
        memory.accept(Note(log.notes[0].checkpoint, ()), KEY)
    with pytest.raises(CheckpointError):
        memory.accept(sign(log.notes[0].checkpoint, stranger), KEY)
    memory.accept(log.notes[0], KEY)
    with pytest.raises(SplitView, match="signed with the key"):
        memory.accept(sign(log.notes[1].checkpoint, stranger), stranger.public, proof(log, 0, 1))


def test_logs_are_remembered_apart(memory, log):
    other = sign(Checkpoint("heart/run-8", 3, bytes(32), 9, "0" * 64), SERVER)
    memory.accept(log.notes[4], KEY)
    memory.accept(other, KEY)
    assert (size(memory, log), memory.last("heart/run-8")[0]) == (6, other)


def test_a_changed_memory_is_told(memory, log, tmp_path):
    memory.accept(log.notes[4], KEY)
    [path] = (tmp_path / "seen").iterdir()
    data = path.read_bytes()
    for at in range(0, len(data), 37):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(LogDamaged, match="not what was written"):
            memory.last(log.origin)
        with pytest.raises(LogDamaged):
            memory.accept(log.notes[4], KEY)
    path.write_bytes(data)
    assert size(memory, log) == 6


def test_the_memory_of_one_log_does_not_pass_for_that_of_another(memory, log, tmp_path):
    memory.accept(log.notes[4], KEY)
    [path] = (tmp_path / "seen").iterdir()
    memory.accept(sign(Checkpoint("heart/run-8", 3, bytes(32), 9, "0" * 64), SERVER), KEY)
    [other] = set((tmp_path / "seen").iterdir()) - {path}
    other.write_bytes(path.read_bytes())
    with pytest.raises(LogDamaged):
        memory.last("heart/run-8")


def test_a_folder_that_lets_others_in_is_no_memory(tmp_path):
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen").chmod(0o755)
    with pytest.raises(StoreError):
        Memory(tmp_path / "seen")
