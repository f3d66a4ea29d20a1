"""A run whose server is killed, start and all, goes on under a new start: no round is lost, what is paid is known."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from heart import charges
from provisioned import provision
from proxied import needs_haproxy
from running import SERVER, Running

from quire.consortium.about import Server
from quire.consortium.services import free_ports

NAMES = ["clinic", "ward"]
ROUNDS = 4
POLICY = "modes: [record], aggregation: [plain], code: [], epsilon: 40, delta: 1.0e-4, min_cohort: 2, colluders: 0"
RUN = (
    f"task=breast_cancer partition=iid partition.silos=2 strategy.min_silos=2 strategy.rounds={ROUNDS} "
    "privacy=record privacy.epsilon=8 data.preprocessing=public training.steps=2 runtime.join_timeout=600 "
    "output.report=false output.baselines=false output.progress=none"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_haproxy]


@pytest.fixture
def consortium() -> Iterator[Running]:
    home, port = Path(tempfile.mkdtemp(prefix="q-")), free_ports(1)[0]
    made = provision(home, NAMES, Server("localhost", port), POLICY)
    folders = {SERVER: made.operator.root, **{name: silo.root for name, silo in made.silos.items()}}
    running = Running(home, folders, f"127.0.0.1:{port}")
    try:
        bundle = home / "quire.fab"
        running.good("submit", folders[SERVER], "--bundle", bundle)
        for name in NAMES:
            running.good("app", "approve", bundle, "--silo", folders[name] / "silo.yaml")
        running.start_all()
        yield running
    finally:
        left = running.close()
    assert left == []


def paid(running: Running, name: str, run: str) -> list[int]:
    """Return the rounds of a run that a silo's ledger was charged for, one entry for each charge."""
    population = f"breast-{NAMES.index(name)}"
    return [one["round"] for one in charges(running.folders[name], population) if one["session"] == f"run-{run}"]


def rounds(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True) if folder.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["round"] for event in events if event["event"] == "round"]


def kill_all(running: Running, name: str) -> None:
    """End a start and whatever it has started, at once, as a power cut would."""
    supervisor = psutil.Process(running.running[name].pid)
    for process in [supervisor, *supervisor.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    running.running.pop(name).wait()


def test_a_run_outlives_the_start_of_the_server(consortium: Running) -> None:
    operator = consortium.folders[SERVER]
    first = consortium.good("submit", operator, *RUN.split()).split()[1].rstrip(",")
    folder = operator / "runs" / first
    consortium.wait(lambda: all(2 in paid(consortium, name, first) for name in NAMES), 600.0)
    kill_all(consortium, SERVER)
    done = rounds(folder)
    assert done in ([1], [1, 2], [1, 2, 3])
    consortium.start(SERVER)
    consortium.wait(lambda: consortium.said(SERVER, "all", "is up") == 2, 300.0)

    went_on = consortium.follow("submit", operator, "--resume", first, "--wait")
    consortium.wait(lambda: len(rounds(folder)) > len(done) or went_on.poll() is not None, 600.0)
    if len(rounds(folder)) < ROUNDS:  # on a slow machine the run is over before anybody can ask
        twice = consortium.call("submit", operator, "--resume", first)
        assert twice.returncode == 2, twice.stdout + twice.stderr
        assert twice.stderr.count("\n") == 1
    said = went_on.communicate(timeout=900)[0]
    assert went_on.returncode == 0, said + consortium.logs()
    (words,) = [line for line in said.splitlines() if f"goes on with run {first} after round {len(done)}." in line]
    second = words.split()[1]
    assert "round 1:" not in said  # it was told of before

    assert rounds(folder) == list(range(1, ROUNDS + 1))
    assert json.loads((folder / "run.json").read_text())["status"] == "completed"
    assert (operator / "runs" / second).resolve() == folder.resolve()
    assert consortium.good("verify", folder)
    for name in NAMES:
        # Before the kill a charge for each round that was done, and for one that may have been under way; after it
        # one for each that was not done.
        assert paid(consortium, name, first) in (done, [*done, len(done) + 1])
        assert paid(consortium, name, second) == list(range(len(done) + 1, ROUNDS + 1))
        consortium.good("ledger", "verify", consortium.folders[name] / "silo.yaml")

    lines = {one["run"]: one for one in map(json.loads, consortium.good("runs", operator, "--json").splitlines())}
    assert (lines[int(first)]["status"], lines[int(first)]["continued"]) == ("continued", int(second))
    assert (lines[int(second)]["status"], lines[int(second)]["continues"]) == ("completed", int(first))
    over = consortium.call("submit", operator, "--resume", second)
    assert over.returncode == 2
    assert "is complete: there is nothing to resume" in over.stderr
