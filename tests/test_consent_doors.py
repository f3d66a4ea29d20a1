"""Consent withdrawn in the middle of a run of SuperLink and SuperNodes: the next round that begins is without it."""

from __future__ import annotations

import json
import runpy
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from consenting import CONSENT, PLAIN, RECORDS, Consenting
from gated import SHIPPED

from quire.simulation.flower_daemon import free_port

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 4
OVERRIDES = (
    f"task=tabular partition.silos=2 strategy.rounds={ROUNDS} strategy.fraction_evaluate=0 training.steps=2 "
    "data.preprocessing=public"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def rounds(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["round"] for event in events if event["event"] == "round"]


def status(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"status": "running"}


def clinic(folder: Path, name: str) -> Consenting:
    folder.mkdir()
    silo = Consenting(folder)
    silo.write(CONSENT, **PLAIN)
    file = folder / "silo.yaml"
    file.write_text(file.read_text().replace("name: clinic-1", f"name: {name}"))
    return silo


def test_withdrawn_in_the_middle_of_a_run(tmp_path: Path) -> None:
    checkout, folder = tmp_path / "checkout", tmp_path / "run"
    checkout.mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, checkout / name)
    silos = [clinic(tmp_path / name, name) for name in ("clinic-1", "clinic-2")]
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
            QUIRE_SCHEMA=str(silos[0].folder / "schema.yaml"),
        )
        for number, silo in enumerate(silos, start=1):
            user.start(
                *("flower-supernode", "--insecure", "--superlink", address, "--port", str(free_port())),
                *("--node-config", f'silo="{silo.folder}/silo.yaml"'),
                cwd=empty,
                FLWR_HOME=str(user.home / f"node-{number}"),
            )
        deadline = time.monotonic() + 120
        config = ("--run-config", f'overrides="{OVERRIDES}"', "--format", "json")
        while (done := user.call("flwr", "run", ".", "loopback", *config, cwd=checkout)).stdout.count('"run-id"') == 0:
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(1)
        deadline = time.monotonic() + 600
        withdrawn = 0
        while status(folder)["status"] == "running":
            assert time.monotonic() < deadline, (user.home / "log").read_text()
            if not withdrawn and (done_now := rounds(folder)):
                silos[0].withdraw("p3", "p4", "p5")
                withdrawn = max(done_now)
            time.sleep(0.1)
        said = (user.home / "log").read_text()
    finally:
        user.close()
    assert (status(folder)["status"], status(folder)["error"]) == ("completed", None), said
    assert 1 <= withdrawn < ROUNDS - 1
    first, second = ({line["round"]: line for line in silo.lines()} for silo in silos)
    assert sorted(first) == sorted(second) == list(range(1, ROUNDS + 1))
    assert {number: line["left_out"] for number, line in second.items()} == {number: {} for number in second}
    for number, line in first.items():
        if number <= withdrawn:
            assert (line["left_out"], line["came"]) == ({}, RECORDS)
        elif number > withdrawn + 1:  # the one between may have been under way
            assert (line["left_out"], line["came"]) == ({"withdrawn": 3}, RECORDS)
    assert len({line["run"] for line in [*first.values(), *second.values()]}) == 1
    assert not any(line["simulated"] for line in first.values())
