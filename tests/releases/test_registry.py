"""The registry: a book that only grows, one writer, and nothing lost or half there when it is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from released import NOW, PIN, RELEASER, STRANGER, envelope_of, file_of, files_of, registry_of, released

from quire.charter.errors import CharterError
from quire.releases import disk
from quire.releases.checking import check_registry
from quire.releases.errors import RegistryBusy, RegistryDamaged, ReleaseError
from quire.releases.opening import Trust
from quire.releases.registry import BOOK, opened, read_registry

PINNED = Trust(PIN)


@pytest.fixture
def folder(tmp_path):
    return registry_of(tmp_path / "registry")


def lines(folder):
    return (folder / BOOK).read_bytes().splitlines(keepends=True)


def states(folder):
    model = read_registry(folder).models["heart"]
    return model.current, [one.revoked for one in model.versions]


def test_a_new_release_is_the_current_version_and_names_the_one_before(folder):
    assert states(folder) == (2, [None, None])
    assert files_of(folder) == {BOOK, "envelopes/heart-1.envelope", "envelopes/heart-2.envelope"}
    assert check_registry(folder, PINNED, NOW).wrong == []


def test_back_and_revoked(folder):
    with opened(folder, RELEASER, NOW) as registry:
        registry.roll_back("heart", 1, "wrong units", NOW)
    assert states(folder) == (1, [None, None])
    with opened(folder, RELEASER, NOW) as registry:
        registry.revoke("heart", 1, "a silo left", NOW)
    assert states(folder) == (None, ["a silo left", None])
    with opened(folder, RELEASER, NOW) as registry:
        released(registry, "berlin", number=3)
    assert states(folder) == (3, ["a silo left", None, None])
    assert check_registry(folder, PINNED, NOW).wrong == []


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda one: one.roll_back("heart", 2, "x", NOW), "current one already"),
        (lambda one: one.roll_back("heart", 3, "x", NOW), "no version 3"),
        (lambda one: one.roll_back("lung", 1, "x", NOW), "no model 'lung'"),
        (lambda one: one.revoke("heart", 0, "x", NOW), "no version 0"),
        (lambda one: one.release(envelope_of("berlin", version=2)), "3 would"),
        (lambda one: (one.revoke("heart", 1, "x", NOW), one.revoke("heart", 1, "y", NOW)), "revoked already: x"),
        (lambda one: (one.revoke("heart", 1, "x", NOW), one.roll_back("heart", 1, "y", NOW)), "revoked already: x"),
    ],
)
def test_what_does_not_follow_is_refused(folder, act, words):
    with opened(folder, RELEASER, NOW) as registry, pytest.raises(ReleaseError, match=words):
        act(registry)
    assert check_registry(folder, PINNED, NOW).wrong == []


@pytest.mark.parametrize("why", ["", "  ", "x" * 501, "a\x07", "\u202e"])
def test_a_reason_is_a_text(folder, why):
    with opened(folder, RELEASER, NOW) as registry, pytest.raises(CharterError):
        registry.revoke("heart", 1, why, NOW)
    assert len(lines(folder)) == 3


def test_nobody_else_writes_in_it(folder):
    with pytest.raises(ReleaseError, match="is that of"), opened(folder, STRANGER, NOW):
        pass


def test_one_writer_at_a_time(folder, monkeypatch):
    real = disk.locked
    monkeypatch.setattr("quire.releases.registry.locked", lambda path, what: real(path, what, 0.1))
    with opened(folder, RELEASER, NOW), pytest.raises(RegistryBusy, match="try again"), opened(folder, RELEASER, NOW):
        pass


def _release_some(folder, count):
    for _ in range(count):
        with opened(folder, RELEASER, NOW, new=True) as registry:
            released(registry, "berlin")


def test_releases_at_the_same_time_get_versions_of_their_own(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_release_some, args=(tmp_path / "registry", 4)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(read_registry(tmp_path / "registry").models["heart"].versions) == 12
    assert check_registry(tmp_path / "registry", PINNED, NOW).wrong == []


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_book_with_another_byte_is_no_book(folder, data):
    book = (folder / BOOK).read_bytes()
    at = data.draw(st.integers(0, len(book) - 2))
    changed = bytearray(book)
    changed[at] ^= data.draw(st.integers(1, 255))
    (folder / BOOK).write_bytes(bytes(changed))
    try:
        with pytest.raises(RegistryDamaged):
            read_registry(folder)
    finally:
        (folder / BOOK).write_bytes(book)


def test_lines_left_out_doubled_or_in_another_order_are_seen(folder):
    one, two, three = lines(folder)
    for changed in ([one, three], [two, three], [one, three, two], [one, two, two], [one, one, two], []):
        (folder / BOOK).write_bytes(b"".join(changed))
        with pytest.raises(RegistryDamaged):
            read_registry(folder)


def test_a_torn_last_line_counts_for_nothing_and_goes(folder):
    whole = (folder / BOOK).read_bytes()
    (folder / BOOK).write_bytes(whole[:-20])
    assert states(folder)[0] == 1
    with opened(folder, RELEASER, NOW) as registry:
        released(registry, "berlin", number=5)  # over the envelope that no line names
    assert states(folder) == (2, [None, None])
    assert check_registry(folder, PINNED, NOW).wrong == []


def test_an_envelope_that_was_replaced_or_is_gone_is_seen(folder):
    shutil.copy(file_of(folder, 1), file_of(folder, 2))
    assert "another envelope" in check_registry(folder, PINNED, NOW).wrong[0]
    file_of(folder, 2).unlink()
    assert "no file" in check_registry(folder, PINNED, NOW).wrong[0]
    file_of(folder, 2).write_bytes(b"x")
    assert "no envelope" in check_registry(folder, PINNED, NOW).wrong[0]
    assert "not the pinned" in check_registry(folder, Trust("ab" * 32), NOW).wrong[0]


CALLS = ("write", "fsync", "replace", "open", "rename")


def _act_until(folder, call, count):
    """Release and revoke in a process that kills itself at the n-th call of a kind."""
    real, left = getattr(os, call), [count]

    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            if call == "write":  # in the middle of what is being written
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(os, call, counted)
    with opened(folder, RELEASER, NOW, new=True) as registry:
        released(registry, "berlin")
        registry.revoke("heart", 1, "it was killed", NOW)
        released(registry, "berlin", number=2)


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_any_moment_it_is_whole_and_goes_on(tmp_path, call):
    context, ended, count = multiprocessing.get_context("fork"), False, 0
    while not ended:
        count += 1
        folder = tmp_path / f"{call}-{count}"
        worker = context.Process(target=_act_until, args=(folder, call, count))
        worker.start()
        worker.join(60)
        assert worker.exitcode in (0, -signal.SIGKILL)
        ended = worker.exitcode == 0
        if (folder / BOOK).exists():
            assert check_registry(folder, PINNED, NOW).wrong == []
        with opened(folder, RELEASER, NOW, new=True) as registry:
            released(registry, "berlin", number=9)
        found = check_registry(folder, PINNED, NOW)
        assert found.wrong == []
        assert {json.loads(line)["body"]["number"] for line in lines(folder)} == set(range(len(lines(folder))))
        if count > 40:
            pytest.fail("it never ended")
    assert count > 1 or call == "rename"
