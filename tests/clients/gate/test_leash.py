"""What is at work on a message ends with those that started it, though they are killed; no store stays locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from flwr.app import ConfigRecord, RecordDict
from gate_site import Site
from node import Node

from quire.clients.gate import worker
from quire.clients.gate.approvals import Approval, approvals_file, approve

#: Generous: what is measured is that it ends at all, long before the code of the message would.
LIMIT = 60.0


def test_approved_code_that_lets_no_thread_run_is_killed_with_the_gate(tmp_path: Path) -> None:
    """The kernel does it; the process that stands for the gate is killed while the other is deep in native code."""
    place = str(Path(worker.__file__).parent)
    busy = (
        f"import sys; sys.path.insert(0, {place!r}); import ctypes, os, worker; worker.end_with(os.getppid()); "
        "print(os.getpid(), flush=True); ctypes.PyDLL(None).sleep(600)"
    )
    gate = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"],
        stdout=subprocess.PIPE,
    )
    assert gate.stdout is not None
    child = psutil.Process(int(gate.stdout.readline()))
    gate.kill()
    gate.wait()
    ended(child)


def test_who_comes_too_late_to_its_gate_ends_at_once() -> None:
    child = os.fork()
    if child == 0:
        worker.end_with(os.getpid())  # nobody is one's own parent
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def ended(*processes: psutil.Process) -> None:
    """Wait until all have ended; one whose parent has not asked how counts as ended."""
    deadline = time.monotonic() + LIMIT
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, process
                time.sleep(0.05)


@pytest.fixture(params=["light", "none"])
def holding(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Site, psutil.Process, psutil.Process]]:
    """A gate, the process of approved code, which holds a lock, and its starter."""
    with Node() as node:
        site = Site(tmp_path, node, request.param)
        try:
            approve(approvals_file(site.silo), Approval((site.hash,)))
            node.send(site.fab, RecordDict({"ask": ConfigRecord({"for": "hold"})}))
            holder, deadline = tmp_path / "holder", time.monotonic() + LIMIT
            while not (holder.exists() and holder.read_text()):
                assert time.monotonic() < deadline, site.said()
                time.sleep(0.05)
            working = psutil.Process(int(holder.read_text()))
            yield site, working, psutil.Process(working.ppid())
        finally:
            if site.process.poll() is None:
                site.close()


def unlocked(folder: Path) -> None:
    """Wait for the lock: what a killed process held goes with the last of its threads, after it counts as ended."""
    deadline = time.monotonic() + LIMIT
    with (folder / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_of_a_message_outlives_a_gate_that_is_killed(
    holding: tuple[Site, psutil.Process, psutil.Process],
) -> None:
    site, working, starter = holding
    all_of_it = [*psutil.Process(site.process.pid).children(recursive=True), starter, working]
    site.process.send_signal(signal.SIGKILL)
    site.process.wait()
    ended(*all_of_it)
    unlocked(site.folder)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_approved_code_does_not_outlive_a_starter_that_is_killed(
    holding: tuple[Site, psutil.Process, psutil.Process],
) -> None:
    site, working, starter = holding
    starter.send_signal(signal.SIGKILL)
    ended(working)
    unlocked(site.folder)
