"""kill -9 while a process appends: what was acknowledged is there, what is there is whole, and the log goes on."""

import os
import random
import signal
import time
from functools import cache

import pytest
from logs import SERVER, entry, opened

from quire.clients.store import appended, files
from quire.transparency.checkpoints import check_signed
from quire.transparency.entries import Entry
from quire.transparency.reading import CHECKPOINTS, ENTRIES, Entries, read_notes

SIZES = (1, 3, 40, 4000)  # entries of a batch: the last is a write of half a megabyte, which a kill can cut in two
MOST = 16_000


@cache
def numbered() -> list[Entry]:
    """Return entries made beforehand, so that children write and do little else."""
    return [entry(number) for number in range(MOST)]


def append_until_killed(folder, told, seed):
    """In a child: append batches, and say after each how many entries are acknowledged."""
    rng = random.Random(seed)
    with opened(folder) as log:
        os.write(told, b"%d\n" % log.size)
        while log.size < MOST:
            batch = rng.choices(SIZES, (8, 8, 4, 2))[0]
            log.append(*numbered()[log.size : log.size + batch])
            os.write(told, b"%d\n" % log.size)
            if rng.random() < 0.3:
                log.checkpoint(1)
                os.write(told, b"%d checkpoint\n" % log.size)


def die_within_a_write(seed):
    """In a child: see to it that one of the next writes is cut at a random byte by a SIGKILL."""
    rng = random.Random(seed)
    left = rng.randrange(1, 12)

    def write(descriptor, data):
        nonlocal left
        left -= 1
        if left:
            files.write_all(descriptor, data)
            return
        files.write_all(descriptor, data[: rng.randrange(len(data) + 1)])
        os.kill(os.getpid(), signal.SIGKILL)

    appended.write_all = write


def killed(folder, seed) -> tuple[int, int]:
    """Kill a child at a random moment, every other one in the middle of a write.

    Return how many entries it had acknowledged, in all and under a checkpoint.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            if not seed % 2:
                die_within_a_write(seed)
            append_until_killed(folder, writing, seed)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        first = pipe.readline()  # it has opened the log, after which there is something to interrupt; or died in that
        if seed % 2:
            time.sleep(random.Random(seed).uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        said = [first, *pipe.readlines()]
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 1
    whole = [line.split() for line in said if line.endswith(b"\n")]
    covered = [int(words[0]) for words in whole if len(words) == 2]
    return max((int(words[0]) for words in whole), default=0), max(covered, default=0)


def kill_so_often(folder, kills, first=0):
    """Kill one child after the other over a log, until it is full; return how often, and what was torn."""
    acknowledged = covered = torn = cut = done = 0
    begin = b""
    for seed in range(first, first + kills):
        done += 1
        told, under = killed(folder, seed)
        acknowledged, covered = max(acknowledged, told), max(covered, under)
        notes, noted = read_notes(folder / CHECKPOINTS)
        found = Entries(folder / ENTRIES, sorted({note.checkpoint.size for note in notes}), forms=True)
        lines = (folder / ENTRIES).read_bytes().split(b"\n")
        if len(lines) == 1:
            continue
        begin = begin or lines[0]
        assert found.tree.size >= acknowledged
        assert max((note.checkpoint.size for note in notes), default=0) >= covered
        assert lines[0] == begin
        for number, line in enumerate(lines[1:-1], start=1):
            assert line + b"\n" == numbered()[number].data
        for note in notes:
            check_signed(note, SERVER.public)
            assert found.roots[note.checkpoint.size] == note.checkpoint.root
        torn += found.torn > 0
        cut += (folder / CHECKPOINTS).stat().st_size > noted
        if found.tree.size >= MOST:
            break
    with opened(folder) as log:
        assert log.size >= acknowledged
        log.append(entry(1))
        log.checkpoint(1)
    return done, torn, cut


def test_kills_while_appending(tmp_path):
    _, torn, _ = kill_so_often(tmp_path / "log", 12)
    assert torn


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hundreds_of_kills_while_appending(tmp_path):
    """A fast disk fills a log in fewer kills than a slow one: then there are more logs."""
    kills = torn = cut = 0
    while kills < 400:
        done, one, other = kill_so_often(tmp_path / f"log-{kills}", 20, kills)
        kills, torn, cut = kills + done, torn + one, cut + other
    assert torn > 50
    assert cut > 5
