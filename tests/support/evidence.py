"""A run of a consortium while it goes on and afterwards: its journal, its books, and what was seen on the way."""

from __future__ import annotations

import contextlib
import json
import re
import site
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from heart import HOSPITALS
from running import SERVER, Running, request

from quire.consortium.layout import SiloFolder

_HERE = Path(__file__).parent


class Run:
    """A run that was submitted, and is followed.

    Parameters
    ----------
    running : Running
    overrides : str
    variables : str
        Of the operator's environment, in the place of its own.
    """

    def __init__(self, running: Running, overrides: str, **variables: str) -> None:
        self.running, self._runs = running, running.folders[SERVER] / "runs"
        before = self._known()
        command = ("submit", running.folders[SERVER], *overrides.split(), "--wait")
        self._following = running.follow(*command, **variables)
        self.said = ""
        running.wait(lambda: self._following.poll() is not None or self._known() > before, 600.0)
        fresh = self._known() - before
        assert fresh, self.end() + running.logs()
        self.folder = self._runs / fresh.pop()

    def _known(self) -> set[str]:
        return {path.name for path in self._runs.iterdir()} if self._runs.is_dir() else set()

    @property
    def about(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that are over."""
        return [event for event in _whole_lines(self.folder / "metrics.jsonl") if event["event"] == "round"]

    def charged(self, silo: str) -> list[int]:
        """Return the rounds of this run that a silo's ledger was charged for, one entry for each charge."""
        found = []
        for file in (self.running.folders[silo] / "store" / "ledger").glob("*.jsonl"):
            found += [line["round"] for line in _whole_lines(file) if line.get("session") == f"run-{self.folder.name}"]
        return found

    def amid(self, number: int, silo: str) -> None:
        """Wait until a silo is at work on a round: it was charged, and the round is not over."""
        self._wait(lambda: number in self.charged(silo))
        assert len(self.rounds) == number - 1

    def over(self, number: int) -> dict[str, Any]:
        """Wait for the end of a round, and return what the journal has on it."""
        self._wait(lambda: len(self.rounds) >= number)
        return self.rounds[number - 1]

    def _wait(self, done: Callable[[], bool], limit: float = 900.0) -> None:
        self.running.wait(lambda: done() or self._following.poll() is not None, limit)
        assert done(), self.end() + self.running.logs()

    def end(self) -> str:
        """Wait until the command that follows the run ends, and return what it said."""
        if not self.said:
            self.said = self._following.communicate(timeout=1200)[0]
        return self.said

    def completed(self) -> None:
        """Wait for the end, which has to be a good one."""
        said = self.end()
        assert self._following.returncode == 0, said + self.running.logs()
        assert "is completed." in said
        assert self.about["status"] == "completed"

    def failed(self) -> str:
        """Wait for the end, which has to be a bad one that is told in one sentence; return that."""
        (sentence,) = [line for line in self.end().splitlines() if line.startswith("quire: ")]
        assert self._following.returncode == 1, self.said
        assert "Traceback" not in self.said
        return sentence

    # --------------------------------------------------------------------------------------------------- evidence
    def state(self) -> dict[str, bytes]:
        """Return every byte of the run's results and of the silos' books."""
        places = [self.folder, *(self.running.folders[name] / "store" for name in HOSPITALS)]
        return {str(path): path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}


@contextlib.contextmanager
def tapped(running: Running, name: str) -> Iterator[None]:
    """Record what a silo's SuperNode asks, and sniff what leaves its machine, from before it is started."""
    running.own.setdefault(name, {}).update(RECORD_TO=str(requests_file(running)))
    running.python[name] = _recording_python(running.home / "recording")
    wires = running.wires
    if wires is None or not wires.real:
        yield
        return
    command = [*wires.hub, sys.executable, str(_HERE / "sniffer.py"), wires.port(name), wires.addresses[name]]
    with subprocess.Popen([*command, str(packets_file(running))], stdout=subprocess.PIPE) as sniffing:
        try:
            assert sniffing.stdout is not None
            assert sniffing.stdout.readline() == b"listening\n"
            yield
        finally:
            sniffing.kill()


def _recording_python(place: Path) -> str:
    """Return a Python like this one that imports the recorder as it starts: SuperNodes hear of no ``PYTHONPATH``."""
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    lines = [*site.getsitepackages(), str(_HERE / "recorder"), "import request_recorder"]
    (packages / "recorder.pth").write_text("\n".join(lines) + "\n")
    (place / "bin" / "flower-supernode").symlink_to(Path(sys.executable).parent / "flower-supernode")
    return str(place / "bin" / "python")


def requests_file(running: Running) -> Path:
    """Return where the recorder writes."""
    return running.home / "requests.jsonl"


def packets_file(running: Running) -> Path:
    """Return where the sniffer writes."""
    return running.home / "packets.jsonl"


def recorded(running: Running) -> list[dict[str, Any]]:
    """Return the requests that were recorded, oldest first."""
    return _whole_lines(requests_file(running))


def sniffed(running: Running) -> list[dict[str, Any]]:
    """Return the packets that were seen, oldest first."""
    return _whole_lines(packets_file(running))


def streams(running: Running) -> list[bytes]:
    """Return what was sent over each TCP connection, as far as no packet was missed."""
    found: dict[int, dict[int, bytes]] = {}
    for line in sniffed(running):
        if line.get("data"):
            found.setdefault(line["from_port"], {})[line["sequence"]] = bytes.fromhex(line["data"])
    whole = []
    for parts in found.values():
        told, at = b"", min(parts)
        while at in parts:
            told, at = told + parts[at], at + len(parts[at])
        whole.append(told)
    return whole


def again(running: Running) -> list[bytes]:
    """Return the last of each kind of request that was recorded, as it was but for what concerns the connection."""
    unwanted = ("host", "connection", "content-length", "accept-encoding", "content-type")
    return [
        request(
            *(line["method"], line["path"], bytes.fromhex(line["body"])),
            {name: value for name, value in line["headers"].items() if name not in unwanted},
        )
        for line in {line["path"]: line for line in recorded(running)}.values()
    ]


def both_of(running: Running, name: str, folder: Path) -> Path:
    """Write a silo's certificate and key into one file in a folder, and return its path."""
    silo, file = SiloFolder(running.folders[name]), folder / f"{name}.pem"
    file.write_bytes(silo.client_certificate.read_bytes() + silo.client_key.read_bytes())
    return file


def status(answer: bytes) -> int:
    """Return the status of an answer; 0 if there was none."""
    found = re.match(rb"HTTP/1\.1 (\d+)", answer)
    return int(found.group(1)) if found else 0


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
