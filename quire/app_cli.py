"""``quire app`` and ``quire gate``: which code a silo lets in, and the gate that holds to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Which code this silo, or an operator's server, lets in: show the hash of a bundle, approve it, revoke it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Target = Annotated[str, typer.Argument(help="An app's folder, a .fab file, or a hash.")]
Silo = Annotated[Path, typer.Option(help="The silo's own file; the list lies beside it, as silo.approved.json.")]
Server = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="An operator's folder: the list of what the server's side of runs may be."),
]


@app.command("hash")
def show_hash(
    target: Annotated[
        Path, typer.Argument(help="An app's folder (as `flwr run` would pack it), or a .fab file.")
    ] = Path("."),
) -> None:
    """Show every hash of a bundle, and of the sources in it that take part in a round.

    \b
    content   of all its files, however they are packed: approve this one
    fab       of the packed file, as Flower shows it
    code      of the sources that run in a round: what `policy: code:` in silo.yaml lists and run.json records
    """
    from quire.clients.code import hash_of_sources
    from quire.clients.gate.bundle import read_bundle

    bundle = read_bundle(target)
    code = hash_of_sources(bundle.files)
    typer.echo(f"content {bundle.content}\nfab     {bundle.fab}\ncode    {code or 'none: it is no bundle of Quire'}")


@app.command()
def approve(
    target: Target,
    silo: Silo = Path("silo.yaml"),
    server: Server = None,
    note: Annotated[str, typer.Option(help="Your own words: what was reviewed, and by whom.")] = "",
) -> None:
    """Let a bundle in from the next message on."""
    from datetime import UTC, datetime

    from quire.clients.gate.approvals import Approval, login
    from quire.clients.gate.approvals import approve as add

    entry = Approval(_hashes(target), note, login(), datetime.now(UTC).isoformat(timespec="seconds"))
    changed = add(_list(silo, server), entry)
    typer.echo(f"{'Approved' if changed else 'Already approved'}: {entry.hashes[0]}")


@app.command()
def revoke(target: Target, silo: Silo = Path("silo.yaml"), server: Server = None) -> None:
    """Let a bundle in no longer, from the next message on."""
    from quire.clients.gate.approvals import ApprovalError
    from quire.clients.gate.approvals import revoke as remove

    place, hashes = _list(silo, server), _hashes(target)
    if not remove(place, hashes):
        raise ApprovalError(f"{hashes[0]} is not approved in {place}.")
    typer.echo(f"Revoked: {hashes[0]}")


@app.command("list")
def show_list(silo: Silo = Path("silo.yaml"), server: Server = None) -> None:
    """Show what is approved: hash, when, by whom, note."""
    from quire.clients.gate.approvals import read_approvals

    for entry in read_approvals(_list(silo, server)):
        typer.echo(" ".join(filter(None, (entry.hashes[0], entry.at, entry.by, entry.note))))


def gate(
    silo: Silo = Path("silo.yaml"),
    runtime_api_address: Annotated[str, typer.Option(help="Of the SuperNode's Runtime API.")] = "127.0.0.1:9094",
    superexec_auth_secret_file: Annotated[
        Path | None, typer.Option(help="The secret that the SuperNode was started with.")
    ] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="Of the SuperNode's Runtime API, if it has TLS.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="The Runtime API is on this machine, without TLS.")
    ] = False,
    pass_variable: Annotated[
        list[str] | None,
        typer.Option("--pass", help="An environment variable that approved code sees; may be repeated."),
    ] = None,
    warm: Annotated[str, typer.Option(help="What is imported ahead of messages: all, light or none.")] = "all",
) -> None:
    """Stand between Flower and this silo's data: let in approved code only. Runs until it is stopped.

    The SuperNode is started with --isolation process, and starts no code itself; see docs/gate.md.
    """
    import logging

    from quire.clients.gate.launch import GateError, open_gate

    logging.basicConfig(level=logging.INFO, format="%(asctime)s gate %(levelname)s: %(message)s")
    if insecure and root_certificates is not None:
        raise GateError("--insecure and --root-certificates exclude each other.")
    arguments = ["--runtime-api-address", runtime_api_address]
    for option, value in (
        ("--superexec-auth-secret-file", superexec_auth_secret_file),
        ("--root-certificates", root_certificates),
    ):
        if value is not None:
            if not value.is_file():
                raise GateError(f"There is no file {value}, which {option} names.")
            arguments += [option, str(value.resolve())]
    if insecure:
        arguments.append("--insecure")
    raise typer.Exit(open_gate(silo, arguments, pass_variable or [], warm))


def _list(silo: Path, server: Path | None) -> Path:
    from quire.clients.gate.approvals import ApprovalError, approvals_file

    if server is not None:
        from quire.consortium.about import read_operator_about
        from quire.consortium.layout import OperatorFolder

        read_operator_about(OperatorFolder(server))
        return OperatorFolder(server).approvals
    if not silo.is_file():
        raise ApprovalError(f"There is no file {silo}: --silo names the silo's own file.")
    return approvals_file(silo)


def _hashes(target: str) -> tuple[str, ...]:
    from quire.clients.gate.approvals import is_hash
    from quire.clients.gate.bundle import read_bundle

    if is_hash(target):
        return (target,)
    bundle = read_bundle(Path(target))
    return bundle.content, bundle.fab
