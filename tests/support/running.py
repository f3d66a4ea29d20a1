"""A consortium as its operators start it, by the command line: each party's services, its events, what it answers.

Everybody may be on a machine of their own (:mod:`wires`); without wires all are on this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from wires import Wires

from quire.simulation.flower_daemon import environment

ROOT = Path(__file__).resolve().parents[2]
SERVER = "server"
_SENDER = Path(__file__).with_name("sender.py")


class Running:
    """The folders of a server and of silos, and the supervisors that were started over them.

    Parameters
    ----------
    home : pathlib.Path
        Short: sockets are named below it.
    folders : mapping of str to pathlib.Path
        By name; the operator's is called ``server``.
    listen : str
        Host and port of the server's proxy.
    wires : Wires or None
        Machines of the same names.
    """

    def __init__(self, home: Path, folders: Mapping[str, Path], listen: str, wires: Wires | None = None) -> None:
        self.home, self.folders, self.listen, self.wires = home, dict(folders), listen, wires
        self.variables = {**environment(os.environ, home, home), "PYTHONPATH": str(ROOT)}
        self.own: dict[str, dict[str, str]] = {}  # variables of one party
        self.python: dict[str, str] = {}  # where one party has another than this one
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._followed: list[subprocess.Popen[str]] = []

    # ------------------------------------------------------------------------------------------------- commands
    def inside(self, name: str) -> list[str]:
        return self.wires.inside(name) if self.wires is not None else []

    def command(self, *arguments: str | Path, at: str = SERVER) -> list[str]:
        return [*self.inside(at), self.python.get(at, sys.executable), "-m", "quire", *map(str, arguments)]

    def call(
        self, *arguments: str | Path, at: str = SERVER, limit: float = 900.0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, at=at),
            cwd=self.home,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )

    def good(self, *arguments: str | Path, at: str = SERVER, **variables: str) -> str:
        """Call a command that has to succeed, and return what it says."""
        done = self.call(*arguments, at=at, **variables)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def follow(self, *arguments: str | Path, at: str = SERVER, **variables: str) -> subprocess.Popen[str]:
        """Start a command without waiting for its end; what it says comes together."""
        process = subprocess.Popen(
            self.command(*arguments, at=at),
            cwd=self.home,
            env={**self.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._followed.append(process)
        return process

    # ------------------------------------------------------------------------------------------------- services
    def start(self, name: str) -> None:
        what = ("superlink", "start", self.folders[name]) if name == SERVER else ("silo", "start", self.folders[name])
        if name == SERVER:
            what = (*what, "--listen", self.listen)
        with (self.home / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen(
                self.command(*what, at=name),
                cwd=self.home,
                env={**self.variables, **self.own.get(name, {})},
                stdout=out,
                stderr=out,
            )

    def start_all(self, limit: float = 300.0) -> None:
        for name in self.folders:
            self.start(name)
        for name in self.folders:
            self.wait(lambda name=name: self.said(name, "all", "is up") == 1, limit)  # type: ignore[misc]

    def stop(self) -> dict[str, int]:
        for process in self.running.values():
            process.terminate()
        return {name: process.wait(120) for name, process in self.running.items()}

    def close(self) -> list[psutil.Process]:
        """Stop everything, remove the folders, and return what had to be killed."""
        self.stop()
        for process in self._followed:  # of tests that failed
            process.kill()
            process.wait()
        left = [process for process in psutil.process_iter() if _works_in(process, self.home)]
        for process in left:
            process.kill()
        shutil.rmtree(self.home, ignore_errors=True)
        return left

    # --------------------------------------------------------------------------------------------------- events
    def events(self, name: str) -> list[dict[str, Any]]:
        file = self.folders[name] / "run" / "log" / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def said(self, name: str, service: str, words: str) -> int:
        return sum(event["service"] == service and words in event["words"] for event in self.events(name))

    def process(self, name: str, service: str) -> int:
        lines = [event["words"] for event in self.events(name) if event["service"] == service]
        ready = [line for line in lines if line.startswith("is ready")]
        return int(ready[-1].split("process ")[1].split(",")[0])

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Let nothing of a party go on meanwhile, so that what is done has been done before it answers."""
        supervisor = psutil.Process(self.running[name].pid)
        stopped = [supervisor, *supervisor.children(recursive=True)]
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def wait(self, done: Callable[[], bool], limit: float) -> None:
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def log(self, name: str, service: str) -> str:
        file = self.folders[name] / "run" / "log" / f"{service}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def logs(self) -> str:
        paths = [*self.home.glob("*.out"), *self.home.glob("*/run/log/*.log")]
        return "\n".join(
            f"--- {path.relative_to(self.home)}\n{path.read_text(errors='replace')[-3000:]}" for path in paths
        )

    # --------------------------------------------------------------------------------------------------- sending
    def send(self, path: str, certificate: Path | None, at: str = SERVER) -> bytes:
        """Return what comes back from the port that silos reach; nothing if TLS is refused."""
        (back,) = self.send_raw([request("POST", path)], certificate, at)
        return back

    def send_raw(self, data: Sequence[bytes], certificate: Path | None, at: str, tls: bool = True) -> list[bytes]:
        """Send to that port from somebody's place, each over a connection of its own; return what comes back."""
        host, _, port = self.listen.rpartition(":")
        asked = {
            **{"host": host, "port": int(port), "data": [one.hex() for one in data], "tls": tls},
            "ca": str(self.folders[SERVER] / "ca" / "ca.pem"),
            "certificate": None if certificate is None else str(certificate),
        }
        command = [*self.inside(at), sys.executable, str(_SENDER)]
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return [bytes.fromhex(one) for one in json.loads(done.stdout)]


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Write a request of HTTP/1.1 after whose answer the connection ends."""
    told = {"host": "localhost", "connection": "close", "content-type": "application/protobuf", **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return str(folder) in " ".join(process.cmdline())
    return False
