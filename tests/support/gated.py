"""A federation on loopback whose silos stand behind gates: SuperLink, SuperNodes, gates; stopped by process id."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.processes import ProcessTree

ROOT = Path(__file__).resolve().parents[2]
#: What a checkout needs for Flower's bundle.
SHIPPED = (
    "quire",
    "conf",
    "clients",
    "privacy",
    "strategies",
    "simulation",
    "charter",
    "transparency",
    "pyproject.toml",
    ".gitignore",
)


def checkout(folder: Path) -> Path:
    """Copy what the bundle is made of."""
    folder.mkdir(parents=True)
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


class Federation:
    """A SuperLink, and for each ``silo.yaml`` a SuperNode without any node config and a gate that knows the file.

    A file ``passphrase`` beside ``silo.yaml`` opens the silo's key; only the gate is told where it is. The variables
    are the SuperLink's alone.
    """

    def __init__(self, silos: list[Path], schema: Path, **variables: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="q-"))
        self.flwr_home, self.empty = self.home / "flwr", self.home / "empty"
        for folder in (self.flwr_home, self.empty):
            folder.mkdir()
        self.processes = ProcessTree()
        self.variables = {**environment(os.environ, self.home, self.home), **self.processes.mark}
        del self.variables["QUIRE_RUN_DIR"]
        self.address = f"127.0.0.1:{free_port()}"
        (self.flwr_home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{self.address}"\ninsecure = true\n'
        )
        self.start(
            "superlink",
            *("flower-superlink", "--insecure", "--isolation", "subprocess", "--host", "127.0.0.1"),
            *("--port", self.address.split(":")[1], "--disable-runtime-dependency-installation"),
            QUIRE_SCHEMA=str(schema),
            **variables,
        )
        for number, silo in enumerate(silos, start=1):
            port, secret = free_port(), self.home / f"secret-{number}"
            secret.write_text(secrets.token_hex(32))
            secret.chmod(0o600)
            self.start(
                f"node-{number}",
                *("flower-supernode", "--insecure", "--superlink", self.address, "--port", str(port)),
                *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
                FLWR_HOME=str(self.home / f"node-{number}"),
            )
            words = silo.with_name("passphrase")
            opening = {"QUIRE_PASSPHRASE_FILE": str(words)} if words.exists() else {}
            self.start(
                f"gate-{number}",
                *(sys.executable, "-m", "quire", "gate", "--silo", str(silo), "--insecure"),
                *("--runtime-api-address", f"127.0.0.1:{port}", "--superexec-auth-secret-file", str(secret)),
                FLWR_SUPEREXEC_TASK_POLL_INTERVAL="0.1",
                PYTHONPATH=str(ROOT),
                HOSPITAL_SECRET="what the gate's environment holds",
                **opening,
            )

    def start(self, name: str, *command: str, **variables: str) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.empty, env={**self.variables, **variables}, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.add(process.pid)

    def quire(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "quire", *arguments],
            cwd=self.empty,
            env={**self.variables, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )

    def run(self, app: Path, overrides: str, limit: float = 400.0) -> dict[str, Any]:
        """Send an app, wait for the end of its run, and return its ``run.json``."""
        config = ("--run-config", f'overrides="{overrides}"', "--format", "json")
        deadline = time.monotonic() + limit
        while True:
            done = subprocess.run(
                ["flwr", "run", ".", "loopback", *config],
                cwd=app,
                env=self.variables,
                capture_output=True,
                text=True,
                check=False,
            )
            if found := re.search(r'"run-id": "?(\d+)', done.stdout):
                break
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(1)
        about = self.flwr_home / "quire-runs" / found.group(1) / "run.json"
        while not about.exists() or json.loads(about.read_text())["status"] == "running":
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)
        return {**json.loads(about.read_text()), "folder": about.parent}

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self.home.glob("*.log"))

    def close(self) -> None:
        assert self.processes.stop() == []
        shutil.rmtree(self.home, ignore_errors=True)
