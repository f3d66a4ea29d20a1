"""What the services of a server and of a silo have in common: Flower's programs, their environment, their ports."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from quire.consortium.errors import ConsortiumError
from quire.consortium.loopback import LOOPBACK
from quire.consortium.proxy import find_haproxy
from quire.consortium.supervise import Service
from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.flower_daemon import healthy as answers
from quire.strategies.server_app import RUN_DIR_VARIABLE

#: Seconds between two looks of a SuperExec for work; Flower's own default is one.
_POLL = "0.2"


class ServicesError(ConsortiumError):
    """The services of this folder cannot be started as things are."""


def prepare(run: Path) -> None:
    """Make the launchers' folder: only this user's, with an empty folder to start Flower in.

    Raises
    ------
    ServicesError
        If that is not empty: what lies there would be imported before the app's own code.
    """
    for folder in (run, run / "empty", run / "flwr", run / "proxy"):
        folder.mkdir(mode=0o700, exist_ok=True)
    run.chmod(0o700)
    if any((run / "empty").iterdir()):
        raise ServicesError(
            f"{run / 'empty'} must be empty: Flower is started in it, and would import what lies there."
        )


def flower_environment(variables: Mapping[str, str], run: Path, **more: str) -> dict[str, str]:
    """Return the environment of Flower's programs: no telemetry, no installing at run time, a home in ``run``."""
    found = environment(variables, run, run)
    del found[RUN_DIR_VARIABLE]
    return {**found, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL, **more}


def program(name: str, variables: Mapping[str, str]) -> str:
    """Return where a program of Flower's is.

    Raises
    ------
    ServicesError
        If it is not installed beside this Python.
    """
    found = shutil.which(name, path=variables["PATH"])
    if found is None:
        raise ServicesError(f"'{name}' is not installed beside this Python: pip install 'flwr[simulation]'.")
    return found


def proxy_service(
    run: Path,
    configuration: str,
    ready: Callable[[], bool],
    watched: tuple[Path, ...],
    before: Callable[[], None],
    attempts: int | None,
) -> Service:
    """Return the proxy as a service; its configuration is written before each start.

    Parameters
    ----------
    run : pathlib.Path
    configuration : str
    ready : callable
        Says whether it listens.
    watched : tuple of pathlib.Path
        What it reads when it starts.
    before : callable
        Called before each start.
    attempts : int or None
        As of a service.
    """
    file = run / "haproxy.cfg"

    def configure() -> None:
        for old in (run / "proxy").glob("lane-*.sock"):  # named by a port, which another start may not have
            old.unlink()
        file.write_text(configuration)
        before()

    variables = {"PATH": os.defpath}
    return Service(
        name="proxy",
        command=(find_haproxy(os.environ.get("PATH", os.defpath)), "-db", "-f", str(file)),
        environment=variables,
        folder=run / "proxy",
        ready=ready,
        watched=watched,
        before=configure,
        attempts=attempts,
    )


def healthy(port: int, certificate: Path) -> bool:
    """Say whether a SuperLink or SuperNode of Flower's answers at a port of this machine."""
    trusted = ssl.create_default_context(cafile=str(certificate))
    return answers(http.client.HTTPSConnection(LOOPBACK, port, timeout=2, context=trusted))


def listens(host: str, port: int) -> bool:
    """Say whether anything listens at an address of this machine."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on, all different."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def check_free(host: str, port: int) -> None:
    """Check that this machine lets us listen at an address.

    Raises
    ------
    ServicesError
        If it does not.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServicesError(f"Nothing can listen at {host or '*'}:{port}: {error.strerror}.") from None
