"""What happened to a store must be told: every byte, every length, every file, and a copy that was put back."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import HEART, TODAY, Home, go_on, non_private

from quire.clients.store import Position, RolledBack, Spending, StoreDamaged, StoreError, Unit
from quire.clients.store.heads import NO_HEAD, TAG, Head, read_heads
from quire.clients.store.lines import Signed
from quire.clients.store.scan import Scan, read_ledger
from quire.clients.store.store import ledger_place, read_about


def head_of(home: Home) -> Head:
    heads = read_heads(home.store / "heads.json", Signed(TAG, home.identity.public))
    assert heads is not None
    return heads.ledgers[HEART]


def scan(home: Home, head: Head) -> Scan:
    about = read_about(home.store)
    assert about is not None
    return read_ledger(ledger_place(home.store, about, HEART), head)


def open_ledger(home: Home) -> int:
    with home.open() as store:
        return store.ledger(HEART).receipt.count


FILES = [f"ledger/{HEART}.jsonl", "heads.json", "store.json"]


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(FILES), st.integers(0, 10**9), st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(home: Home, name: str, place: int, bit: int) -> None:
    if not home.store.exists():
        home.run(3)
    file = home.store / name
    good = file.read_bytes()
    bad = bytearray(good)
    bad[place % len(good)] ^= 1 << bit
    file.write_bytes(bad)
    try:
        with pytest.raises(StoreError) as error:
            open_ledger(home)
        assert str(error.value).endswith(".")
    finally:
        file.write_bytes(good)


def test_cut_off_at_every_byte_of_what_was_acknowledged(home: Home) -> None:
    home.run(2, charge=non_private())
    head = head_of(home)
    assert scan(home, head).count == 3
    for size in reversed(range(home.ledger_file.stat().st_size)):
        os.truncate(home.ledger_file, size)
        with pytest.raises(StoreDamaged):
            scan(home, head)


def test_a_torn_line_that_was_never_acknowledged_is_cut_off_and_logged(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.run(1, charge=non_private())
    good, heads = home.ledger_file.read_bytes(), (home.store / "heads.json").read_bytes()
    home.run(1, charge=non_private())
    longer = home.ledger_file.read_bytes()
    (home.store / "heads.json").write_bytes(heads)
    head = head_of(home)
    for size in reversed(range(len(good), len(longer))):
        os.truncate(home.ledger_file, size)
        found = scan(home, head)
        assert (found.count, found.size, found.torn) == (2, len(good), size - len(good))
    home.ledger_file.write_bytes(longer[:-1])
    assert open_ledger(home) == 2
    assert home.ledger_file.read_bytes() == good
    assert "bytes that a crash left unfinished" in caplog.text
    home.ledger_file.write_bytes(longer)  # the line was whole, only its head was not written: it counts
    (home.store / "heads.json").write_bytes(heads)
    assert open_ledger(home) == 3


@pytest.mark.parametrize("change", ["delete", "swap", "twice", "foreign", "junk"])
def test_whole_lines_that_are_moved_are_found(home: Home, change: str) -> None:
    home.run(4, charge=non_private())
    lines = home.ledger_file.read_bytes().splitlines(keepends=True)
    with home.open() as store:
        store.ledger("another")
    other = (home.store / "ledger" / "another.jsonl").read_bytes()
    changed = {
        "delete": [*lines[:2], *lines[3:]],
        "swap": [lines[0], lines[2], lines[1], *lines[3:]],
        "twice": [*lines, lines[-1]],
        "foreign": [*lines, other],
        "junk": [*lines, b"{}\n"],
    }[change]
    home.ledger_file.write_bytes(b"".join(changed))
    with pytest.raises(StoreDamaged, match="put back the newest copy of the store, or override"):
        open_ledger(home)


def test_a_missing_ledger_is_not_a_new_one(home: Home) -> None:
    home.run(2)
    home.ledger_file.unlink()
    with pytest.raises(StoreDamaged, match=r"is missing, but 3 entries were written to it; put back .* or override"):
        open_ledger(home)


def test_a_ledger_without_its_heads_is_not_believed(home: Home) -> None:
    home.run(2)
    (home.store / "heads.json").unlink()
    with pytest.raises(StoreDamaged, match=r"heads\.json is missing"):
        open_ledger(home)


def test_a_ledger_that_somebody_else_signed_is_refused(home: Home, tmp_path: Path) -> None:
    from quire.privacy.identity.keys import PrivateIdentity

    home.run(2)
    other = Home(tmp_path / "b", PrivateIdentity.from_seed(b"j" * 32))
    other.folder.mkdir()
    other.run(2)
    shutil.copy(other.ledger_file, home.ledger_file)
    with pytest.raises(StoreDamaged, match="does not carry the signature of"):
        open_ledger(home)


def test_an_old_ledger_in_a_new_store_is_found(home: Home) -> None:
    home.run(2)
    old = home.ledger_file.read_bytes()
    home.run(3)
    home.ledger_file.write_bytes(old)
    with pytest.raises(StoreDamaged, match="ends after entry 3, but 6 entries were written"):
        open_ledger(home)


def copy(home: Home) -> Callable[[], None]:
    """Keep a copy of the whole store, and return what puts it back."""
    backup = home.folder / "backup"
    shutil.copytree(home.store, backup)

    def put_back() -> None:
        shutil.rmtree(home.store)
        shutil.copytree(backup, home.store)

    return put_back


def test_a_copy_that_is_put_back_agrees_with_itself_but_not_with_the_witness(witnessed: Home) -> None:
    witnessed.run(2)
    put_back = copy(witnessed)
    witnessed.run(2)
    put_back()
    with pytest.raises(RolledBack, match=r"is older than what the witness .* an old copy was put back"):
        open_ledger(witnessed)


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
def test_a_copy_that_went_on_without_the_witness_is_told_by_it(witnessed: Home, rounds: int) -> None:
    witnessed.run(2)
    put_back = copy(witnessed)
    witnessed.run(2)
    put_back()
    Home(witnessed.folder, witnessed.identity).run(rounds)
    with pytest.raises(RolledBack):
        open_ledger(witnessed)


def test_positions_that_were_put_back_are_told_by_the_witness(witnessed: Home) -> None:
    witnessed.run(2)
    put_back = copy(witnessed)
    with witnessed.open() as store:
        store.advance(Position("run-1", 2, 0, 3), TODAY)
    put_back()
    with pytest.raises(RolledBack):
        witnessed.open()


def test_a_store_that_was_begun_anew_is_told_by_the_witness(witnessed: Home) -> None:
    witnessed.run(2)
    shutil.rmtree(witnessed.store)
    with pytest.raises(RolledBack, match="has seen another store"):
        witnessed.open()


def test_a_witness_that_is_gone_or_changed_is_missed(witnessed: Home) -> None:
    witnessed.run(2)
    assert witnessed.witness is not None
    good = witnessed.witness.read_bytes()
    witnessed.witness.unlink()
    with pytest.raises(StoreDamaged, match=r"The witness .* is missing"):
        witnessed.open()
    witnessed.witness.write_bytes(good.replace(b'"generation":', b'"generation":1'))
    with pytest.raises(StoreDamaged, match="does not carry the signature"):
        witnessed.open()
    witnessed.witness.write_bytes(good)
    assert open_ledger(witnessed) == 3


def test_a_witness_that_is_behind_catches_up(witnessed: Home) -> None:
    witnessed.run(2)
    Home(witnessed.folder, witnessed.identity).run(2)
    assert open_ledger(witnessed) == 5
    assert witnessed.witness is not None
    assert witnessed.witness.read_bytes() == (witnessed.store / "heads.json").read_bytes()


def test_nothing_leaves_while_the_witness_cannot_be_written(witnessed: Home) -> None:
    witnessed.run(1)
    assert witnessed.witness is not None
    with witnessed.open() as store:
        shutil.rmtree(witnessed.witness.parent)
        with pytest.raises(StoreError, match="nothing leaves the silo until it can be"):
            go_on(store, store.ledger(HEART), 1)


def in_child(work: Callable[[], None]) -> int:
    """Call something in a child process and return its exit status: 0, or 1 if it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("room", [0, 1, 100, 1500, 5000])
