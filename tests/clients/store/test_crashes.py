"""Killed at any moment, a silo has charged for all that it sent; two at once lose nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import HEART, TODAY, Home, gaussian, go_on

from quire.clients.store import Position, Spending, StoreError, Unit
from quire.privacy.dp.events import Gaussian
from quire.privacy.identity.keys import PrivateIdentity

CHILD = Path(__file__).with_name("silo_process.py")
KILLS = 240


@contextmanager
def nursery(home: Home, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that has everything imported and forks one silo after another."""
    command = [sys.executable, str(CHILD), str(home.store), home.identity.encode_secret().hex(), *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ask(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(words + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize("with_witness", [False, True])
def test_killed_hundreds_of_times_nothing_is_under_counted(home: Home, witnessed: Home, with_witness: bool) -> None:
    """A real process charges and sends (appends to an outbox, fsynced) until kill -9 meets it somewhere."""
    home = witnessed if with_witness else home
    outbox = home.folder / "outbox"
    outbox.touch()
    chance = random.Random(7)
    cost = Spending.of(Gaussian(20.0))
    arguments = [str(outbox), *([str(home.witness)] if home.witness else [])]
    kills = met = 0
    with nursery(home, *arguments) as process:
        for _ in range(KILLS // 2):
            child = int(ask(process, "fork"))
            if kills % 4:  # else it may meet the silo while it opens its store
                assert ask(process, "") == "open"
            time.sleep(chance.uniform(0.0, 0.1))
            os.kill(child, signal.SIGKILL)
            assert ask(process, "reap") == f"killed by {int(signal.SIGKILL)}"
            kills += 1
            sent = outbox.read_text().split("\n")
            with home.open(wait=0.0) as store:  # the kernel has released the lock of a dead process
                ledger = store.ledger(HEART)
                charged = ledger.receipt.count - 1
                assert charged >= len(sent) - 1
                assert ledger.spent(Unit.RECORD).rdp[0] >= (len(sent) - 1) * cost.rdp[0] * (1 - 1e-12)
                positions = store.counters.positions()
                for line in sent[:-1]:  # and nothing that was sent can be asked for again
                    assert positions["run"][0] >= int(line)
                met += charged > len(sent) - 1
    assert kills == KILLS // 2
    assert charged >= 10  # the kills met silos at work, on a busy machine too
    assert sorted(map(int, sent[:-1])) == sorted(set(map(int, sent[:-1])))
    assert met, "no kill ever fell between a charge and its sending"


def test_two_processes_lose_no_charge(home: Home) -> None:
    """Each opens, charges and closes, over and over; every one of their charges is there in the end."""
    with nursery(home, "charge", "a", "75") as first, nursery(home, "charge", "b", "75") as second:
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "75 charged"
    with home.open() as store:
        ledger = store.ledger(HEART)
        assert ledger.receipt.count == 1 + 150
        assert ledger.spent(Unit.RECORD).rdp == pytest.approx(Spending.of(Gaussian(20.0, 150)).rdp, rel=1e-9)
        assert (store.counters.rounds("a"), store.counters.rounds("b")) == (75, 75)


class Crash(BaseException):
    """Stands for the end of the process: nothing that cleans up on an ordinary error may hide it."""


SYSTEM_CALLS = ("fsync", "write", "replace", "ftruncate", "open")


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> Callable[[], int]:
    """Let the n-th system call that changes a disk fail, before or (an odd n) after it has done its work."""
    count = 0

    def wrapped(call: Callable[..., object]) -> Callable[..., object]:
        def inner(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == after // 2 + 1 and after % 2 == 0:
                raise error
            result = call(*args, **options)
            if count == after // 2 + 1 and after % 2 == 1:
                raise error
            return result

        return inner

    for name in SYSTEM_CALLS:
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("error", [Crash(), OSError(5, "Input/output error")], ids=["crash", "error"])
@pytest.mark.parametrize("fresh", [True, False], ids=["first", "later"])
def test_whichever_system_call_fails_a_receipt_stands_for_a_charge(
    witnessed: Home, monkeypatch: pytest.MonkeyPatch, error: BaseException, fresh: bool
) -> None:
    """Every step of opening and charging, one after the other: what was acknowledged stays, and the store reopens."""
    acknowledged = 0
    if not fresh:
        acknowledged = witnessed.run(1).count - 1
    step, done = 0, False
    while not done:
        with monkeypatch.context() as patch:
            steps = interrupt(patch, step, error)
            try:
                with witnessed.open() as store:
                    ledger = store.ledger(HEART)
                    number = store.counters.count + 1
                    store.advance(Position("run-1", number), TODAY)
                    acknowledged = (
                        ledger.charge([gaussian()], None, Position("run-1", number), code="", settings="").count - 1
                    )
                    done = steps() < step // 2 + 1
            except (Crash, StoreError):
                pass
        with witnessed.open(wait=0.0) as store:
            ledger = store.ledger(HEART)
            assert ledger.receipt.count - 1 >= acknowledged
            spent = ledger.spent(Unit.RECORD).rdp[0]
            assert spent == pytest.approx((ledger.receipt.count - 1) * Spending.of(Gaussian(20.0)).rdp[0], rel=1e-9)
            acknowledged = ledger.receipt.count - 1
        step += 1
    assert step > 20


def test_a_ledger_that_failed_while_syncing_is_not_written_to_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync nobody knows what is on the disk: the line counts, and the store has to be read anew."""
    with home.open() as store:
        ledger = store.ledger(HEART)
        go_on(store, ledger, 1)
        store.advance(Position("run-1", 2), TODAY)
        store.advance(Position("run-1", 3), TODAY)

        def broken(_: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(StoreError, match="Input/output error"):
                ledger.charge([gaussian()], None, Position("run-1", 2), code="", settings="")
        with pytest.raises(StoreError, match="open the store anew"):
            ledger.charge([gaussian()], None, Position("run-1", 3), code="", settings="")
    with home.open() as store:
        assert store.ledger(HEART).receipt.count == 3


def test_wherever_the_first_witness_is_interrupted_the_store_opens_again(
    tmp_path: Path, identity: PrivateIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new store for each step, since a witness is made once: that it is not there yet must not look like a loss."""
    step, done = 0, False
    while not done:
        folder = tmp_path / str(step)
        (folder / "elsewhere").mkdir(parents=True)
        home = Home(folder, identity, folder / "elsewhere" / "witness.json")
        with monkeypatch.context() as patch:
            steps = interrupt(patch, step, Crash())
            try:
                home.run(1)
                done = steps() < step // 2 + 1
            except Crash:
                pass
        assert home.run(1).count >= 1
        step += 1
    assert step > 20
