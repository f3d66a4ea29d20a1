"""Killed at any moment between a request and its reply, or beside others, a silo has charged for all that it sent."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_silo import OVERRIDES
from real_silo import RealSilo, merged

from quire.clients.private.plan import plan_of
from quire.clients.store import Spending, Store, Unit
from quire.conf.compose import compose

CHILD = Path(__file__).resolve().parents[1] / "support" / "killed_silo.py"
ROOMY = {"epsilon": 40.0, "min_noise": 0, "max_rounds": 10_000, "max_rounds_per_day": 10_000}


class Nursery:
    """The process that forks silos."""

    def __init__(self, warm: Path) -> None:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHILD.parents[2]), str(CHILD.parent)])}
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(warm), OVERRIDES],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True},
            env={**variables, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self.read() == "ready"

    def ask(self, *words: object) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    warm = tmp_path_factory.mktemp("warm")
    RealSilo(warm).write(**ROOMY)
    made = Nursery(warm)
    yield made
    made.close()


def sent_by(silo: RealSilo, run: int = 5) -> list[tuple[int, str]]:
    """Return what left the silo: whole lines only, for a reply that was cut off is none."""
    outbox = silo.folder / f"outbox-{run}"
    whole = outbox.read_text().split("\n")[:-1] if outbox.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in whole]


def cost_of(overrides: str = OVERRIDES) -> Spending:
    return Spending.of(plan_of(compose(merged(overrides)), 60).charged(1))


@pytest.mark.parametrize("killed", [12, pytest.param(220, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_killed_hundreds_of_times_nothing_that_left_was_not_charged_for(
    nursery: Nursery, tmp_path: Path, killed: int
) -> None:
    silo, chance, cost = RealSilo(tmp_path), random.Random(5), cost_of().rdp
    silo.write(**ROOMY)
    lost: set[int] = set()
    for kill in range(killed):
        before = sent_by(silo)
        begin = max((number for number, _ in before), default=0) + 1
        child = nursery.ask("fork", tmp_path, 5, begin, 0)
        if kill % 4:  # else the kill may meet it before it has opened its books for the first time
            assert nursery.ask("wait", child) == "replied"
        time.sleep(chance.uniform(0.0, 0.06))
        os.kill(int(child), signal.SIGKILL)
        assert nursery.ask("reap", child) == str(-signal.SIGKILL)

        sent = sent_by(silo)
        answered = [number for number, code in sent if code == "ANSWERED"]
        with silo.open(wait=0.0) as store:  # it opens, and the kernel has released the lock of the dead
            ledger = store.ledger("clinic")  # which cuts off a line that the kill has torn
            charged = [entry["round"] for entry in silo.charges()]
            spent = ledger.spent(Unit.RECORD).rdp
            last = store.counters.last("run-5")
        assert len(answered) == len(set(answered))
        assert set(answered) <= set(charged)
        assert len(charged) == len(set(charged))
        assert (spent >= len(answered) * cost * (1 - 1e-9)).all()
        assert max(charged, default=0) <= (0 if last is None else last.round)
        refused = {number for number, code in sent if code == "REPLAY_REFUSED"}
        assert {code for _, code in sent} <= {"ANSWERED", "REPLAY_REFUSED"}
        assert not refused & set(answered)
        assert refused - {number for number, _ in before} <= {begin}  # only the round that the kill had met
        lost |= set(charged) - set(answered)
    assert len(answered) >= killed // 2, "the kills met no silo at work"
    assert lost or killed < 200, "no kill fell between a charge and its sending"
    for number in [*sorted(lost)[:2], answered[-1]]:  # charged or sent, it is answered never again
        assert silo.refused("train", OVERRIDES, number) == "REPLAY_REFUSED"
    assert silo.code("train", OVERRIDES, last.round + 1) == "ANSWERED"


# ------------------------------------------------------------------------------------- two processes, one store
def started_together(nursery: Nursery, silo: RealSilo, runs: tuple[int, ...], rounds: int) -> list[str]:
    """Start a process for each run; all of them find the store in use, and then nobody using it."""
    with silo.open():
        children = [nursery.ask("fork", silo.folder, run, 1, rounds) for run in runs]
        time.sleep(0.3)
        assert not any(sent_by(silo, run) for run in runs)
    return children


def test_processes_that_share_a_store_wait_for_each_other_and_lose_no_charge(nursery: Nursery, tmp_path: Path) -> None:
    """Three runs at once, as one SuperNode starts a process for each message: all answered, all charged, once each."""
    silo, runs, rounds = RealSilo(tmp_path), (5, 6, 7), 8
    silo.write(**ROOMY)
    children = started_together(nursery, silo, runs, rounds)
    assert [nursery.ask("reap", child) for child in children] == ["0"] * len(runs)
    for run in runs:
        assert sent_by(silo, run) == [(number, "ANSWERED") for number in range(1, rounds + 1)]
    charged = [(entry["session"], entry["round"]) for entry in silo.charges()]
    assert sorted(charged) == [(f"run-{run}", number) for run in runs for number in range(1, rounds + 1)]
    with silo.open() as store:
        spent = store.ledger("clinic").spent(Unit.RECORD)
    assert spent.rdp == pytest.approx(len(charged) * cost_of().rdp, rel=1e-9)


def test_processes_that_share_a_store_share_one_budget(nursery: Nursery, tmp_path: Path) -> None:
    """Between the look at what is left and the charge nobody else comes in: together they never exceed the cap."""
    silo, runs = RealSilo(tmp_path), (5, 6, 7)
    whole = plan_of(compose(merged(OVERRIDES)), 60).charged(4000)
    room = sum((cost_of() for _ in range(11)), Spending.of(whole))  # for one run and eleven rounds of others
    cap = room.epsilon(1e-4)
    silo.write(**{**ROOMY, "epsilon": cap})
    children = started_together(nursery, silo, runs, 30)
    assert [nursery.ask("reap", child) for child in children] == ["0"] * len(runs)
    sent = {run: sent_by(silo, run) for run in runs}
    codes = {code for lines in sent.values() for _, code in lines}
    assert codes == {"ANSWERED", "BUDGET_REFUSED"}
    answered = {(f"run-{run}", number) for run, lines in sent.items() for number, code in lines if code == "ANSWERED"}
    assert answered == {(entry["session"], entry["round"]) for entry in silo.charges()}
    assert len(answered) == len(silo.charges())
    with silo.open() as store:
        assert store.ledger("clinic").spent(Unit.RECORD).epsilon(1e-4) <= cap


def test_a_store_that_stays_in_use_refuses_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    silo = RealSilo(tmp_path)
    assert silo.code() == "ANSWERED"
    monkeypatch.setitem(Store.open.__func__.__kwdefaults__, "wait", 0.1)  # type: ignore[attr-defined]
    hold = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", hold, str(silo.store / "lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert silo.refused(round_number=2) == "BOOKS_UNUSABLE"
        other.communicate("")
    assert "is in use by process" in caplog.text
    assert len(silo.charges()) == 1
    assert silo.code(round_number=2) == "ANSWERED"
