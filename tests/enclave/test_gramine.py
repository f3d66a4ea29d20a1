"""With `gramine-direct` on the PATH: a silo inside trains three rounds, and a file that was tampered with stops it.

Nobody has run this file where Gramine is: see docs/enclave.md. ``QUIRE_GRAMINE`` names the folder of its library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gated import ROOT, Federation, checkout

from quire.clients.identity import new_identity

pytestmark = [
    pytest.mark.skipif(shutil.which("gramine-direct") is None, reason="gramine-direct is not on the PATH"),
    pytest.mark.slow,
    pytest.mark.timeout(3600),
]
SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
SILO = """name: clinic-{number}
data: {{connector: csv, path: rows.csv}}
{identity}population: {{name: clinic, records: 60}}
policy: {{modes: [none], aggregation: [plain], code: [], min_cohort: 2, colluders: 0}}
"""
OVERRIDES = "task=tabular partition.silos=2 strategy.rounds=3 data.preprocessing=federated"
TINY = "task=breast_cancer strategy.rounds=1 output.report=false output.baselines=false output.progress=none"


def clinic(folder: Path, number: int, identity: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.yaml").write_text(SCHEMA)
    ages = np.random.default_rng(number).integers(10, 90, 60)
    (folder / "rows.csv").write_text("age,sick\n" + "".join(f"{age},{int(age > 50)}\n" for age in ages))
    (folder / "silo.yaml").write_text(SILO.format(number=number, identity=identity))
    return folder / "silo.yaml"


def quire(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "quire", "enclave", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_a_silo_inside_trains_three_rounds_and_a_tampered_file_stops_it(tmp_path: Path) -> None:
    outside = clinic(tmp_path / "outside", 1)
    new_identity(outside.with_name("silo.key"))
    site = tmp_path / "site"
    keys = site / "keys"
    keys.mkdir(parents=True, mode=0o700)
    new_identity(keys / "identity.key")
    clinic(site / "store" / "desk", 2, "identity: /silo/keys/identity.key\nstore: /silo/store/books\n")
    (site / "store").chmod(0o700)
    federation = Federation([outside], tmp_path / "outside" / "schema.yaml")
    try:
        gramine = os.environ.get("QUIRE_GRAMINE", "/usr/lib/x86_64-linux-gnu/gramine")
        work = f"--work, --superlink, '{federation.address}', --insecure, --rehearse, '{TINY}'"
        (site / "enclave.yaml").write_text(
            f"name: clinic-2\nstore: store\nkeys: keys\ngramine: {gramine}\n"
            f"command: [-m, quire.enclave.inside, {work}]\n"
        )
        for command in (("trace", "enclave.yaml"), ("render", "enclave.yaml", "enclave=direct")):
            done = quire(site, *command)
            assert done.returncode == 0, done.stderr
        start = (sys.executable, "-m", "quire", "enclave", "start", str(site / "enclave.yaml"), "enclave=direct")
        federation.start("worker", *start, PYTHONPATH=str(ROOT))
        app = checkout(tmp_path / "app")
        federation.quire("app", "approve", str(app), "--silo", str(outside), "--note", "reviewed")
        found = federation.run(app, OVERRIDES, limit=2400.0)
        assert (found["status"], found["error"]) == ("completed", None), federation.logs()
        assert "NO CONFIDENTIALITY, NO ATTESTATION" in (found["folder"] / "report.html").read_text()
    finally:
        federation.close()
    with next((site / "enclave-bytecode").rglob("*.pyc")).open("ab") as file:
        file.write(b"x")
    assert (
        "is not what it was"
        in quire(site, "check", "clinic-2-direct.manifest", "--profile", "direct-dev", "--files").stdout
    )
    began = time.monotonic()
    done = quire(site, "start", "enclave.yaml", "enclave=direct")
    assert done.returncode != 0
    assert time.monotonic() - began < 600
