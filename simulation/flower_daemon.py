"""A private SuperLink: started for one run, on loopback, with a home of its own, and stopped with all it started.

Nothing of the user's Flower is used or touched. It starts from an empty directory, because Ray's workers put the
directory in which the daemon was started before the app's own code, whatever package of the same name lies there.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from quire.clients.data.silo_file import SCHEMA_FILE, SILOS_VARIABLE
from quire.clients.identity.passphrase import VARIABLE as PASSPHRASE_VARIABLE
from quire.clients.plugins import PLUGINS_VARIABLE
from quire.errors import RunFailed, SettingsError
from quire.simulation.processes import ProcessTree
from quire.strategies.charter import CHARTER_VARIABLE
from quire.strategies.server_app import LOG_KEY_VARIABLE, RESUME_VARIABLE, RUN_DIR_VARIABLE, SCHEMA_VARIABLE

CONNECTION = "quire"
_HOST = "127.0.0.1"
_START_LIMIT, _CALL_LIMIT, _LOG_LIMIT, _ATTEMPTS = 120.0, 120.0, 30.0, 3
# Ray puts sockets some 75 characters below its directory, and the system takes paths of 107: this leaves room for ours.
_LONGEST_BASE = 16

LOG = logging.getLogger("quire.simulation")


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def scripts_path(variables: Mapping[str, str]) -> str:
    """Return a search path on which this Python's own scripts come first: Flower starts its parts by name."""
    own = dict.fromkeys([str(Path(sys.executable).parent), sysconfig.get_path("scripts")])
    return os.pathsep.join([*own, variables.get("PATH", os.defpath)])


