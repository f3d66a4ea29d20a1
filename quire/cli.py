"""The command line. Each command imports what it needs when it is called, so that help is instant."""

from __future__ import annotations

import errno
from typing import Annotated

import typer

import quire
from quire import (
    app_cli,
    approve_cli,
    attack_cli,
    audit_cli,
    catalog_cli,
    charter_cli,
    consortium_cli,
    contribution_cli,
    dashboard_cli,
    enclave_cli,
    erasure_cli,
    identity_cli,
    launch_cli,
    ledger_cli,
    lineage_cli,
    log_cli,
    model_cli,
    report_cli,
    roster_cli,
    selftest_cli,
    silo_cli,
    transcript_cli,
    verify_cli,
)
from quire.errors import Interrupted, QuireError, SettingsError
from quire.text import TEXT, visible

#: What an operating system has against a path that a person named: whoever asks whether it is there is told so too.
_OF_PATHS = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS, errno.ENOSPC})

app = typer.Typer(
    name="quire",
    help="Federated learning for consortia, on Flower. Records stay at home; what updates tell of them, privacy=record "
    "or privacy=silo bounds. The default, privacy=none, does not.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Settings: docs/settings.md. Hydra's flags work too: -m, --cfg job, hydra.run.dir=FOLDER.",
)
def run(
    ctx: typer.Context,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value or group=option.")] = None,
) -> None:
    """Run a federation on this machine, or sweep over settings with -m.

    \b
    quire run                                             five hospitals, breast_cancer
    quire run strategy=fedprox strategy.mu=0.1            another strategy
    quire run -m training.lr=0.1,1 seed=1,2,3             six runs
    quire run runtime=flower                              under Flower's own Simulation Runtime
    quire run hydra.run.dir=runs/mine                     choose the run folder
    quire run task=tabular silos=FOLDER                   silos that read their own files
    quire run resume=runs/mine                            go on with a run that was killed or stopped
    """
    from quire.simulation.command import run_command

    raise typer.Exit(run_command([*(overrides or []), *ctx.args]))


app.add_typer(report_cli.app, name="report")
app.add_typer(app_cli.app, name="app")
app.command()(app_cli.gate)
app.command()(approve_cli.approve)
app.command()(approve_cli.reject)
app.add_typer(identity_cli.app, name="identity")
app.add_typer(roster_cli.app, name="roster")
app.add_typer(catalog_cli.app, name="catalog")
app.add_typer(charter_cli.app, name="charter")
app.add_typer(ledger_cli.app, name="ledger")
app.add_typer(log_cli.app, name="log")
app.add_typer(transcript_cli.app, name="transcript")
app.add_typer(silo_cli.app, name="silo")
app.command()(lineage_cli.lineage)
app.add_typer(erasure_cli.app, name="erasure")
app.add_typer(selftest_cli.app, name="selftest")
app.add_typer(model_cli.app, name="model")
app.add_typer(consortium_cli.app, name="consortium")
app.add_typer(dashboard_cli.app, name="dashboard")
app.add_typer(enclave_cli.app, name="enclave")
app.add_typer(launch_cli.superlink_app, name="superlink")
app.command()(launch_cli.submit)
app.command()(launch_cli.runs)
app.command()(audit_cli.audit)
app.add_typer(attack_cli.app, name="attack")
app.command()(contribution_cli.contribution)
app.command()(verify_cli.verify)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"quire {quire.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. A user's mistake ends in one sentence and the error's exit status."""
    try:
        app()
    except QuireError as error:
        typer.echo(f"quire: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in _OF_PATHS or error.filename is None:
            raise
        typer.echo(f"quire: {visible(str(error.filename), TEXT)} cannot be used: {error.strerror}.", err=True)
        raise SystemExit(SettingsError.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("quire: interrupted.", err=True)
        raise SystemExit(Interrupted.exit_code) from None