def test_a_full_disk_is_one_sentence_and_no_damage(home: Home, room: int) -> None:
    """The largest size of a file stands in for the end of the disk: a line fits in part."""
    home.run(2, charge=non_private())
    size = home.ledger_file.stat().st_size + room

    def work() -> None:
        with home.open() as store:
            ledger = store.ledger(HEART)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            for _ in range(100):
                before = ledger.receipt
                try:
                    go_on(store, ledger, 1, charge=non_private())
                except StoreError as error:
                    fine = str(error).endswith("nothing leaves the silo until it can be.") and ledger.receipt == before
                    os._exit(0 if fine else 2)

    assert in_child(work) == 0
    assert home.ledger_file.read_bytes().endswith(b"\n")
    before = open_ledger(home)
    assert before >= 3
    home.run(1, charge=non_private())
    assert open_ledger(home) == before + 1


def test_a_read_only_store_is_refused_in_one_sentence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run(1)
    if os.geteuid() != 0:
        home.store.chmod(0o500)
        with pytest.raises(StoreError, match="cannot be written: Permission denied"):
            home.run(1)
        home.store.chmod(0o700)
        return
    nobody = 65534
    for path in [home.folder, *home.folder.rglob("*")]:
        os.chown(path, nobody, nobody)
    for folder in (home.store, home.store / "ledger"):
        folder.chmod(0o500)
    os.chown(home.folder, nobody, nobody)

    def work() -> None:
        os.chdir(home.folder)  # the folders above belong to root
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)
        try:
            Home(Path(), home.identity).run(1, charge=non_private())
        except StoreError as error:
            os._exit(0 if "Permission denied" in str(error) and str(error).endswith(".") else 2)

    assert in_child(work) == 0


def test_a_ledger_that_cannot_be_written_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run(1)

    def no(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    with home.open() as store:
        ledger = store.ledger(HEART)
        store.advance(Position("run-1", 9), TODAY)
        monkeypatch.setattr(os, "write", no)
        with pytest.raises(
            StoreError, match=r"jsonl cannot be written: Read-only file system; nothing leaves"
        ) as error:
            ledger.charge([non_private()], None, Position("run-1", 9), code="", settings="")
        assert str(error.value).endswith(".")
        monkeypatch.undo()
        assert ledger.charge([non_private()], None, Position("run-1", 9), code="", settings="").count == 3
    assert scan(home, head_of(home)).count == 3
    assert scan(home, NO_HEAD).sums.spent(Unit.RECORD) != Spending.zero()
