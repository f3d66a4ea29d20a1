"""A SuperLink and SuperNodes with keys, stores and a pinned roster, as processes of their own on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import warm_nodes
from gated import ROOT, checkout
from secure_silos import stages_of, write_silos

from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.processes import ProcessTree

SILOS = 3


class Hospitals:
    """A SuperLink, and SuperNodes with a policy, a key, a store and a pinned roster each.

    Attributes
    ----------
    own : dict of str to dict
        By silo, variables of its SuperNode alone; for whoever sets them before the start.
    in_one_process : set of str
        Silos without a SuperNode, which answer as in an enclave: a second for what takes a SuperNode's processes five.
    """

    def __init__(self, folder: Path, *policy: str, silos: int = SILOS) -> None:
        self.home, self.files = Path(tempfile.mkdtemp(prefix="q-")), write_silos(folder / "silos", silos, *policy)
        self.flwr_home, self.empty = self.home / "flwr", self.home / "empty"
        for place in (self.flwr_home, self.empty):
            place.mkdir()
        self.processes, self.nodes = ProcessTree(), dict[str, int]()
        self.own, self.in_one_process = dict[str, dict[str, str]](), set[str]()
        self.variables = {**environment(os.environ, self.home, self.home), **self.processes.mark}
        del self.variables["QUIRE_RUN_DIR"]
        self.address, self.run, self.app = f"127.0.0.1:{free_port()}", folder / "run", checkout(folder / "app")
        (self.flwr_home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{self.address}"\ninsecure = true\n'
        )

    def start(self, **variables: str) -> None:
        """Start all; the variables are the SuperLink's alone."""
        self._start(
            "superlink",
            *("flower-superlink", "--insecure", "--isolation", "subprocess", "--host", "127.0.0.1"),
            *("--port", self.address.split(":")[1], "--disable-runtime-dependency-installation"),
            QUIRE_RUN_DIR=str(self.run),
            QUIRE_ROSTER=str(self.files["hospital-1"].parents[1] / "roster.json"),
            **variables,
        )
        for name, path in self.files.items():
            if name in self.in_one_process:
                arguments = ("--work", "--superlink", self.address, "--silo", str(path), "--insecure")
                command = (sys.executable, "-m", "quire.enclave.inside", *arguments)
                self.nodes[name] = self._start(name, *command, PYTHONPATH=str(ROOT))
                continue
            node = ("flower-supernode", "--insecure", "--superlink", self.address, "--port", str(free_port()))
            own = {"FLWR_HOME": str(self.home / name), **self.own.get(name, {})}
            self._start_node(name, *node, "--node-config", f'silo="{path}"', **own)

    def _start_node(self, name: str, *command: str, **variables: str) -> None:
        self.nodes[name] = self._start(name, *command, **variables)

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
        return stages_of(self.files[silo].parent)

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


class ManyHospitals(Hospitals):
    """The same with more silos, whose processes are forked; see :mod:`warm_nodes`."""

    def start(self, **variables: str) -> None:
        with (self.home / "nodes.log").open("ab") as log:
            self._warm = subprocess.Popen(
                [sys.executable, str(Path(warm_nodes.__file__).resolve())],
                cwd=self.empty,
                env=self.variables,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.add(self._warm.pid)
        super().start(**variables)

    def _start_node(self, name: str, *command: str, **variables: str) -> None:
        environment = {**self.variables, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.3", **variables}
        log = str(self.home / f"{name}.log")
        self._tell({"start": {"node": name, "command": command, "environment": environment, "log": log}})

    def _tell(self, what: dict[str, Any]) -> None:
        pipe = self._warm.stdin
        assert pipe is not None
        pipe.write(json.dumps(what).encode() + b"\n")
        pipe.flush()

    def kill(self, silo: str) -> None:
        self._tell({"kill": silo})

    def close(self) -> None:
        super().close()
        if self._warm.stdin is not None:
            self._warm.stdin.close()
        self._warm.wait()
