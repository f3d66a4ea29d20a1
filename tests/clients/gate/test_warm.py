"""The warm process: what a message gets of it, what none gets, and that everything works without it."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from gate_site import ROOT, Site
from node import Node

from quire.clients.gate import knock, warm
from quire.clients.gate.approvals import Approval, approvals_file, approve
from quire.clients.gate.launch import write_commands

WARM = str(Path(warm.__file__).resolve())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Node() as node:
        site = Site(tmp_path_factory.mktemp("site"), node)
        approve(approvals_file(site.silo), Approval((site.hash,)))
        yield site
        site.close()


def process_of(site: Site) -> psutil.Process:
    """The warm process: the one that is nobody's fork."""
    (found,) = [child for child in psutil.Process(site.process.pid).children() if WARM in child.cmdline()]
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_message_is_handled_by_forks_that_know_of_no_other_message(site: Site) -> None:
    one = site.ask("spoil").content["told"]
    two = site.ask("tell").content["told"]
    for told in (one, two):
        assert WARM.encode() in told["started"]
        assert told["session"] == told["process"]  # as one that was started: a group of its own
        assert told["folder"] == told["home"]
    assert (one["temporary"], two["temporary"]) == ("/nowhere", two["home"])
    assert (one["spoilt"], two["spoilt"]) == (True, False)
    assert one["random"] != two["random"]
    assert one["process"] != two["process"]
    assert one["home"] != two["home"]
    assert one["modules"] == [*two["modules"], "left"] or set(one["modules"]) - set(two["modules"]) == {"left"}
    assert len(one["open"]) == len(two["open"])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_approved_code_is_given_the_same_whether_it_was_forked_or_started(site: Site, tmp_path: Path) -> None:
    with Node() as node:
        cold = Site(tmp_path, node, "none")
        approve(approvals_file(cold.silo), Approval((cold.hash,)))
        started = cold.ask("tell").content["told"]
        cold.close()
    forked = site.ask("tell").content["told"]
    assert WARM.encode() not in started["started"]
    assert forked["environment"] == started["environment"]
    assert forked["path"][1:] == started["path"][1:]  # the first is the bundle's own folder
    assert len(forked["open"]) == len(started["open"])
    assert not {name for name in started["modules"] if name not in forked["modules"]} - {"gate_worker", "__mp_main__"}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_approved_code_that_knocks_is_not_answered(site: Site) -> None:
    assert site.ask("knock").content["told"]["heard"] == b""
    assert not site.ask("tell").content["told"]["spoilt"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_messages_are_handled_without_the_warm_process_and_it_does_not_outlive_the_gate(tmp_path: Path) -> None:
    with Node() as node:
        site = Site(tmp_path, node)
        approve(approvals_file(site.silo), Approval((site.hash,)))
        found = process_of(site)
        found.kill()
        while found.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.05)
        assert WARM.encode() not in site.ask("tell").content["told"]["started"]
        site.close()
    with Node() as node:
        (tmp_path / "again").mkdir()
        site = Site(tmp_path / "again", node)
        found = process_of(site)
        site.process.kill()  # SIGKILL: nobody can tidy up
        site.process.wait()
        psutil.wait_procs([found], timeout=20)
        assert not found.is_running()


def test_what_was_not_taken_is_started_cold_and_what_was_is_not(tmp_path: Path) -> None:
    """Whoever answers at the socket: a task is begun once."""
    write_commands(tmp_path, ["flwr-clientapp"], warm=tmp_path / "warm")
    for answer, status in ((b"", 0), (b"t", 1), (b"t\x07", 7)):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(tmp_path / "warm"))
            listener.listen()
            process = subprocess.Popen(
                [tmp_path / "flwr-clientapp", "--help"],
                env={"QUIRE_GATE": '{"silo": "s", "pass": []}', "PATH": os.defpath},
                stdout=subprocess.PIPE,
            )
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as asked:
                told = json.loads(asked.read(int.from_bytes(asked.read(8), "big")))
                connection.sendall(answer)
        (tmp_path / "warm").unlink()
        printed, _ = process.communicate(timeout=60)
        assert told["arguments"] == ["--help"]
        assert process.returncode == status
        assert (b"Quire's gate" in printed) is (not answer)


