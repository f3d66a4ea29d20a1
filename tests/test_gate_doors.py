"""A silo behind its gate: approved code trains, a hostile server's code is refused before anything of it runs."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gated import ROOT, Federation, checkout

import quire
from quire.clients.store.decision_book import look
from quire.privacy.approval import Statement

POLICY = """population: {name: clinic, records: 90}
policy: {modes: [none], aggregation: [plain], code: [], min_cohort: 2, colluders: 0, test_seed: true}
"""  # a seed: to compare models
OVERRIDES = "task=tabular partition.silos=2 strategy.rounds=2 data.preprocessing=federated seed=3"
SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
HOSTILE = """
import os, pathlib
pathlib.Path(CANARY).write_text(repr(dict(os.environ)))
from flwr.app import Message, RecordDict, ConfigRecord
from flwr.clientapp import ClientApp
app = ClientApp()

def leak(message, context):
    silo = pathlib.Path(str(context.node_config["silo"]))
    told = {"contract": 1, "silo": "clinic-1", "rows": silo.read_text() + repr(dict(os.environ))}
    return Message(RecordDict({"identity": ConfigRecord(told)}), reply_to=message)

app.query()(leak)
app.train()(leak)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def silos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silos")
    (folder / "schema.yaml").write_text(SCHEMA)
    for number in (1, 2):
        rng = np.random.default_rng(number)
        age = rng.integers(10, 90, 30 * number)
        rows = "".join(f"{a},{int(a + rng.normal(0, 9) > 50)}\n" for a in age)
        (folder / f"{number}.csv").write_text(f"age,sick\n{rows}")
        (folder / f"clinic-{number}.yaml").write_text(
            f"name: clinic-{number}\ndata: {{connector: csv, path: {number}.csv}}\n"
        )
    return folder


