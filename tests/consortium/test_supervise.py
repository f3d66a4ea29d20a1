"""The supervisor, with real processes: what it starts, starts again, stops, and leaves when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from quire.consortium import leash
from quire.consortium.errors import ConsortiumError, FolderBusy
from quire.consortium.logs import last_line, rotate
from quire.consortium.supervise import Duty, Service, SuperviseError, Supervisor

ROOT = Path(__file__).resolve().parents[2]
SLEEPER = "import time; open(NAME, 'a').write('x'); time.sleep(100)"
# Ends only when it is killed, and has a child of its own that does the same.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) < 2:
    subprocess.Popen([sys.executable, "-c", open("stubborn.py").read(), "child"])
open("stubborn-" + str(os.getpid()), "w")
time.sleep(100)
"""


def service(folder: Path, name: str, program: str, **more: object) -> Service:
    """A service that works in a folder; NAME in its program is a file there, of its own name."""
    command = (sys.executable, "-c", program.replace("NAME", repr(name)))
    given = {"ready": lambda: (folder / name).exists(), **more}
    return Service(name, command, dict(os.environ), folder, **given)  # type: ignore[arg-type]


class Told(list):
    def __call__(self, name: str, words: str) -> None:
        self.append(f"{name} {words}")

    def said(self, words: str) -> int:
        return sum(words in line for line in self)


def stop_when(done: Callable[[], bool], limit: float = 20.0) -> threading.Thread:
    """Send this process a SIGTERM as soon as something is so: the supervisor under test takes it."""

    def wait() -> None:
        deadline = time.monotonic() + limit
        while not done() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def run(folder: Path, services: list[Service], until: Callable[[Told], bool], **more: object) -> Told:
    told = Told()
    supervisor = Supervisor(folder / "run", services, told, back_off=0.1, **more)  # type: ignore[arg-type]
    over: list[bool] = []
    thread = stop_when(lambda: bool(over) or until(told))
    try:
        supervisor.run()
    finally:
        over.append(True)
        thread.join()
    return told


