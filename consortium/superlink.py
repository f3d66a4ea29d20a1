"""The services of a consortium's server: SuperLink, SuperExec and the proxy before them.

Flower 1.41 serves the Control and Runtime APIs, which ask for no credentials, at the very port that SuperNodes use. So
the SuperLink is bound to loopback, and others reach the proxy alone. ServerApps are run by a SuperExec of their own
with a secret: they outlive a SuperLink that is killed, and go on when it is back with its state.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from quire.consortium.about import Server, read_operator_about
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import OperatorFolder
from quire.consortium.loopback import LOOPBACK, Loopback, make_loopback, make_secret, write_private
from quire.consortium.proxy import ServerProxy, render_keys
from quire.consortium.registry import Connection, members_in, node_keys, synchronise
from quire.consortium.server_gate import GATE_VARIABLE, ServerGate, prepare_gate
from quire.consortium.server_metrics import server_metrics
from quire.consortium.services import (
    ServicesError,
    check_free,
    flower_environment,
    free_ports,
    healthy,
    listens,
    prepare,
    program,
    proxy_service,
)
from quire.consortium.supervise import Duty, Say, Service, Supervisor
from quire.consortium.tickets import Tickets
from quire.consortium.too_large import Refusals
from quire.simulation.flower_daemon import log_variables
from quire.strategies.charter import CHARTER_VARIABLE
from quire.strategies.members import MEMBERS_VARIABLE
from quire.strategies.message_size import LIMIT_VARIABLE
from quire.strategies.server_app import RESUME_VARIABLE, ROSTER_VARIABLE, RUN_DIR_VARIABLE, SCHEMA_VARIABLE

#: Name of the connection in the configuration of Flower's own command line.
CONNECTION = "consortium"
#: Bytes of the arrays in one message: what Flower 1.41 was seen to carry over SQLite, which twice as much locks.
MOST_MESSAGE = 256 * 2**20
# Seconds between two looks at the folder, and between two at the SuperLink though the folder has not changed.
_LOOK_EVERY, _ASK_EVERY = 2.0, 60.0


@dataclass(frozen=True)
class Running:
    """What is known of a server that was started.

    Attributes
    ----------
    connection : Connection
    metrics : int
        Port on loopback for Prometheus.
    """

    connection: Connection
    metrics: int


def runs_folder(folder: OperatorFolder) -> Path:
    """Return where the run folders are, each named for its run."""
    return folder.root / "runs"


def tickets(folder: OperatorFolder) -> Tickets:
    """Return the tickets with which runs go on in the folders of others."""
    return Tickets(folder.run / "resumes", runs_folder(folder))


def read_running(folder: OperatorFolder) -> Running:
    """Read where the SuperLink of a folder is.

    Raises
    ------
    ServicesError
        If none was started in it.
    """
    try:
        told = json.loads((folder.run / "superlink.json").read_text())
        return Running(Connection(str(told["address"]), folder.run / "loopback.pem"), int(told["metrics"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ServicesError(
            f"No SuperLink was started in {folder.root}: `quire superlink start {folder.root}` starts it."
        ) from None


def superlink(
    folder: OperatorFolder, say: Say, listen: Server | None = None, metrics: int = 0, own_metrics: int | None = None
) -> Supervisor:
    """Return the services of a server; nothing is written, and no port is taken, before they are run.

    Parameters
    ----------
    folder : OperatorFolder
    say : callable
        Told of every event.
    listen : Server or None
        Address and port at which the proxy is reached; by default the consortium's port, at every IPv4 address.
    metrics : int
        Port on loopback for the proxy's metrics; 0: one that the system gives.
    own_metrics : int or None
        Port on loopback for Quire's own; None: they are not served.

    Raises
    ------
    ConsortiumError
        If the folder is no operator's, or a program is missing.
    """
    folder = OperatorFolder(folder.root.resolve())  # services start in other folders
    about, run = read_operator_about(folder), folder.run
    port = listen.port if listen is not None else about.server.port
    members_in(folder)  # certificates that cannot be read are told before anything starts
    link_port, free = free_ports(2)
    metrics = metrics or free
    own, secret = Loopback.within(run), run / "superexec.secret"
    connection = Connection(f"{LOOPBACK}:{link_port}", own.certificate)
    members = _Members(folder, connection)
    proxy = ServerProxy(
        listen or port,
        run / "server-both.pem",
        folder.ca_certificate,
        folder.crl,
        link_port,
        own.certificate,
        run / "nodes.map",
        metrics,
    )

    def join_certificate() -> None:
        write_private(run / "server-both.pem", folder.server_certificate.read_bytes() + folder.server_key.read_bytes())

    reached = listen.host if listen is not None else LOOPBACK
    front = proxy_service(
        run,
        proxy.render(),
        lambda: listens(reached, port),
        (folder.server_certificate, folder.server_key, folder.ca_certificate, folder.crl, proxy.keys),
        join_certificate,
        attempts=3,
    )
    services = [*_flower(folder, link_port, own, secret, members), front]

    def make() -> None:
        prepare(run)
        check_free(listen.host if listen is not None else "", port)
        runs_folder(folder).mkdir(mode=0o700, exist_ok=True)
        prepare_gate(_gate(folder), run / "commands")
        make_loopback(run)
        make_secret(secret)
        _tell_flwr(run, connection)
        (run / "superlink.json").write_text(json.dumps({"address": connection.address, "metrics": metrics}))
        supervisor.tell("superlink", f"at {connection.address}; metrics at http://{LOOPBACK}:{metrics}/metrics")
        if own_metrics is not None:
            server_metrics(folder, supervisor, runs_folder(folder)).serve(own_metrics)
            supervisor.tell("metrics", f"at http://{LOOPBACK}:{own_metrics}/metrics")

    refused = Refusals(run / "log" / "proxy.log")
    duties = (Duty("members", _LOOK_EVERY, members.look), Duty("messages", _LOOK_EVERY, refused.look))
    supervisor = Supervisor(run, services, say, duties, make)
    members.tell = refused.tell = supervisor.tell
    return supervisor


def _flower(folder: OperatorFolder, port: int, own: Loopback, secret: Path, members: _Members) -> list[Service]:
    run = folder.run
    variables = flower_environment(
        os.environ,
        run,
        **{ROSTER_VARIABLE: str(run / "roster.json")},
        **{SCHEMA_VARIABLE: str(folder.root / "schema.yaml")},
        **{MEMBERS_VARIABLE: str(run / "nodes.map"), LIMIT_VARIABLE: str(MOST_MESSAGE)},
        **log_variables(os.environ),
        **({CHARTER_VARIABLE: str(folder.charter)} if folder.charter.is_dir() else {}),
    )
    link = Service(
        name="superlink",
        command=(
            *(program("flower-superlink", variables), "--host", LOOPBACK, "--port", str(port)),
            *("--ssl-certfile", str(own.certificate), "--ssl-keyfile", str(own.key)),
            *("--ssl-ca-certfile", str(own.certificate), "--enable-supernode-auth"),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
            *("--database", str(run / "state.db"), "--disable-runtime-dependency-installation"),
        ),
        environment=variables,
        folder=run / "empty",
        ready=lambda: healthy(port, own.certificate) and members.agreed(),
    )
    executor = Service(
        name="superexec",
        command=(
            *(program("flower-superexec", variables), "--runtime-api-address", f"{LOOPBACK}:{port}"),
            *("--root-certificates", str(own.certificate)),
            *("--superexec-auth-secret-file", str(secret)),
        ),
        environment={**variables, "PATH": str(run / "commands"), GATE_VARIABLE: _gate(folder).to_json()},
        folder=run / "empty",
    )
    return [link, executor]


def _gate(folder: OperatorFolder) -> ServerGate:
    run = folder.run
    path = flower_environment(os.environ, run)["PATH"]
    return ServerGate(
        folder.approvals,
        run / "serverapps",
        runs_folder(folder),
        path,
        RUN_DIR_VARIABLE,
        run / "log" / "server-gate.log",
        tickets(folder).folder,
        RESUME_VARIABLE,
    )


class _Members:
    """Keeps the SuperLink's list of nodes, the proxy's, and the copy of the roster as the folder says."""

    tell: Say

    def __init__(self, folder: OperatorFolder, connection: Connection) -> None:
        self._folder, self._connection = folder, connection
        self._seen: object = None
        self._asked = 0.0
        self._told = ""

    def agreed(self) -> bool:
        """Say whether the SuperLink has the members of now: it is held against the folder anew."""
        try:
            self._do()
        except (ConsortiumError, OSError) as error:
            if str(error) != self._told:
                self._told = str(error)
                self.tell("members", self._told)
            return False
        return True

    def look(self) -> None:
        """Hold the SuperLink against the folder if that has changed, and every minute: others can change the former."""
        if self._state() != self._seen or time.monotonic() - self._asked > _ASK_EVERY:
            self._do()

    def _do(self) -> None:
        state = self._state()
        if rosters := self._folder.rosters():
            fresh = self._folder.run / "roster.json.new"
            fresh.write_bytes(rosters[-1].read_bytes())
            fresh.replace(self._folder.run / "roster.json")
        self._tell_proxy()
        for words in synchronise(self._folder, self._connection):
            self.tell("members", words)
        self._seen, self._asked = state, time.monotonic()

    def _tell_proxy(self) -> None:
        """Write which member has which node key if the proxy does not know, which starts it again.

        It is not started again for who left: the list of revoked certificates has refused them already.
        """
        place, wanted = self._folder.run / "nodes.map", render_keys(node_keys(self._folder))
        if not place.exists() or not set(wanted.splitlines()) <= set(place.read_text().splitlines()):
            fresh = place.with_name("nodes.map.new")
            fresh.write_text(wanted)
            fresh.replace(place)

    def _state(self) -> object:
        try:
            places = [self._folder.crl, *self._folder.rosters()]
            for name in self._folder.member_names():
                places += [self._folder.client_certificate(name), self._folder.node_key(name)]
            return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in places if path.exists())
        except OSError:
            return None


def _tell_flwr(run: Path, connection: Connection) -> None:
    """Write what Flower's own command line needs: ``FLWR_HOME=FOLDER/run/flwr flwr ls consortium``."""
    certificate = json.dumps(str(connection.certificate))  # a JSON string is a TOML basic string
    (run / "flwr" / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "{connection.address}"\nroot-certificates = {certificate}\n',
        encoding="utf-8",
    )
