"""Silos that read their own files give the same model, bit for bit, through every door."""

from __future__ import annotations

import json
import runpy
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from gated import SHIPPED

import quire
from quire.clients.identity import new_identity
from quire.conf.compose import compose
from quire.simulation.flower import run_flower
from quire.simulation.flower_daemon import free_port

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = "task=tabular partition.silos=2 strategy.rounds=2 data.preprocessing=federated seed=3"
SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def about(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


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
            f"population: {{name: clinic-{number}, records: {30 * number}}}\n"
            "policy: {modes: [none], aggregation: [plain], code: [], min_cohort: 2, colluders: 0, test_seed: true, "
            "rehearsal: true}\n"
        )
    return folder


@pytest.fixture(scope="module")
def inline(silos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return quire.run(OVERRIDES, tmp_path_factory.mktemp("inline") / "run", silos=silos).model


def test_flowers_simulation(silos: Path, inline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_SILOS", str(silos))
    assert run_flower(compose(f"{OVERRIDES} runtime=flower"), tmp_path / "run").model == inline


def test_supernodes_that_each_know_their_own_file_only(silos: Path, inline: str, tmp_path: Path) -> None:
    checkout, folder = tmp_path / "checkout", tmp_path / "run"
    checkout.mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, checkout / name)
    homes = []
    for number in (1, 2):  # each in a place of its own, with its own copy of the schema
        homes.append(tmp_path / f"clinic-{number}")
        homes[-1].mkdir()
        for name in ("schema.yaml", f"{number}.csv", f"clinic-{number}.yaml"):
            shutil.copy(silos / name, homes[-1] / name)
        new_identity(homes[-1] / "silo.key")
    user = runpy.run_path(str(ROOT / "tests" / "test_doors.py"))["FlowerUser"]()
    try:
        address, empty = f"127.0.0.1:{free_port()}", user.home / "empty"
        empty.mkdir()
        (user.flwr_home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{address}"\ninsecure = true\n'
        )
        user.start(
            *("flower-superlink", "--insecure", "--isolation", "subprocess", "--host", "127.0.0.1"),
            *("--port", address.split(":")[1], "--disable-runtime-dependency-installation"),
            cwd=empty,
            QUIRE_RUN_DIR=str(folder),
            QUIRE_SCHEMA=str(silos / "schema.yaml"),
        )
        for number, home in enumerate(homes, start=1):
            user.start(
                *("flower-supernode", "--insecure", "--superlink", address, "--port", str(free_port())),
                *("--node-config", f'silo="{home}/clinic-{number}.yaml"'),
                cwd=empty,
                FLWR_HOME=str(user.home / f"node-{number}"),
            )
        deadline = time.monotonic() + 120
        config = ("--run-config", f'overrides="{OVERRIDES}"', "--format", "json")
        while (done := user.call("flwr", "run", ".", "loopback", *config, cwd=checkout)).stdout.count('"run-id"') == 0:
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(1)
        deadline = time.monotonic() + 500
        while not (folder / "run.json").exists() or about(folder)["status"] == "running":
            assert time.monotonic() < deadline, (user.home / "log").read_text()
            time.sleep(0.5)
    finally:
        user.close()
    assert (about(folder)["status"], about(folder)["error"]) == ("completed", None)
    assert about(folder)["model"] == inline
