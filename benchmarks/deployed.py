"""A consortium on loopback for benchmarks: provisioned, approved, started by its commands, ended by process id.

Each silo reads a file of its own, as silos do: a part of the breast cancer rows that ship with scikit-learn, as CSV.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import harness

from quire.clients.gate.approvals import Approval, approvals_file, approve
from quire.consortium.about import Server
from quire.consortium.founding import init
from quire.consortium.joining import join
from quire.consortium.layout import OperatorFolder, SiloFolder
from quire.consortium.operator import opened
from quire.consortium.services import free_ports
from quire.consortium.silo import read_invitation, request
from quire.consortium.submit import make_bundle
from quire.consortium.superlink import runs_folder
from quire.simulation.flower_daemon import environment
from quire.simulation.processes import ProcessTree

POLICY = "modes: [none], aggregation: [secure, plain], code: [], min_cohort: 2, colluders: 0, test_seed: true"


class Deployed:
    """An operator's folder and those of silos, which share out the rows of a data set, and what is started over them.

    Parameters
    ----------
    count : int
        Silos.

    Attributes
    ----------
    home : pathlib.Path
        Below which everything lies; it goes at the end.
    operator : OperatorFolder
    silos : dict of str to SiloFolder
    processes : ProcessTree
        All that runs.
    """

    def __init__(self, count: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="q-", dir="/tmp"))
        self.port = free_ports(1)[0]
        self.processes = ProcessTree()
        self.variables = {
            **environment(os.environ, self.home, self.home),
            "PYTHONPATH": str(harness.ROOT),
            "OMP_NUM_THREADS": "1",  # the silos share the cores of one machine
            **self.processes.mark,
        }
        self.operator = OperatorFolder(self.home / "operator")
        self.silos = {
            name: SiloFolder(self.home / name) for name in (f"hospital-{number}" for number in range(1, count + 1))
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._provision()

    def __enter__(self) -> Deployed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        self.processes.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _provision(self) -> None:
        now = int(time.time())
        init(self.operator.root, "benchmark", Server("localhost", self.port), None, now=now)
        for name, silo in self.silos.items():
            with opened(self.operator.root, None, now) as operator:
                operator.invite(name, False, now)
            invitation = read_invitation(self.operator.invitation(name))
            asked = request(silo.root, invitation, invitation.identity("admin").fingerprint, now=now)
            with opened(self.operator.root, None, now) as operator:
                bulletin = operator.admit(asked, asked.identity("identity").fingerprint, 30, now)
            join(silo.root, bulletin, now=now)
        approved = make_bundle().content
        for place, (name, silo) in enumerate(self.silos.items()):
            join(silo.root, self.operator.bulletin, now=now)
            (pinned,) = [line for line in silo.silo_file.read_text().splitlines() if line.startswith("roster: ")]
            silo.silo_file.write_text(
                f"name: {name}\ndata: {{connector: csv, path: rows.csv}}\n"
                f"population: {{name: rows-{place}, records: 100}}\nidentity: identity/silo.key\n"
                f"{pinned}\npolicy: {{{POLICY}}}\n"
            )
            write_rows(silo.silo_file.parent, self.operator.root, place, len(self.silos))
            approve(approvals_file(silo.silo_file), Approval((approved,)))

    def start(self, names: Sequence[str] | None = None) -> float:
        """Start the server and all silos, or some of them, and return the seconds until all are up."""
        began = time.monotonic()
        for name in names or ["server", *self.silos]:
            folder = self.operator.root if name == "server" else self.silos[name].root
            what = ["superlink" if name == "server" else "silo", "start", str(folder)]
            what += ["--listen", f"127.0.0.1:{self.port}"] if name == "server" else []
            with (self.home / f"{name}.out").open("ab") as out:
                self.running[name] = subprocess.Popen(
                    [sys.executable, "-m", "quire", *what], cwd=self.home, env=self.variables, stdout=out, stderr=out
                )
            self.processes.add(self.running[name].pid)
        for name in self.running:
            self.wait(lambda name=name: self.said(name, "all", "is up") > 0, 300.0)
        for name in set(self.running) - {"server"}:
            log = self.silos[name].root / "run" / "log" / "gate.log"
            self.wait(lambda log=log: "imported ahead of messages" in log.read_text(), 300.0)
        return time.monotonic() - began

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what a supervisor has told."""
        folder = self.operator.root if name == "server" else self.silos[name].root
        file = folder / "run" / "log" / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def said(self, name: str, service: str, words: str) -> int:
        """Return how often a supervisor has told of something."""
        return sum(event["service"] == service and words in event["words"] for event in self.events(name))

    def wait(self, done: Callable[[], bool], limit: float) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + limit
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(self.logs())
            time.sleep(0.05)

    def submit(self, overrides: str) -> Path:
        """Send a run and return its folder, which may not be there yet."""
        before = set(self._folders())
        done = subprocess.run(
            [sys.executable, "-m", "quire", "submit", str(self.operator.root), *overrides.split()],
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.wait(lambda: set(self._folders()) > before, 120.0)
        (fresh,) = set(self._folders()) - before
        return fresh

    def _folders(self) -> list[Path]:
        root = runs_folder(self.operator)
        return list(root.iterdir()) if root.exists() else []

    def reached(self, run: Path, rounds: int | None = None, limit: float = 900.0) -> None:
        """Wait until a run has come through so many rounds, or to its end.

        Raises
        ------
        RuntimeError
            If it ended otherwise.
        """

        def status() -> str:
            try:
                return str(json.loads((run / "run.json").read_text())["status"])
            except (OSError, ValueError):
                return "running"

        self.wait(lambda: status() != "running" or (rounds is not None and len(rounds_of(run)) >= rounds), limit)
        if status() not in ("running", "completed"):
            raise RuntimeError((run / "run.json").read_text() + self.logs())

    def logs(self) -> str:
        """Return the ends of all logs."""
        paths = [*self.home.glob("*.out"), *self.home.glob("*/run/log/*.log")]
        return "\n".join(
            f"--- {path.relative_to(self.home)}\n{path.read_text(errors='replace')[-2000:]}" for path in paths
        )


def write_rows(silo: Path, operator: Path, place: int, parts: int) -> None:
    """Write one silo's rows, and the schema that all have."""
    from sklearn.datasets import load_breast_cancer

    columns, target = load_breast_cancer(return_X_y=True)
    names = [f"x{number}" for number in range(columns.shape[1])]
    lines = [",".join([*names, "y"])]
    lines += [",".join([*map(repr, row.tolist()), str(label)]) for row, label in zip(columns, target, strict=True)]
    (silo / "rows.csv").write_text("\n".join([lines[0], *lines[1 + place :: parts]]) + "\n")
    bounds = "".join(
        f"  {name}: {{low: {low!r}, high: {high!r}}}\n"
        for name, low, high in zip(names, columns.min(axis=0).tolist(), columns.max(axis=0).tolist(), strict=True)
    )
    told = "target: {name: y, kind: classification, classes: [0, 1]}"
    for folder in (silo, operator):
        (folder / "schema.yaml").write_text(f"columns:\n{bounds}{told}\n")


def rounds_of(run: Path) -> list[dict[str, Any]]:
    """Return the journal's lines about rounds."""
    try:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError):
        return []
    return [line for line in lines if line["event"] == "round"]
