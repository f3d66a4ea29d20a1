"""The directory: who may enter, one at a time; counters that only go forward; state and secrets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import HEART, TODAY, Home

from quire.clients.store import (
    Position,
    Replay,
    RolledBack,
    Store,
    StoreBusy,
    StoreDamaged,
    StoreError,
    counters,
)
from quire.privacy.identity.keys import PrivateIdentity


def one_sentence(error: pytest.ExceptionInfo[BaseException]) -> bool:
    return str(error.value).endswith(".") and "\n" not in str(error.value)


def test_only_the_owner_enters(home: Home) -> None:
    with home.open() as store:
        store.ledger(HEART)
        store.state.put("session/round-1", b"x")
        store.secrets.put("masks", b"x")
    for root, folders, files in os.walk(home.store):
        for name in folders:
            assert (Path(root) / name).stat().st_mode & 0o777 == 0o700
        for name in files:
            assert (Path(root) / name).stat().st_mode & 0o777 == 0o600
    home.store.chmod(0o750)
    with pytest.raises(StoreError, match=r"lets other users in \(mode 750\); run: chmod 700") as error:
        home.open()
    assert one_sentence(error) or str(error.value).endswith(str(home.store))


def test_a_folder_that_is_no_store_is_left_alone(home: Home) -> None:
    home.store.mkdir(mode=0o700)
    (home.store / "patients.csv").write_text("age\n")
    with pytest.raises(StoreError, match="not empty and no store"):
        home.open()
    assert sorted(os.listdir(home.store)) == ["lock", "patients.csv"]


def test_a_file_in_its_place_is_refused(home: Home) -> None:
    home.store.write_text("")
    with pytest.raises(StoreError, match="is not a folder"):
        home.open()


def test_a_missing_parent_is_refused_in_one_sentence(home: Home) -> None:
    with pytest.raises(StoreError, match="No such file") as error:
        Store.open(home.folder / "no" / "store", home.identity)
    assert one_sentence(error)


def test_one_at_a_time_and_the_second_waits_a_bounded_time(home: Home) -> None:
    with home.open():
        begun = time.monotonic()
        with pytest.raises(StoreBusy, match=f"in use by process {os.getpid()} .* within 0.2 seconds") as error:
            home.open(wait=0.2)
        assert 0.2 <= time.monotonic() - begun < 5
        assert one_sentence(error)
    home.open(wait=0.0).close()


def test_the_second_gets_in_when_the_first_has_done(home: Home) -> None:
    code = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'r+')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(0.3)\n"
    )
    home.open().close()
    command = [sys.executable, "-c", code, str(home.store / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        begun = time.monotonic()
        home.open(wait=30.0).close()
        assert time.monotonic() - begun > 0.1


def test_another_identity_is_refused(home: Home) -> None:
    home.open().close()
    with pytest.raises(StoreError, match="belongs to the identity"):
        Store.open(home.store, PrivateIdentity.from_seed(b"j" * 32))


@pytest.mark.parametrize("kept", [[], ["counters.jsonl"], ["counters.jsonl", "heads.json"]])
def test_a_store_that_was_never_finished_is_begun_anew(home: Home, kept: list[str]) -> None:
    home.open().close()
    for path in home.store.iterdir():
        if path.is_file() and path.name not in [*kept, "lock"]:
            path.unlink()
    (home.store / "heads.json.new").write_bytes(b"half of it")
    with home.open() as store:
        assert store.counters.count == 0


@pytest.mark.parametrize("name", ["store.json", "heads.json", "counters.jsonl"])
def test_a_file_that_is_missing_from_a_used_store_is_damage(home: Home, name: str) -> None:
    home.run(2)
    (home.store / name).unlink()
    with pytest.raises(StoreDamaged, match=f"{name} is missing") as error:
        home.open()
    assert one_sentence(error)


def test_a_replay_is_refused_and_a_restart_forgets_nothing(home: Home) -> None:
    with home.open() as store:
        store.advance(Position("s", 3, 0, 2), TODAY)
    with home.open() as store:
        for earlier in [(3, 0, 2), (3, 0, 1), (2, 9, 9), (0, 0, 0)]:
            with pytest.raises(Replay, match="has already answered round 3, attempt 0, stage 2 of session s"):
                store.advance(Position("s", *earlier), TODAY)
        store.advance(Position("another", 0), TODAY)
        store.advance(Position("s", 3, 1, 0), TODAY)
        assert store.counters.last("s") == Position("s", 3, 1, 0)
        assert store.counters.last("never seen") is None


def test_rounds_of_this_run_and_of_today(home: Home) -> None:
    tomorrow = TODAY + timedelta(days=1)
    with home.open() as store:
        for stage in range(4):
            store.advance(Position("a", 1, 0, stage), TODAY)
        assert (store.counters.rounds("a"), store.counters.rounds_on(TODAY)) == (1, 1)
        store.advance(Position("a", 1, 1, 0), TODAY)  # another attempt is another round of work, and of risk
        store.advance(Position("b", 0), TODAY)
        store.advance(Position("a", 2), tomorrow)
    with home.open() as store:
        assert (store.counters.rounds("a"), store.counters.rounds("b"), store.counters.rounds("c")) == (3, 1, 0)
        assert (store.counters.rounds_on(TODAY), store.counters.rounds_on(tomorrow)) == (3, 1)
        assert store.counters.rounds_on(date(2020, 1, 1)) == 0


POSITIONS = st.tuples(st.sampled_from("ab"), *[st.integers(0, 3)] * 3)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.one_of(POSITIONS, st.none()), max_size=40), st.integers(1, 6))
def test_counters_do_what_a_dictionary_would(
    home: Home, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int, int, int] | None], compact: int
) -> None:
    """Whatever is asked for, however often the store is opened anew and its file is written anew."""
    shutil.rmtree(home.store, ignore_errors=True)
    monkeypatch.setattr(counters, "COMPACT", compact)
    last: dict[str, tuple[int, ...]] = {}
    rounds = 0
    store = home.open()
    try:
        for step in steps:
            if step is None:
                store.close()
                store = home.open()
                continue
            session, *order = step
            if tuple(order) <= last.get(session, (-1,)):
                with pytest.raises(Replay):
                    store.advance(Position(*step), TODAY)
                continue
            rounds += tuple(order)[:2] != last.get(session, (-1,))[:2]
            store.advance(Position(*step), TODAY)
            last[session] = tuple(order)
        assert store.counters.positions() == last
        assert store.counters.rounds_on(TODAY) == rounds
    finally:
        store.close()


@pytest.mark.parametrize(
    "wrong", [("", 0), ("a/b", 0), ("s", -1), ("s", True), ("s", 1.0), ("s", 2**53), ("x" * 129, 1)]
)
def test_what_is_no_position(wrong: tuple[str, int]) -> None:
    with pytest.raises(Replay):
        Position(*wrong)


def test_a_torn_position_was_never_answered(home: Home) -> None:
    with home.open() as store:
        store.advance(Position("s", 1), TODAY)
    file = home.store / "counters.jsonl"
    whole = file.read_bytes()
    with home.open() as store:
        store.advance(Position("s", 2), TODAY)
    longer = file.read_bytes()
    for size in range(len(whole), len(longer)):
        file.write_bytes(longer[:size])
        with home.open() as store:
            assert store.counters.last("s") == Position("s", 1)
            store.advance(Position("s", 2), TODAY)
            assert file.read_bytes() == longer


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_flipped_bit_in_the_counters_is_found(home: Home, place: int, bit: int) -> None:
    if not home.store.exists():
        home.run(3)
    file = home.store / "counters.jsonl"
    good = file.read_bytes()
    bad = bytearray(good)
    bad[place % len(good)] ^= 1 << bit
    file.write_bytes(bad)
    try:
        with pytest.raises(StoreDamaged):
            home.open()
    finally:
        file.write_bytes(good)


def test_counters_that_were_put_back_are_told_by_the_ledger(home: Home) -> None:
    home.run(2)
    old = (home.store / "counters.jsonl").read_bytes()
    home.run(2)
    (home.store / "counters.jsonl").write_bytes(old)
    with pytest.raises(RolledBack, match=r"2 positions, but 4 were passed.*old copy"):
        home.open()


def test_importing_the_store_is_light() -> None:
    code = (
        "import sys, quire.clients.store, quire.ledger_cli\n"
        "print(sorted({'torch', 'flwr', 'scipy', 'ray', 'hydra', 'dp_accounting', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