def test_a_process_with_a_thread_that_stays_is_not_forked(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('as some package does')\n")
    program = (
        f"import sys; sys.path[:0] = [{str(Path(WARM).parent)!r}, {str(tmp_path)!r}]; import warm; "
        "warm.CHOICES['test'] = ('not_there', 'broken', 'threaded'); sys.exit(warm.serve(sys.argv[1], 'test'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "socket")],
        input="1\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("gate: threads run after the imports (")
    assert "as some package does" in done.stderr
    assert not (tmp_path / "socket").exists()


def test_what_is_imported_leaves_no_thread_and_nothing_of_ours() -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(Path(WARM).parent)!r}]; import warm; warm.import_all(warm.CHOICES['all']); "
        "print(len(warm.threads_after_a_fork()), 'torch' in sys.modules, "
        "[name for name in sys.modules if name.startswith('quire')])"
    )
    done = subprocess.run([sys.executable, "-Ic", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "1 True []\n"


def test_memory_can_be_closed_to_others_and_opened_again() -> None:
    libc = ctypes.CDLL(None)
    for may in (0, 1):
        child = os.fork()
        if not child:
            warm.open_to_others(bool(may))
            os._exit(libc.prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == may


def test_who_knocks_where_nobody_is_starts_cold(tmp_path: Path) -> None:
    """The script that Flower starts, with words that a shell would take apart."""
    write_commands(tmp_path, ["flwr-clientapp"], warm=tmp_path / "no body's" / "warm")
    script = (tmp_path / "flwr-clientapp").read_text()
    assert str(Path(knock.__file__).resolve()) in script
    done = subprocess.run(
        [tmp_path / "flwr-clientapp", "--help"],
        env={"QUIRE_GATE": '{"silo": "s", "pass": []}', "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Quire's gate, in the place of flwr-clientapp." in done.stdout
    assert str(ROOT) in script


COMPUTE = """
import os, random, signal, sys
sys.path[:0] = [sys.argv[1]]
import warm
warm.import_all(warm.CHOICES["all"])
warm.threads_after_a_fork()
found = []
for _ in range(2):
    back, out = os.pipe()
    if not (child := os.fork()):
        warm._as_new({signal.SIGTERM: signal.SIG_DFL})
        import numpy, pandas, torch
        from sklearn.linear_model import LogisticRegression
        one = numpy.ones((400, 400))
        assert (one @ one == 400).all()  # OpenBLAS, with threads of its own
        two = torch.ones(400, 400, requires_grad=True)
        (two @ two).sum().backward()  # torch, with threads of its own, and autograd's
        assert (two.grad == 800).all()
        LogisticRegression().fit(numpy.arange(20.0).reshape(-1, 1), numpy.arange(20) > 9)
        pandas.DataFrame({"a": ["x", "y"]}).groupby("a").size()
        os.write(out, f"{numpy.random.random()} {random.random()} {os.urandom(4).hex()}".encode())
        os._exit(0)
    os.close(out)
    assert os.waitpid(child, 0)[1] == 0
    found += os.read(back, 200).split()
assert len(set(found)) == len(found) == 6, found
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_was_imported_computes_after_the_fork_and_no_random_number_comes_twice() -> None:
    folder = str(Path(WARM).parent)
    done = subprocess.run(
        [sys.executable, "-Ic", COMPUTE, folder], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_warm_process_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """It was stopped, say: the kernel goes on taking connections for it."""
    asking = (
        f"import sys; sys.path[:0] = [{str(Path(knock.__file__).parent)!r}]; import knock; knock.PATIENCE = 0.5; "
        "sys.exit(knock.main(sys.argv[1:]))"
    )
    cold = [sys.executable, "-c", "print('started cold')"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "warm"))
        listener.listen()
        done = subprocess.run(
            [sys.executable, "-c", asking, str(tmp_path / "warm"), "where", "flwr-clientapp", str(len(cold)), *cold],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "started cold\n"), done.stderr
        connection, _ = listener.accept()
        with connection, pytest.raises(BrokenPipeError):
            connection.sendall(b"t")  # so that whoever comes to it late begins nothing
