"""``quire superlink``, ``quire silo start``, ``quire submit``, ``quire runs``: a consortium's services and its runs."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

superlink_app = typer.Typer(
    help="The server of a consortium: Flower's SuperLink behind a proxy that asks for certificates.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OperatorPath = Annotated[Path, typer.Argument(metavar="FOLDER", help="The operator's folder.")]
Metrics = Annotated[
    int,
    typer.Option(min=0, max=65535, help="Port on 127.0.0.1 of the proxy's Prometheus metrics; 0: one that is free."),
]
OwnMetrics = Annotated[
    int | None,
    typer.Option(
        "--quire-metrics-port",
        min=1,
        max=65535,
        help="Port on 127.0.0.1 of Quire's own Prometheus metrics; without it there are none.",
    ),
]


@superlink_app.callback()
def _group() -> None:
    """Keep the group: typer takes one of a single command for that command."""


@superlink_app.command("start")
def superlink_start(
    folder: OperatorPath,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where silos reach the proxy; else the consortium's port, everywhere."),
    ] = None,
    metrics_port: Metrics = 0,
    quire_metrics_port: OwnMetrics = None,
) -> None:
    """Start the server of a consortium, and watch over it until Ctrl-C or SIGTERM.

    \b
    superlink   Flower's SuperLink, on 127.0.0.1 with TLS, node authentication, its state in run/state.db
    superexec   Flower's SuperExec with a secret, which runs the server's side of each run
    proxy       HAProxy: the only port for others, TLS with client certificates, /v1/fleet/ and nothing else

    A service that ends is started again. Members are registered at the SuperLink, and struck off when revoked, as
    the folder says, at once. Logs are in run/log/, results of runs in runs/.

    \b
    quire superlink start consortium
    quire superlink start consortium --listen 10.0.0.5:8443
    quire superlink start consortium --metrics-port 9101 --quire-metrics-port 9102
    """
    from quire.consortium.about import Server
    from quire.consortium.layout import OperatorFolder
    from quire.consortium.superlink import superlink

    reached = Server.parse(listen) if listen else None
    superlink(OperatorFolder(folder), _say, reached, metrics_port, quire_metrics_port).run()


def silo_start(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The silo's folder.")],
    metrics_port: Metrics = 0,
    quire_metrics_port: OwnMetrics = None,
    pass_variable: Annotated[
        list[str] | None,
        typer.Option("--pass", help="An environment variable that approved code sees; may be repeated."),
    ] = None,
    warm: Annotated[str, typer.Option(help="What the gate imports ahead of messages: all, light or none.")] = "all",
) -> None:
    """Start a silo's services, and watch over them until Ctrl-C or SIGTERM.

    \b
    proxy       HAProxy on 127.0.0.1: goes out to the server with the silo's certificate, and checks the server's
    supernode   Flower's SuperNode, with the silo's node key; it starts no code and is not told where the data are
    gate        lets in approved code only, and tells it alone where silo.yaml is (docs/gate.md)

    Nothing here listens for others: the silo needs one way out, to the consortium's server. Logs are in run/log/.

    \b
    quire silo start clinic
    QUIRE_PASSPHRASE_FILE=words quire silo start clinic
    quire silo start clinic --pass DATABASE_PASSWORD
    """
    from quire.consortium.layout import SiloFolder
    from quire.consortium.silo_services import silo

    silo(SiloFolder(folder), _say, metrics_port, pass_variable or [], quire_metrics_port, warm).run()


def submit(
    folder: OperatorPath,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value or group=option.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end; 1 if it did not complete.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Only write the code that would be shipped, for silos to review and approve."
        ),
    ] = None,
    resume: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", help="Go on with a run whose process is gone, from its last round, as it was; see `runs`."
        ),
    ] = None,
) -> None:
    """Submit a run to the consortium's SuperLink, on the machine where that runs.

    What is shipped is the code of this installation and the string of settings. Silos let it in if they have approved
    its content hash, which is printed; `--bundle FILE` writes it for them beforehand. Where FOLDER has a charter, the
    run is under the version in force.

    `--resume NUMBER` goes on with a run that failed, or was lost when the server went down: in its folder, from its
    last checkpoint, with its settings and the code that it began with. Silos charge again for a round that was under
    way. It has a number of its own, under which the same folder is found.

    \b
    quire submit consortium --bundle quire.fab
    quire submit consortium task=breast_cancer partition.silos=4 aggregation=secure
    quire submit consortium partition.silos=3 strategy.rounds=5 --wait
    quire submit consortium --resume 8361724598273645982 --wait
    """
    from quire.conf.compose import compose
    from quire.consortium.charter import with_charter
    from quire.consortium.layout import OperatorFolder
    from quire.consortium.resume import resume as go_on
    from quire.consortium.submit import follow, make_bundle
    from quire.consortium.submit import submit as send
    from quire.consortium.superlink import runs_folder
    from quire.errors import SettingsError
    from quire.simulation.hydra_main import quoted

    place = OperatorFolder(folder)
    if resume is not None:
        if bundle is not None:
            raise SettingsError("--bundle writes the code and submits nothing: leave out --resume, or --bundle.")
        gone_on = go_on(place, resume, [quoted(item) for item in overrides or []], typer.echo)
        typer.echo(f"Run {gone_on.run} goes on with run {gone_on.before} after round {gone_on.rounds}.")
        typer.echo(f"Results: {gone_on.folder}")
        if wait:
            follow(place, gone_on.run, typer.echo, gone_on.told)
            typer.echo(f"Run {gone_on.run} is completed.")
        return
    settings = compose(" ".join(quoted(item) for item in with_charter(place, overrides or [])))
    if bundle is not None:
        made = make_bundle()
        bundle.write_bytes(made.raw)
        typer.echo(f"{bundle}: content {made.content}\nSilos approve it with `quire app approve {bundle.name}`.")
        return
    run, made = send(place, settings)
    typer.echo(f"Run {run}, code {made.content}\nResults: {runs_folder(place) / str(run)}")
    if wait:
        follow(place, run, typer.echo)
        typer.echo(f"Run {run} is completed.")


def runs(
    folder: OperatorPath,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the runs of a consortium: status, rounds, times, and why one failed.

    While the SuperLink is down, what the run folders say is shown. A run that another one went on with is `continued`.

    \b
    quire runs consortium
    quire runs consortium --json
    quire runs consortium --json | jq -r 'select(.status == "failed") | .error'
    """
    from quire.consortium.about import read_operator_about
    from quire.consortium.layout import OperatorFolder
    from quire.consortium.submit import list_runs

    place = OperatorFolder(folder)
    read_operator_about(place)
    lines = list_runs(place)
    for line in lines:
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(line)))
            continue
        rounds = "-" if line.rounds is None else f"{line.rounds}/{line.of or '?'}"
        times = f"{_minute(line.started or line.submitted)}  {_minute(line.finished)}"
        words = [line.error or "", f"goes on with run {line.continues}" if line.continues is not None else ""]
        typer.echo(
            f"{line.run:>20}  {line.status:<11}  {rounds:>9}  {times}  {'; '.join(filter(None, words))}".rstrip()
        )
    if not lines and not as_json:
        typer.echo("No runs yet.")


def _minute(moment: str | None) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else " " * 16


def _say(name: str, words: str) -> None:
    typer.echo(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {name}: {words}")