def environment(variables: Mapping[str, str], home: Path, run_folder: Path) -> dict[str, str]:
    """Return the environment for Flower's processes.

    Parameters
    ----------
    variables : mapping of str to str
        The environment to start from.
    home : pathlib.Path
        The daemon's own directory.
    run_folder : pathlib.Path
        Where the run leaves its results.

    Notes
    -----
    ``PYTHONPATH`` keeps what the user needs for other packages, and loses every entry that holds a ``quire``: workers
    import the bundle's code. Relative entries are dropped too, as they mean something else in another directory.
    """
    unwanted = ("RAY_ADDRESS", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONSAFEPATH")
    kept = {
        name: value
        for name, value in variables.items()
        if name not in unwanted and not name.startswith(("FLWR_", "QUIRE_"))
    }
    entries = [Path(entry) for entry in kept.pop("PYTHONPATH", "").split(os.pathsep) if entry]
    foreign = [str(path) for path in entries if path.is_absolute() and not (path / "quire").exists()]
    if foreign:
        kept["PYTHONPATH"] = os.pathsep.join(foreign)
    for name in ("NO_PROXY", "no_proxy"):  # else a proxy would be asked for our own loopback address
        kept[name] = ",".join([*filter(None, [kept.get(name)]), _HOST, "localhost"])
    return {
        **kept,
        "PATH": scripts_path(variables),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(home),
        "HF_HUB_OFFLINE": "1",
        RUN_DIR_VARIABLE: str(run_folder.absolute()),
        **silo_variables(variables),
    }


def silo_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what tells simulated nodes and the server where silos' own files and the schema are, if anything does."""
    kept = {PLUGINS_VARIABLE: variables[PLUGINS_VARIABLE]} if variables.get(PLUGINS_VARIABLE) else {}
    if not variables.get(SILOS_VARIABLE):
        return kept
    folder = Path(variables[SILOS_VARIABLE]).absolute()
    return {**kept, SILOS_VARIABLE: str(folder), SCHEMA_VARIABLE: str(folder / SCHEMA_FILE)}


def log_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what tells the server, and nobody else, with which key the run's transparency log is signed, if any is."""
    if not variables.get(LOG_KEY_VARIABLE):
        return {}
    told = (LOG_KEY_VARIABLE, PASSPHRASE_VARIABLE)
    return {name: str(Path(variables[name]).absolute()) for name in told if variables.get(name)}


def charter_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what tells the server where the charter of its runs is, if anything does."""
    named = variables.get(CHARTER_VARIABLE)
    return {CHARTER_VARIABLE: str(Path(named).absolute())} if named else {}


class FlowerDaemon:
    """A SuperLink in simulation mode.

    Parameters
    ----------
    run_folder : pathlib.Path
        Handed to the ServerApp through the environment.
    resume : bool
        Tells the ServerApp to go on with the run in that folder.

    Attributes
    ----------
    home : pathlib.Path
        A temporary directory for all that Flower, Ray and the launcher write.
    log : pathlib.Path
        What the daemon and its children print.
    processes : ProcessTree
        The daemon and its children.
    """

    def __init__(self, run_folder: Path, resume: bool = False) -> None:
        base = tempfile.gettempdir()
        if len(base) > _LONGEST_BASE and os.access("/tmp", os.W_OK):
            base = "/tmp"
        self.home = Path(tempfile.mkdtemp(prefix="quire-", dir=base))
        self.log = self.home / "superlink.log"
        self.processes = ProcessTree()
        self._work = self.home / "empty"
        self._environment = {
            **environment(os.environ, self.home, run_folder),
            **log_variables(os.environ),
            **charter_variables(os.environ),
            **self.processes.mark,
        }
        if resume:
            self._environment[RESUME_VARIABLE] = "1"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ended(self) -> int | None:
        """Exit status of the daemon, or None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises
        ------
        RunFailed
            If it ends, or does not answer in time.
        SettingsError
            If Flower's programs are not installed beside this Python.
        """
        for folder in (self._work, self.home / "flwr"):
            folder.mkdir()
        for _ in range(_ATTEMPTS):
            port = free_port()
            if self._start_at(port):
                break
        else:
            raise RunFailed(f"Flower's SuperLink did not start (exit status {self.ended}): {_last_line(self.log)}")
        config = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        config += f'address = "{_HOST}:{port}"\ninsecure = true\n'
        (self.home / "flwr" / "config.toml").write_text(config, encoding="utf-8")

    def stop(self) -> None:
        """Stop the daemon and all its descendants. Can be called at any time."""
        left = self.processes.stop()
        if left:
            LOG.error("these processes of Flower could not be ended: %s", left)
        if self._process is not None and not left:
            self._process.wait()

    def close(self) -> None:
        """Stop everything and remove the daemon's directory."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def call(self, *arguments: str) -> dict[str, Any]:
        """Call Flower's command line with ``--format json`` and return its answer.

        Raises
        ------
        RunFailed
            If it answers with an error, or not in time.
        """
        try:
            done = self._flwr([*arguments, "--format", "json"], _CALL_LIMIT)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"`flwr {arguments[0]}` did not answer within {_CALL_LIMIT:.0f} seconds.") from None
        answer = _json_object(done.stdout)
        if done.returncode != 0 or answer is None or not answer.get("success", False):
            words = str((answer or {}).get("error-message") or done.stderr or done.stdout).strip()
            raise RunFailed(f"`flwr {arguments[0]}` failed: {' '.join(words.split())[:500] or 'it gave no reason'}")
        return answer

    def fetch_run_log(self, run_id: str) -> None:
        """Append what the run's own process printed, which Flower keeps apart, to the daemon's log."""
        with contextlib.suppress(subprocess.SubprocessError):
            printed = self._flwr(["log", run_id, CONNECTION, "--show"], _LOG_LIMIT).stdout
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"\n---- run {run_id} ----\n{printed}")

    def _flwr(self, arguments: list[str], limit: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program("flwr"), *arguments],
            cwd=self._work,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            start_new_session=True,
            check=False,
        )

    def _start_at(self, port: int) -> bool:
        """Start the daemon at a port; False if it ended at once, as when another process took the port first."""
        command = [self._program("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
        command += ["--host", _HOST, "--port", str(port), "--disable-runtime-dependency-installation"]
        with self.log.open("ab") as log:
            # A session of its own: a Ctrl-C at the terminal is for us alone, and we stop the daemon in order.
            self._process = subprocess.Popen(
                command,
                cwd=self._work,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.add(self._process.pid)
        deadline = time.monotonic() + _START_LIMIT
        while self._process.poll() is None:
            if self._listens(port) and healthy(http.client.HTTPConnection(_HOST, port, timeout=2)):
                return True
            if time.monotonic() > deadline:
                raise RunFailed(f"Flower's SuperLink did not start within {_START_LIMIT:.0f} seconds.")
            time.sleep(0.1)
        return False

    def _listens(self, port: int) -> bool:
        """Say whether it is our daemon that has the port: another one would answer in its stead."""
        for process in self.processes.update():
            with contextlib.suppress(psutil.Error):
                for socket_ in process.net_connections("tcp"):
                    if socket_.status == psutil.CONN_LISTEN and socket_.laddr.port == port:
                        return True
        return False

    def _program(self, name: str) -> str:
        found = shutil.which(name, path=self._environment["PATH"])
        if found is None:
            raise SettingsError(f"'{name}' is not installed beside this Python: pip install 'flwr[simulation]'.")
        return found


def healthy(connection: http.client.HTTPConnection) -> bool:
    """Say whether a SuperLink or SuperNode of Flower's answers; the connection is closed."""
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object at the end of a text; the command line may print lines before it."""
    start = text.find("{")
    while start >= 0:
        try:
            value = json.loads(text[start:])
        except ValueError:
            start = text.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it left no log."
    return next((line.strip() for line in reversed(lines) if line.strip()), "it left no log.")
