"""Secure aggregation in earnest, through two doors: Flower's simulation engine, and a SuperLink with three SuperNodes.

On the SuperLink one SuperNode is killed in the middle of a round. The model is the plain mean of what the others
train, worked out here without a server's code.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from gated import checkout
from safetensors.numpy import load_file
from secure_runs import BASE, apart, bound_of, rounds_of
from secure_silos import first_model, overrides_of, plain_mean, write_silos

import quire
from quire.conf.compose import compose
from quire.privacy.secagg.state import Stage
from quire.simulation.flower import run_flower
from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.processes import ProcessTree
from quire.strategies.folder import read_about

pytestmark = pytest.mark.slow
SILOS = 3
OTHERS, VICTIM = ["hospital-1", "hospital-2"], "hospital-3"


@pytest.mark.timeout(600)
def test_flowers_simulation_engine_comes_to_the_inline_model(tmp_path: Path) -> None:
    overrides = f"{BASE} partition.silos=3 strategy.rounds=2 aggregation=secure"
    inline = quire.run(overrides, tmp_path / "inline")
    found = run_flower(compose(f"{overrides} runtime=flower"), tmp_path / "flower")
    assert found.model == inline.model
    assert read_about(tmp_path / "flower")["runtime"] == "flower"
    for mine, theirs in zip(rounds_of(tmp_path / "flower"), rounds_of(tmp_path / "inline"), strict=True):
        assert mine["replied"] == theirs["replied"]
        assert (mine["train"], mine["evaluate"]) == (theirs["train"], theirs["evaluate"])
        (attempt,) = mine["secure"]["attempts"]
        assert attempt["error"] is None
        assert attempt["u3"] == [f"hospital-{place}" for place in (1, 2, 3)]


class Hospitals:
    """A SuperLink, and SuperNodes with a policy, a key, a store and a pinned roster each."""

    def __init__(self, folder: Path, *policy: str) -> None:
        self.home, self.files = Path(tempfile.mkdtemp(prefix="q-")), write_silos(folder / "silos", SILOS, *policy)
        self.flwr_home, self.empty = self.home / "flwr", self.home / "empty"
        for place in (self.flwr_home, self.empty):
            place.mkdir()
        self.processes, self.nodes = ProcessTree(), dict[str, int]()
        self.variables = {**environment(os.environ, self.home, self.home), **self.processes.mark}
        del self.variables["QUIRE_RUN_DIR"]
        self.address, self.run, self.app = f"127.0.0.1:{free_port()}", folder / "run", checkout(folder / "app")
        (self.flwr_home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{self.address}"\ninsecure = true\n'
        )

    def start(self) -> None:
        self._start(
            "superlink",
            *("flower-superlink", "--insecure", "--isolation", "subprocess", "--host", "127.0.0.1"),
            *("--port", self.address.split(":")[1], "--disable-runtime-dependency-installation"),
            QUIRE_RUN_DIR=str(self.run),
            QUIRE_ROSTER=str(self.files["hospital-1"].parents[1] / "roster.json"),
        )
        for name, path in self.files.items():
            self.nodes[name] = self._start(
                name,
                *("flower-supernode", "--insecure", "--superlink", self.address, "--port", str(free_port())),
                *("--node-config", f'silo="{path}"'),
                FLWR_HOME=str(self.home / name),
            )

    def _start(self, name: str, *command: str, **variables: str) -> int:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.empty, env={**self.variables, **variables}, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.add(process.pid)
        return process.pid

    def submit(self, overrides: str) -> None:
        command = ("flwr", "run", ".", "loopback", "--run-config", f'overrides="{overrides}"', "--format", "json")

        def accepted() -> bool:
            done = subprocess.run(
                command, cwd=self.app, env=self.variables, capture_output=True, text=True, check=False
            )
            return '"run-id"' in done.stdout

        self.wait(accepted, 300.0)

    def wait(self, done: Callable[[], bool], limit: float) -> None:
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def stages(self, silo: str) -> list[int]:
        """Return the stages of secure aggregation that a silo has written down, in order."""
        path = self.files[silo].parent / "store" / "counters.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return [line["stage"] for line in told if str(line.get("session", "")).endswith(".secure")]

    def kill(self, silo: str) -> None:
        """End a SuperNode, and all that it has started, at once."""
        node = psutil.Process(self.nodes[silo])
        for process in [node, *node.children(recursive=True)]:
            process.send_signal(signal.SIGKILL)

    def logs(self) -> str:
        texts = [f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in self.home.glob("*.log")]
        return "\n".join(texts)

    def close(self) -> None:
        assert self.processes.stop() == []
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path)
    made.start()
    yield made
    made.close()


@pytest.mark.timeout(1800)
def test_a_supernode_is_killed_in_the_middle_of_a_round(hospitals: Hospitals) -> None:
    overrides = overrides_of(SILOS, 1, "runtime.join_timeout=300")
    hospitals.submit(overrides)
    # It has begun the round, and dies while it trains, deals or masks.
    hospitals.wait(lambda: Stage.SHARED in hospitals.stages(VICTIM), 800.0)
    hospitals.kill(VICTIM)
    hospitals.wait(lambda: (hospitals.run / "run.json").exists(), 10.0)
    hospitals.wait(lambda: read_about(hospitals.run)["status"] != "running", 800.0)
    about, (line,) = read_about(hospitals.run), rounds_of(hospitals.run)
    assert (about["status"], about["error"], about["runtime"]) == ("completed", None, "deployment"), hospitals.logs()

    assert line["replied"] in (OTHERS, [*OTHERS, VICTIM])  # with it, if its vector had left before it was killed
    expected = plain_mean(overrides, first_model(overrides), line["replied"], 1)
    bound = bound_of(overrides, 120 * len(line["replied"]), len(line["replied"]))  # each silo has more than 120 rows
    assert apart(expected, load_file(hospitals.run / "model.safetensors")) <= bound + 1e-6  # float32
    assert {one["silo"] for one in line["failed"]} == {VICTIM}

    assert line["silos"] == {}  # no silo's own figures: not its rows, its loss nor its scores
    assert line["evaluate"] is None
    assert [hospitals.stages(name).count(Stage.UNMASKED) for name in (*OTHERS, VICTIM)] == [1, 1, 0]
