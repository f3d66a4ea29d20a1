"""Flower's own programs with Flower's own settings, for benchmarks: a SuperLink, SuperNodes, and a small app.

The app does what a round of secure aggregation is to the network, four exchanges with all nodes, by
``Grid.send_and_receive``. With ``torch=true`` its client imports torch, as an app that trains does. With
``secure=true`` it is the protocol of :mod:`quire.privacy.secagg` itself, session and round, by a client without torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import harness
import psutil

from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.processes import ProcessTree

# SuperNodes that are started all at once, and seconds between two of more.
FEW, PAUSE = 8, 1.5

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "rounds"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "rounds.server:app"
clientapp = "rounds.client:app"
[tool.flwr.app.config]
out = ""
nodes = 1
rounds = 1
torch = false
secure = false
"""
CLIENT = """
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.query()
def query(message, context):
    if context.run_config["torch"]:
        import torch
    if context.run_config["secure"]:
        import secagg_node
        return secagg_node.answer(message, context)
    return Message(message.content, reply_to=message)
"""
SERVER = """
import json, time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    config = context.run_config
    while len(nodes := sorted(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.5)
    if config["secure"]:
        import secagg_node
        figures = secagg_node.rounds(grid, nodes)
    else:
        figures = []
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(31, dtype=np.float32))})})
        for _ in range(config["rounds"]):
            stages = []
            for _ in range(4):
                began = time.perf_counter()
                replies = list(grid.send_and_receive([Message(content, node, "query") for node in nodes]))
                assert len(replies) == len(nodes) and not any(reply.has_error() for reply in replies)
                stages.append(time.perf_counter() - began)
            figures.append(stages)
    with open(config["out"], "w") as file:
        json.dump(figures, file)
"""


class Federation:
    """A SuperLink in memory, without TLS, and SuperNodes that start their own programs: all as Flower comes.

    Parameters
    ----------
    nodes : int
    """

    def __init__(self, nodes: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="q-", dir="/tmp"))
        self.nodes = nodes
        self._given_up: str | None = None
        self.processes = ProcessTree()
        found = environment(os.environ, self.home, self.home)
        del found["QUIRE_RUN_DIR"]
        path = os.pathsep.join([str(harness.ROOT), str(Path(__file__).resolve().parent)])
        self.variables = {**found, **self.processes.mark, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.app = self.home / "app"
        for name, text in (("pyproject.toml", PYPROJECT), ("rounds/client.py", CLIENT), ("rounds/server.py", SERVER)):
            place = self.app / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        (self.app / "rounds" / "__init__.py").touch()
        (self.home / "empty").mkdir()
        (self.home / "flwr").mkdir()

    def __enter__(self) -> Federation:
        port = free_port()
        (self.home / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        self.link = self._start("superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", port)
        for number in range(self.nodes):
            time.sleep(0.0 if self.nodes <= FEW else PAUSE)
            where = ("--insecure", "--superlink", f"127.0.0.1:{port}", "--port", free_port())
            self._start(f"node-{number}", "flower-supernode", *where, "--node-config", f"number={number}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.processes.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _start(self, name: str, *command: object) -> int:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.home / "empty",
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.add(process.pid)
        return process.pid

    def give_up(self, why: str) -> None:
        """End all processes; whoever waits for a run is told why."""
        self._given_up = why
        self.processes.stop()

    def run(self, limit: float = 600.0, **config: object) -> Any:
        """Run the app, and return what its server has written down."""
        out = self.home / f"out-{time.monotonic_ns()}.json"
        told = {"out": str(out), "nodes": self.nodes, **config}
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in told.items())
        deadline = time.monotonic() + limit
        while (done := self._submit(words)).returncode:
            self._check(deadline, done.stdout + done.stderr)
            time.sleep(0.5)
        while not out.exists() or not out.read_text().endswith("]"):
            self._check(deadline, "")
            time.sleep(0.1)
        return json.loads(out.read_text())

    def _check(self, deadline: float, words: str) -> None:
        if self._given_up is not None:
            raise RuntimeError(self._given_up)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end in time\n{words}\n{self.logs()}")

    def _submit(self, words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["flwr", "run", str(self.app), "here", "--run-config", words],
            cwd=self.home / "empty",
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def logs(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in self.home.glob("*.log")
        )


def cpu_seconds(tree: ProcessTree) -> float:
    """Return the seconds of processor time that living processes and their ended children have taken."""
    return sum(roles(tree, {}).values())


def roles(tree: ProcessTree, names: Mapping[str, str]) -> dict[str, float]:
    """Return the seconds of processor time by role: living processes, with the ended children that they waited for.

    Parameters
    ----------
    tree : ProcessTree
    names : mapping of str to str
        For each role, words that only the command lines of its processes have; the first that fits counts.
    """
    found = dict.fromkeys([*names, "others"], 0.0)
    for process in tree.update():
        try:
            line, spent = " ".join(process.cmdline()), sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
        found[next((role for role, words in names.items() if words in line), "others")] += spent
    return found


def memory(tree: ProcessTree) -> float:
    """Return the bytes that processes hold: their own, and their part of what they share (PSS)."""
    total = 0
    for process in tree.update():
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return float(total)