def process_of(told: Told, name: str) -> int:
    """The process that a service was ready with last."""
    line = [one for one in told if one.startswith(f"{name} is ready")][-1]
    return int(line.split("process ")[1].split(",")[0])


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def wait(done: Callable[[], bool], limit: float = 10.0) -> None:
    deadline = time.monotonic() + limit
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_signal_hurts() -> Iterator[None]:
    """A SIGTERM that comes late must not end the tests."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_services_start_in_order_and_stop_in_the_opposite_one(tmp_path: Path) -> None:
    second = "import os, sys; os.path.exists('first') or sys.exit(9); " + SLEEPER
    services = [
        service(tmp_path, "first", "import time; time.sleep(0.4); " + SLEEPER),
        service(tmp_path, "second", second, attempts=1),
    ]
    told = run(tmp_path, services, lambda told: told.said("all is up") > 0)
    order = [line.split(",")[0].split(" process")[0] for line in told if "is up" not in line]
    assert [line.split()[0] for line in order] == ["first", "second", "second", "first"]
    assert told.said("is stopped") == 2
    assert gone(process_of(told, "first"))
    assert gone(process_of(told, "second"))
    events = [json.loads(line) for line in (tmp_path / "run" / "log" / "events.jsonl").read_text().splitlines()]
    assert [f"{event['service']} {event['words']}" for event in events] == told
    assert not (tmp_path / "run" / "started.json").exists()


def test_a_killed_service_is_started_again_after_a_growing_pause(tmp_path: Path) -> None:
    told = Told()
    killed: list[int] = []

    def kill_twice() -> None:
        if len(killed) < 2 and (ready := told.said("one is ready")) > len(killed):
            assert ready == len(killed) + 1
            killed.append(process_of(told, "one"))
            os.kill(killed[-1], signal.SIGKILL)

    supervisor = Supervisor(
        tmp_path / "run", [service(tmp_path, "one", SLEEPER)], told, (Duty("kill", 0.1, kill_twice),), back_off=0.1
    )
    thread = stop_when(lambda: told.said("one is ready") == 3)
    supervisor.run()
    thread.join()
    assert [line for line in told if "killed by signal 9" in line and "started again in 0.1 s" in line]
    assert [line for line in told if "killed by signal 9" in line and "started again in 0.2 s" in line]
    assert len({*killed, process_of(told, "one")}) == 3


def test_one_that_never_gets_ready_ends_it_all_with_its_own_last_words(tmp_path: Path) -> None:
    broken = service(tmp_path, "broken", "import sys; print('\\x1b[91mno key\\x1b[0m'); sys.exit(5)", attempts=2)
    with pytest.raises(
        SuperviseError, match=r"broken does not start: it ended \(exit status 5\): no key \(all of it in"
    ):
        run(tmp_path, [service(tmp_path, "one", SLEEPER), broken], lambda told: False)
    assert psutil.Process().children(recursive=True) == []


def test_one_that_hangs_before_it_is_ready_counts_as_failed(tmp_path: Path) -> None:
    hangs = service(tmp_path, "hangs", "import time; time.sleep(100)", attempts=1, start_limit=0.3, grace=1.0)
    with pytest.raises(SuperviseError, match="was not ready within 0 s"):
        run(tmp_path, [hangs], lambda told: False)


def test_a_service_that_does_not_want_to_end_is_made_to_with_what_it_has_started(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)

    def two() -> bool:
        return len(list(tmp_path.glob("stubborn-*"))) == 2

    one = Service("s", (sys.executable, "stubborn.py"), dict(os.environ), tmp_path, ready=two, grace=0.3)
    started = time.monotonic()
    run(tmp_path, [one], lambda told: told.said("all is up") > 0)
    pids = [int(path.name.split("-")[1]) for path in tmp_path.glob("stubborn-*")]
    assert len(pids) == 2
    wait(lambda: all(map(gone, pids)))
    assert time.monotonic() - started < 8


def test_what_it_reads_has_changed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    told = run(
        tmp_path,
        [service(tmp_path, "one", SLEEPER, watched=(tmp_path / "key",), before=lambda: None)],
        lambda told: told.said("one is ready") == 2,
        duties=(Duty("renew", 100.0, lambda: (tmp_path / "key").write_text("a new one") and None),),
    )
    assert told.said("is started again: what it reads has changed") == 1
    assert told.said("ended") == 0  # no failure, no pause


def test_what_changes_while_it_is_prepared_starts_it_again(tmp_path: Path) -> None:
    key, reads = tmp_path / "key", []
    key.write_text("old")

    def before() -> None:
        reads.append(key.read_text())
        if len(reads) == 1:
            key.write_text("a new one")

    one = service(tmp_path, "one", SLEEPER, watched=(key,), before=before)
    run(tmp_path, [one], lambda told: told.said("one is ready") == 2)
    assert reads == ["old", "a new one"]


def test_what_cannot_be_prepared_counts_as_failed(tmp_path: Path) -> None:
    one = service(tmp_path, "one", SLEEPER, before=(tmp_path / "key").read_text, attempts=2)
    with pytest.raises(SuperviseError, match=r"one does not start: it could not be prepared: .*key: No such file"):
        run(tmp_path, [one], lambda told: False)


def test_events_that_cannot_be_noted_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "run" / "log" / "events.jsonl").mkdir(parents=True)  # as if the disk were full
    told = run(tmp_path, [service(tmp_path, "one", SLEEPER)], lambda told: told.said("all is up") > 0)
    assert told.said("one is stopped") == 1


def test_an_error_of_a_duty_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    count = []

    def fail() -> None:
        count.append(1)
        if len(count) < 4:
            raise ConsortiumError("The members cannot be read.")

    told = run(
        tmp_path, [service(tmp_path, "one", SLEEPER)], lambda told: len(count) > 5, duties=(Duty("members", 0.1, fail),)
    )
    assert told.said("The members cannot be read.") == 1
    assert told.said("members is well again") == 1


def test_two_supervisors_do_not_share_a_folder(tmp_path: Path) -> None:
    second: list[BaseException] = []

    def start_another() -> None:
        try:
            with pytest.raises(FolderBusy, match="are running already"):
                Supervisor(tmp_path / "run", [], Told()).run()
            second.append(FolderBusy())
        except BaseException as error:
            second.append(error)

    run(
        tmp_path,
        [service(tmp_path, "one", SLEEPER)],
        lambda told: bool(second),
        duties=(Duty("x", 100, start_another),),
    )
    assert [type(one) for one in second] == [FolderBusy]


SUPERVISED = """
import os, sys
from pathlib import Path
from quire.consortium.supervise import Service, Supervisor
folder = Path(sys.argv[1])
command = (sys.executable, "-c", open(folder / "program.py").read())
ready = lambda: len(list(folder.glob("alive-*"))) > 0
service = Service("one", command, dict(os.environ), folder, ready=ready, grace=0.3)
Supervisor(folder / "run", [service], lambda name, words: print(name, words, flush=True)).run()
"""


def supervised(folder: Path) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SUPERVISED, str(folder)]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ignores", [False, True], ids=["which take SIGTERM", "which ignore SIGTERM"])
def test_a_killed_supervisor_leaves_no_services(tmp_path: Path, ignores: bool) -> None:
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if ignores else ""
    (tmp_path / "program.py").write_text(
        f"import os, signal, time; {ignoring}\nopen('alive-' + str(os.getpid()), 'w')\ntime.sleep(100)"
    )
    first = supervised(tmp_path)
    wait(lambda: len(list(tmp_path.glob("alive-*"))) == 1)
    pid = int(next(tmp_path.glob("alive-*")).name.split("-")[1])
    first.kill()
    first.wait()
    if not ignores:  # the kernel tells it
        wait(lambda: gone(pid))
        return
    time.sleep(0.3)
    assert not gone(pid)  # nothing told it that it has to obey; the next start makes it
    (tmp_path / f"alive-{pid}").unlink()
    second = supervised(tmp_path)
    assert second.stdout is not None
    assert second.stdout.readline() == "all 1 processes of an earlier start were still there, and are ended\n"
    assert gone(pid)
    wait(lambda: len(list(tmp_path.glob("alive-*"))) == 1)
    other = int(next(tmp_path.glob("alive-*")).name.split("-")[1])
    second.terminate()
    assert second.wait(20) == 0
    assert gone(other)


def test_a_command_whose_parent_is_gone_never_begins(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-ISB",
        leash.__file__,
        "1",
        sys.executable,
        "-c",
        f"open({str(tmp_path / 'begun')!r}, 'w')",
    ]
    assert subprocess.run(command, check=False).returncode == 1
    assert not (tmp_path / "begun").exists()


def test_a_command_that_is_not_there_is_told_in_a_sentence() -> None:
    command = [sys.executable, "-ISB", leash.__file__, str(os.getpid()), "/nowhere/flower"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "/nowhere/flower cannot be started: No such file or directory\n")


def test_a_log_is_put_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(5):
            assert not rotate(log, most=100, copies=2)
            writer.write(str(number).encode() * 100)
            assert rotate(log, most=100, copies=2)
        writer.write(b"after\n")
    assert log.read_text() == "after\n"
    assert log.with_name("one.log.1").read_text() == "4" * 100
    assert log.with_name("one.log.2").read_text() == "3" * 100
    assert not log.with_name("one.log.3").exists()
    assert last_line(log) == "after"
    assert last_line(tmp_path / "none.log") == "it left no words"
    log.write_bytes("no\x1b[31m key\x1b]0;title\x07\x9b2J \u202ehere\x00\n\x1b[0m\n".encode())
    assert last_line(log) == "no key]0;title2J here"
