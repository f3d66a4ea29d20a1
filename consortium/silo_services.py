"""The services of a silo: the proxy to the server, Flower's SuperNode, and the gate in the place of its SuperExec.

The SuperNode starts no code and is not told where the data are. The gate (docs/gate.md) is: it holds every bundle that
the server ships against the operator's list before anything of it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import quire
from quire.clients.gate.scrub import PASSPHRASE_FILE, check_names
from quire.consortium.about import read_silo_about
from quire.consortium.layout import SiloFolder
from quire.consortium.loopback import LOOPBACK, Loopback, make_loopback, make_secret, write_private
from quire.consortium.probe import check_end, reach
from quire.consortium.proxy import SiloProxy
from quire.consortium.services import (
    ServicesError,
    flower_environment,
    free_ports,
    healthy,
    listens,
    prepare,
    program,
    proxy_service,
)
from quire.consortium.silo_metrics import silo_metrics
from quire.consortium.supervise import Duty, Say, Service, Supervisor
from quire.consortium.too_large import Refusals

# Seconds between two looks at the way to the server, at the end of the certificate, and at the proxy's log.
_LOOK_EVERY, _REMIND_EVERY, _READ_EVERY = 60.0, 3600.0, 2.0


def silo(
    folder: SiloFolder,
    say: Say,
    metrics: int = 0,
    passed: Sequence[str] = (),
    own_metrics: int | None = None,
    warm: str = "all",
) -> Supervisor:
    """Return the services of a silo; nothing is written before they are run.

    Parameters
    ----------
    folder : SiloFolder
    say : callable
        Told of every event.
    metrics : int
        Port on loopback for the proxy's metrics; 0: one that the system gives.
    passed : sequence of str
        Names of environment variables that approved code sees.
    own_metrics : int or None
        Port on loopback for Quire's own metrics; None: they are not served.
    warm : str
        What the gate imports before messages come; see :func:`quire.clients.gate.launch.open_gate`.

    Raises
    ------
    ConsortiumError
        If the folder is no silo's, lacks something, or a program is missing.
    ScrubError
        If a variable cannot be handed on.
    """
    folder = SiloFolder(folder.root.resolve())  # services start in other folders
    about, run = read_silo_about(folder), folder.run
    for path, maker in (
        (folder.client_certificate, "quire consortium join"),
        (folder.client_key, "quire consortium request"),
        (folder.ca_certificate, "quire consortium join"),
        (folder.crl, "quire consortium join"),
        (folder.node_key, "quire consortium request"),
        (folder.silo_file, "quire consortium request"),
    ):
        if not path.is_file():
            raise ServicesError(f"There is no {path}: `{maker}` makes it.")
    check_names(passed)
    port, node_port, free = free_ports(3)
    own, secret = Loopback.within(run), run / "superexec.secret"
    client = run / "client-both.pem"
    proxy = SiloProxy(about.server, client, folder.ca_certificate, folder.crl, port, own.both, metrics or free)

    def join_certificate() -> None:
        write_private(client, folder.client_certificate.read_bytes() + folder.client_key.read_bytes())

    front = proxy_service(
        run,
        proxy.render(),
        lambda: listens(LOOPBACK, port),
        (folder.client_certificate, folder.client_key, folder.ca_certificate, folder.crl),
        join_certificate,
        attempts=None,  # the server's name may not be known yet
    )
    refused = Refusals(run / "log" / "proxy.log")
    duties = (
        Duty("server", _LOOK_EVERY, lambda: reach(folder, about.server)),
        Duty("certificate", _REMIND_EVERY, lambda: check_end(folder)),
        Duty("messages", _READ_EVERY, refused.look),
    )

    def make() -> None:
        prepare(run)
        make_loopback(run)
        make_secret(secret)
        if own_metrics is not None:
            silo_metrics(folder, supervisor).serve(own_metrics)
            supervisor.tell("metrics", f"at http://{LOOPBACK}:{own_metrics}/metrics")

    services = [front, *_flower(folder, port, node_port, own, secret, passed, warm)]
    supervisor = Supervisor(run, services, say, duties, make)
    refused.tell = supervisor.tell
    return supervisor


def _flower(
    folder: SiloFolder, port: int, node_port: int, own: Loopback, secret: Path, passed: Sequence[str], warm: str
) -> list[Service]:
    run = folder.run
    variables = flower_environment(os.environ, run)
    handed_on = {name: variables.pop(name) for name in passed if name in variables}
    # In a checkout the rooms lie beside the package, and an isolated Python would not find them.
    where = str(Path(quire.__file__).resolve().parent.parent)
    certificate = str(own.certificate)
    program("flower-supernode", variables)  # is Flower there?
    node = Service(
        name="supernode",
        command=(
            *(sys.executable, "-I", "-c"),
            f"import sys; sys.path.insert(0, {where!r}); from quire.consortium.supernode import main; main()",
            *("--superlink", f"{LOOPBACK}:{port}"),
            *("--root-certificates", certificate, "--auth-supernode-private-key", str(folder.node_key)),
            *("--host", LOOPBACK, "--port", str(node_port), "--isolation", "process"),
            *("--ssl-certfile", certificate, "--ssl-keyfile", str(own.key), "--ssl-ca-certfile", certificate),
            *("--superexec-auth-secret-file", str(secret)),
        ),
        environment=variables,
        folder=run / "empty",
        ready=lambda: healthy(node_port, own.certificate),
        attempts=None,  # Flower refuses it for a minute if it did not take its leave
    )
    words = os.environ.get(PASSPHRASE_FILE)
    gate = Service(
        name="gate",
        command=(
            *(sys.executable, "-I", "-c"),
            f"import sys; sys.path.insert(0, {where!r}); sys.argv[0] = 'quire'; from quire.cli import main; main()",
            *("gate", "--silo", str(folder.silo_file), "--runtime-api-address", f"{LOOPBACK}:{node_port}"),
            *("--root-certificates", certificate, "--superexec-auth-secret-file", str(secret), "--warm", warm),
            *(part for name in passed for part in ("--pass", name)),
        ),
        environment={**variables, **handed_on, **({PASSPHRASE_FILE: str(Path(words).absolute())} if words else {})},
        folder=run / "empty",
    )
    return [node, gate]
