"""A private federation in earnest: a SuperLink and three SuperNodes, each with its policy, its keys and its books.

Nothing is simulated: no seed, fresh noise, no metrics. One deployment serves four runs one after the other, as a real
one would: two that all silos can pay for, and two after which one of them has not enough left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated import checkout
from safetensors.numpy import load_file

from quire.clients.code import hash_of_sources
from quire.clients.identity import load_identity, new_identity
from quire.clients.identity.rosters import Change, first_roster, sign_roster, write_new
from quire.privacy.identity.signed import SignedRoster
from quire.privacy.receipts import Receipt
from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.processes import ProcessTree

SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
RECORDS = 60
NAMES = ("clinic-1", "clinic-2", "clinic-3")
#: One run takes 2, two together 2.70, three 3.21: the third silo cannot pay for a third.
CAPS = {"clinic-1": 8.0, "clinic-2": 8.0, "clinic-3": 3.0}
RUN = (
    "task=tabular partition.silos=3 strategy.rounds=2 strategy.min_silos=2 training.batch_size=12 training.steps=4 "
    "privacy=record privacy.epsilon=2 privacy.delta=1e-4 runtime.join_timeout=60"
)
CANARY = "Ottoline"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


class Hospitals:
    """A deployment: where everything of it lies, and how it is spoken to."""

    def __init__(self, folder: Path) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="q-"))
        self.flwr_home, self.empty = self.home / "flwr", self.home / "empty"
        for place in (self.flwr_home, self.empty):
            place.mkdir()
        self.silos = {name: folder / name for name in NAMES}
        self.roster = folder / "roster.json"
        self.processes = ProcessTree()
        self.variables = {**environment(os.environ, self.home, self.home), **self.processes.mark}
        del self.variables["QUIRE_RUN_DIR"]
        self.address = f"127.0.0.1:{free_port()}"
        (self.flwr_home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{self.address}"\ninsecure = true\n'
        )
        self.app = checkout(folder / "app")
        self._write_silos(folder)

    def _write_silos(self, folder: Path) -> None:
        members = {}
        for name, silo in self.silos.items():
            silo.mkdir()
            members[name] = new_identity(silo / "silo.key", name=name)
        admin = new_identity(folder / "admin.key")
        now = int(datetime.now(UTC).timestamp())
        change = Change(members, {"anna": admin}, valid_from=now - 60, valid_to=now + 86_400)
        signed = sign_roster(SignedRoster(first_roster("clinics", change)), load_identity(folder / "admin.key"))
        write_new(self.roster, signed)
        self.pin = signed.roster.hash
        code = hash_of_sources({file.relative_to(self.app).as_posix(): file.read_bytes() for file in self._sources()})
        for number, (name, silo) in enumerate(self.silos.items(), start=1):
            rng = np.random.default_rng(number)
            age = rng.integers(10, 90, RECORDS + number)  # not the number that is declared
            rows = "".join(f"{a},{int(a + rng.normal(0, 9) > 50)},{CANARY}\n" for a in age)
            (silo / "rows.csv").write_text(f"age,sick,name\n{rows}")
            (silo / "schema.yaml").write_text(SCHEMA)
            shutil.copy(self.roster, silo / "roster.json")
            (silo / "silo.yaml").write_text(
                f"name: {name}\ndata: {{connector: csv, path: rows.csv}}\n"
                f"population: {{name: {name}, records: {RECORDS}}}\n"
                f"witness: ../{name}.witness\nroster: {{file: roster.json, hash: {signed.roster.hash}}}\n"
                "policy:\n  modes: [record]\n  aggregation: [plain]\n"
                f"  code: ['{code}']\n  epsilon: {CAPS[name]}\n  delta: 1.0e-4\n"
                "  min_cohort: 2\n  colluders: 0\n  test_seed: false\n"
            )

    def _sources(self) -> list[Path]:
        return [path for path in self.app.rglob("*.*") if path.is_file()]

    def start(self) -> None:
        self._start(
            "superlink",
            *("flower-superlink", "--insecure", "--isolation", "subprocess", "--host", "127.0.0.1"),
            *("--port", self.address.split(":")[1], "--disable-runtime-dependency-installation"),
            QUIRE_SCHEMA=str(self.silos["clinic-1"] / "schema.yaml"),
            QUIRE_ROSTER=str(self.roster),
        )
        for name, silo in self.silos.items():
            self._start(
                name,
                *("flower-supernode", "--insecure", "--superlink", self.address, "--port", str(free_port())),
                *("--node-config", f'silo="{silo}/silo.yaml"'),
                FLWR_HOME=str(self.home / name),
            )

    def _start(self, name: str, *command: str, **variables: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.empty, env={**self.variables, **variables}, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.add(process.pid)

    def run(self, overrides: str = RUN, limit: float = 600.0) -> Run:
        """Send the app and wait for the end of its run."""
        command = ("flwr", "run", ".", "loopback", "--run-config", f'overrides="{overrides}"', "--format", "json")
        deadline = time.monotonic() + limit
        while True:
            done = subprocess.run(
                command, cwd=self.app, env=self.variables, capture_output=True, text=True, check=False
            )
            if found := re.search(r'"run-id": "?(\d+)', done.stdout):
                break
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(1)
        folder = self.flwr_home / "quire-runs" / found.group(1)
        while not (folder / "run.json").exists() or Run(folder).about["status"] == "running":
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)
        return Run(folder)

    def quire(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "quire", *arguments],
            cwd=self.empty,
            env={**self.variables, "PYTHONPATH": str(self.app), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self.home.glob("*.log"))

    def close(self) -> None:
        assert self.processes.stop() == []
        shutil.rmtree(self.home, ignore_errors=True)


class Run:
    """What a run left behind at the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def about(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "round"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def everything(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())


def receipts_of(event: dict[str, Any]) -> dict[str, Receipt]:
    return {name: Receipt.decode(b64decode(encoded)) for name, encoded in event["receipts"].items()}


def numbers_in(value: Any) -> set[float]:
    """Return every number of a JSON value, however deep it lies."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return set().union(*map(numbers_in, value))
    return {float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path_factory.mktemp("hospitals"))
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def first(hospitals: Hospitals) -> Run:
    return hospitals.run()


@pytest.fixture(scope="module")
def second(hospitals: Hospitals, first: Run) -> Run:
    return hospitals.run()


def test_a_private_run_completes_and_its_journal_tells_of_no_silo_but_public_figures(
    hospitals: Hospitals, first: Run
) -> None:
    assert (first.about["status"], first.about["error"], first.about["rounds"]) == ("completed", None, 2)
    assert first.about["runtime"] == "deployment"
    assert len(first.rounds) == 2
    for event in first.rounds:
        assert event["replied"] == list(NAMES)
        assert event["failed"] == []
        assert event["train"] == {}
        assert event["evaluate"] is None
        assert event["silos"] == {name: {"records": float(RECORDS)} for name in NAMES}
    assert not (first.folder / "comparison.json").exists()
    assert CANARY.encode() not in first.everything()
    told = [first.events, *(receipt.body for event in first.rounds for receipt in receipts_of(event).values())]
    assert RECORDS in numbers_in(told)
    assert not {RECORDS + number for number in range(1, 4)} & numbers_in(told)  # how many rows there really are


def test_every_reply_brought_a_receipt_that_the_roster_vouches_for(hospitals: Hospitals, first: Run) -> None:
    from quire.strategies.receipts import read_server_roster

    roster = read_server_roster(hospitals.roster).roster
    for number, event in enumerate(first.rounds, start=1):
        assert set(event["receipts"]) == set(NAMES)
        for name, receipt in receipts_of(event).items():
            receipt.check(roster.member(name).identity)
            assert receipt.body["round"] == number
            assert (receipt.body["simulated"], receipt.body["test_seed"], receipt.body["broken_gradients"]) == (
                False,
                False,
                None,
            )
            assert receipt.body["ledger"]["entries"] == 1 + number


def test_the_card_of_a_real_run_verifies_offline_under_the_pinned_roster(hospitals: Hospitals, first: Run) -> None:
    said = hospitals.quire("verify", str(first.folder), "--roster", str(hospitals.roster), "--pin", hospitals.pin)
    assert said.splitlines()[-1] == "Verified."
    hospitals.quire("verify", str(first.folder), "--roster", str(hospitals.roster), "--pin", "0" * 64, status=1)


def test_the_ledger_of_every_silo_shows_what_was_spent(hospitals: Hospitals, first: Run) -> None:
    for name, silo in hospitals.silos.items():
        shown = hospitals.quire("ledger", "show", f"{silo}/silo.yaml")
        row = next(line.split() for line in shown.splitlines() if line.strip().startswith("record"))
        runs, rounds, spent, _, budget, left = row[1:]
        assert (runs, rounds, float(budget)) == ("1", "2", CAPS[name])
        assert 1.9 < float(spent) <= 2.0
        assert float(left) == pytest.approx(CAPS[name] - float(spent), abs=1e-3)
        assert f"{name}: 3 entries are sound." in hospitals.quire("ledger", "verify", f"{silo}/silo.yaml")
        assert (silo.parent / f"{name}.witness").stat().st_size > 0
        checked = hospitals.quire("silo", "check", f"{silo}/silo.yaml", *RUN.split(), status=0)
        assert "Accepted: this silo would take part." in checked
        assert f"is spent and {CAPS[name] - float(spent):.3g} is left" in checked


def test_two_runs_draw_other_noise(hospitals: Hospitals, first: Run, second: Run) -> None:
    assert second.about["status"] == "completed", hospitals.logs()
    models = [load_file(run.folder / "model.safetensors") for run in (first, second)]
    assert all(not np.array_equal(models[0][name], models[1][name]) for name in models[0])


def test_a_run_goes_on_without_the_silo_that_cannot_pay_and_stops_where_all_are_needed(
    hospitals: Hospitals, second: Run
) -> None:
    poor = hospitals.silos["clinic-3"] / "silo.yaml"
    checked = hospitals.quire("silo", "check", str(poor), *RUN.split(), status=1)
    assert "Refused: this silo would not take part." in checked
    assert re.search(r"epsilon 3 \(delta 0\.0001\): \S+ is spent, and this run would make it", checked)

    stopped = hospitals.run(RUN.replace("min_silos=2", "min_silos=3"))
    assert stopped.about["status"] == "failed"
    assert stopped.about["error"] == (
        "2 of 3 silos could be enrolled, 3 are needed: "
        f"{_node(stopped.about['error'])}: the run would exceed the silo's own privacy budget."
    )
    rich = hospitals.run()
    assert (rich.about["status"], rich.about["error"]) == ("completed", None), hospitals.logs()
    for event in rich.rounds:
        assert event["replied"] == ["clinic-1", "clinic-2"]
    entries = {}
    for name, silo in hospitals.silos.items():
        entries[name] = len((silo / "store" / "ledger" / f"{name}.jsonl").read_text().splitlines())
    assert entries == {"clinic-1": 7, "clinic-2": 7, "clinic-3": 5}  # refused, and so not charged
    assert "policy.epsilon (silo.yaml, line 10) caps population 'clinic-3'" in hospitals.log("clinic-3")
    assert CANARY not in hospitals.log("superlink")
    assert CANARY.encode() not in stopped.everything() + rich.everything()


def _node(error: str) -> str:
    return re.search(r"node \d+", error).group()  # type: ignore[union-attr]