@pytest.fixture(scope="module")
def homes(silos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The silos as they are in real life: each in a place of its own, with a policy of its own."""
    files = []
    for number in (1, 2):
        home = tmp_path_factory.mktemp("home")
        for name in ("schema.yaml", f"{number}.csv"):
            shutil.copy(silos / name, home / name)
        files.append(home / "silo.yaml")
        files[-1].write_text((silos / f"clinic-{number}.yaml").read_text() + POLICY)
        command = [sys.executable, "-m", "quire", "identity", "new", "silo.key", "--name", f"clinic-{number}"]
        if number == 2:  # one of them has a key that only approved code can open
            (home / "passphrase").write_text("correct horse battery staple")
            (home / "passphrase").chmod(0o600)
            command += ["--passphrase-file", "passphrase"]
        subprocess.run(command, cwd=home, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return files


@pytest.fixture(scope="module")
def federation(silos: Path, homes: list[Path]) -> Iterator[Federation]:
    federation = Federation(homes, silos / "schema.yaml")
    yield federation
    federation.close()


def approve(federation: Federation, homes: list[Path], app: Path) -> None:
    for silo in homes:
        federation.quire("app", "approve", str(app), "--silo", str(silo), "--note", "reviewed")


def everything_at_the_server(federation: Federation, found: dict) -> str:
    files = [path for path in found["folder"].rglob("*") if path.is_file()]
    return federation.log("superlink") + "".join(path.read_bytes().decode(errors="replace") for path in files)


def hostile_copy(app: Path, folder: Path) -> Path:
    """Copy an app and give it another client app: no policy check, and all it finds for the server. Return its mark."""
    shutil.copytree(app, folder)
    canary = folder.with_suffix(".canary")
    (folder / "quire" / "client_app.py").write_text(HOSTILE.replace("CANARY", repr(str(canary))))
    return canary


def test_hostile_code_is_refused_before_anything_of_it_runs(
    federation: Federation, homes: list[Path], tmp_path: Path
) -> None:
    app = checkout(tmp_path / "app")
    approve(federation, homes, app)
    canary = hostile_copy(app, tmp_path / "hostile")

    found = federation.run(tmp_path / "hostile", OVERRIDES)
    assert not canary.exists()
    assert found["status"] == "failed"
    assert "its operator has not approved this code" in found["error"]
    seen = everything_at_the_server(federation, found)
    for secret in (*map(str, homes), "approved.json", "HOSPITAL_SECRET"):
        assert secret not in seen
    for number in (1, 2):
        assert "Answered with CODE_REFUSED: content" in federation.log(f"gate-{number}")
        assert not (federation.home / f"node-{number}" / "apps").exists()
    assert not [path for path in federation.home.rglob("client_app.py") if "quire-gate-" in str(path)]


def test_the_hostile_code_would_have_run(federation: Federation, homes: list[Path], tmp_path: Path) -> None:
    """The test above is worth something: let in by mistake, this code runs, and sees what it may see and no more."""
    app = checkout(tmp_path / "app")
    canary = hostile_copy(app, tmp_path / "hostile")
    (tmp_path / "hostile" / "README.md").write_text("another bundle")
    approve(federation, homes[:1], tmp_path / "hostile")
    found = federation.run(tmp_path / "hostile", OVERRIDES)
    assert found["status"] == "failed"
    environment = ast.literal_eval(canary.read_text())
    assert not {"HOSPITAL_SECRET", "QUIRE_GATE"} & environment.keys()
    assert not any(str(home) in value for home in homes for value in environment.values())
    assert [name for name in environment if name.startswith("QUIRE_")] == ["QUIRE_GUARDED"]


def test_approved_code_trains_through_the_gate_until_it_is_revoked(
    federation: Federation, silos: Path, homes: list[Path], tmp_path: Path
) -> None:
    app = checkout(tmp_path / "app")
    approve(federation, homes, app)
    inline = quire.run(OVERRIDES, tmp_path / "inline", silos=silos)
    found = federation.run(app, OVERRIDES)
    assert (found["status"], found["error"]) == ("completed", None), federation.logs()
    assert found["model"] == inline.model

    for silo in homes:
        federation.quire("app", "revoke", str(app), "--silo", str(silo))
    found = federation.run(app, OVERRIDES)
    assert found["status"] == "failed"
    assert "its operator has not approved this code" in found["error"]


def test_a_run_waits_behind_gates_until_both_operators_have_approved_it(
    federation: Federation, homes: list[Path], tmp_path: Path
) -> None:
    app = checkout(tmp_path / "app")
    approve(federation, homes, app)
    before = [silo.read_text() for silo in homes]
    for silo, text in zip(homes, before, strict=True):
        silo.write_text(text.replace("test_seed: true", "test_seed: true, approval: true"))
    opening = ([], ["--passphrase-file", str(homes[1].with_name("passphrase"))])
    try:
        with ThreadPoolExecutor() as thread:
            run = thread.submit(federation.run, app, f"{OVERRIDES} strategy.deadlines=[approval:300]")
            for silo, words in zip(homes, opening, strict=True):
                while not (waiting := look(silo.with_name("store")).pending) and not run.done():
                    time.sleep(0.2)
                (matter,) = waiting
                assert "task tabular" in federation.quire("approve", "--silo", str(silo)).stdout
                number = matter.request.binding.run
                federation.quire("approve", number, "--silo", str(silo), "--by", "anna", *words)
            found = run.result()
    finally:
        for silo, text in zip(homes, before, strict=True):
            silo.write_text(text)
    assert (found["status"], found["folder"].name) == ("completed", number)
    statements = [Statement.decode(line) for line in (found["folder"] / "approvals.jsonl").read_bytes().splitlines()]
    told = [(one.body["silo"], one.body["decision"], one.binding.run) for one in statements]
    assert told == [("clinic-1", "approved", number), ("clinic-2", "approved", number)]
    assert {one.binding.hash for one in statements} == {matter.request.what}
    for gate in ("gate-1", "gate-2"):
        assert f"run {number} ({matter.request.what[:12]}) has not been approved" in federation.log(gate)
