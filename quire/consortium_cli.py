"""``quire consortium``: who belongs to a consortium of machines, with which certificates."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.consortium_silo_cli import Fingerprint, PostQuantum, Yes, compared, join, renew_at_silo, request
from quire.identity_cli import PassphraseFile, PassphraseVariable, new_passphrase, passphrase_for

if TYPE_CHECKING:
    from quire.consortium.standing import Standing

app = typer.Typer(
    help="A consortium on several machines: certificates, members, keys that stay where they were made.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="At the operator: init, invite, admit, revoke, renew. At a silo: request, join, renew. Anywhere: status.",
)

OperatorPath = Annotated[Path, typer.Argument(metavar="FOLDER", help="The operator's folder.")]
Days = Annotated[int | None, typer.Option(min=1, max=3650, help="How long the certificate is good for, in days.")]


@app.command()
def init(
    folder: OperatorPath,
    name: Annotated[str, typer.Option(help="What the consortium is called, such as heart.")],
    server: Annotated[str, typer.Option(metavar="HOST[:PORT]", help="Where silos will reach the server; port 8443.")],
    passphrase: Annotated[
        bool | None, typer.Option("--passphrase/--no-passphrase", help="Ask for a passphrase, or have none.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
    post_quantum: PostQuantum = False,
    days: Annotated[int, typer.Option(min=2, max=36500, help="How long the authority is good for, in days.")] = 3650,
    server_days: Annotated[int, typer.Option(min=1, max=3650, help="And the server's certificate.")] = 365,
) -> None:
    """Make the operator's folder: certificate authority, the server's certificate, admin key, an empty index.

    \b
    quire consortium init consortium --name heart --server fl.example.org:8443
    quire consortium init consortium --name heart --server 10.0.0.5 --passphrase-file secret.txt
    """
    from quire.consortium.about import Server
    from quire.consortium.errors import ConsortiumError
    from quire.consortium.fingerprints import spoken
    from quire.consortium.founding import init as found

    place = Server.parse(server)
    if passphrase is None and not (passphrase_file or passphrase_env or sys.stdin.isatty()):
        raise ConsortiumError(
            "The authority's key is encrypted with a passphrase: use --passphrase-file or --passphrase-env, or say "
            "--no-passphrase."
        )
    ask = passphrase if passphrase is not None else not (passphrase_file or passphrase_env)
    words = new_passphrase(f"Passphrase for the keys in {folder}", ask, passphrase_file, passphrase_env)
    about = found(folder, name, place, words, post_quantum, days, min(server_days, days - 1))
    typer.echo(
        f"Consortium   {about.name}, in {folder}: back it up; ca/ca.key and roster/admin.key are the consortium\n"
        f"Server       {about.server}\n"
        f"Fingerprint  {spoken(about.admin)}\n"
        "             read it out to every silo on another channel than its invitation\n"
        f"Next         quire consortium invite {folder} NAME"
    )


@app.command()
def invite(
    folder: OperatorPath,
    name: Annotated[str, typer.Argument(help="What the silo is called, for ever, such as hospital-1.")],
    again: Annotated[bool, typer.Option("--again", help="Replace an invitation that is still open.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Write an invitation for a silo, good once and for 30 days. It is no secret: send it by any channel.

    \b
    quire consortium invite consortium hospital-1
    """
    from quire.consortium.fingerprints import spoken
    from quire.consortium.operator import opened

    with opened(folder, _words(folder, passphrase_file, passphrase_env), _now()) as operator:
        operator.invite(name, again, _now())
        place, admin = operator.folder.invitation(name), operator.about.admin
    typer.echo(
        f"Invitation   {place}  send it to {name}\n"
        f"Fingerprint  {spoken(admin)}\n"
        f"             read it out to {name} on another channel\n"
        "Next, there  quire consortium request INVITATION --folder SILO"
    )


app.command()(request)


@app.command()
def admit(
    folder: OperatorPath,
    request_file: Annotated[Path, typer.Argument(metavar="REQUEST", help="What the silo sent.")],
    fingerprint: Fingerprint = None,
    yes: Yes = False,
    days: Days = None,
    attested: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The silo's enclave: what `quire enclave record` wrote.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """At the operator: certify an invited silo's TLS key (90 days), put it into the roster, write its admission.

    Of the request for a certificate only the key is taken; nobody else gets anything new but the bulletin, which says
    what the roster is now.

    \b
    quire consortium admit consortium request.json
    """
    from quire.attest_cli import record_in
    from quire.consortium import documents
    from quire.consortium.about import read_operator_about
    from quire.consortium.authority import CLIENT_DAYS
    from quire.consortium.index import read_index
    from quire.consortium.layout import OperatorFolder
    from quire.consortium.operator import opened
    from quire.consortium.requests import examine

    found = documents.read(request_file, documents.REQUEST)
    name, place = found.body["name"], OperatorFolder(folder)
    examine(found, read_operator_about(place), read_index(place.issued), place, _now())
    record = None if attested is None else record_in(attested)
    words = _words(folder, passphrase_file, passphrase_env)
    given = compared(fingerprint, yes, found.identity("identity").fingerprint, name)
    with opened(folder, words, _now()) as operator:
        admission = operator.admit(found, given, days or CLIENT_DAYS, _now(), record)
    typer.echo(f"Admission    {admission}  send it to {name}\nBulletin     {place.bulletin}  send it to all others")


@app.command()
def attest(
    folder: OperatorPath,
    name: Annotated[str, typer.Argument(help="The member.")],
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="What `quire enclave record` wrote.")],
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """At the operator: record a member's enclave, verified for the first time or again, in a new roster."""
    from quire.attest_cli import record_in
    from quire.consortium.layout import OperatorFolder
    from quire.consortium.operator import opened

    found = record_in(record)
    with opened(folder, _words(folder, passphrase_file, passphrase_env), _now()) as operator:
        operator.attest(name, found, _now())
    typer.echo(f"Bulletin     {OperatorFolder(folder).bulletin}  send it to all members")


app.command()(join)


@app.command()
def renew(
    folder: Annotated[Path, typer.Argument(help="The silo's folder, or the operator's.")],
    request_file: Annotated[
        Path | None,
        typer.Argument(metavar="[REQUEST]", help="At the operator: what a silo sent, or nothing."),
    ] = None,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="For a fresh TLS key; at the operator that of the server, the old is revoked."),
    ] = False,
    days: Days = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Renew a certificate before it expires.

    \b
    quire consortium renew silo                     at the silo: write request.json, signed by its identity
    quire consortium renew consortium request.json  at the operator: certify, write the admission that goes back
    quire consortium renew consortium               at the operator: the server's own certificate
    """
    from quire.consortium.about import is_operator
    from quire.consortium.errors import ConsortiumError
    from quire.consortium.layout import OperatorFolder

    if not is_operator(OperatorFolder(folder)):
        if request_file is not None or days is not None:
            raise ConsortiumError("At a silo `renew` takes its folder alone: the operator says how long it lasts.")
        renew_at_silo(folder, new_key, passphrase_file, passphrase_env)
    elif request_file is not None and new_key:
        raise ConsortiumError("--new-key is for the server's own key here: a silo makes its own fresh key.")
    else:
        _renew_at_operator(folder, request_file, new_key, days, passphrase_file, passphrase_env)


@app.command()
def revoke(
    folder: OperatorPath,
    name: Annotated[str, typer.Argument(help="The member.")],
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Only its older certificates: it stays, with its newest.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """At the operator: refuse a member's certificates from now on, and take it out of the roster.

    Nothing of anybody else's is issued again. The proxy refuses it with the list in ca/crl.pem; each silo stops working
    with it when that silo joins with the new bulletin.

    \b
    quire consortium revoke consortium hospital-1
    quire consortium revoke consortium hospital-1 --superseded
    """
    from quire.consortium.operator import opened

    with opened(folder, _words(folder, passphrase_file, passphrase_env), _now()) as operator:
        operator.revoke(name, superseded, _now())
        crl, bulletin = operator.folder.crl, operator.folder.bulletin
    typer.echo(
        f"{name}: {'all certificates but the newest are' if superseded else 'revoked; its certificates are'} refused\n"
        f"Refused      {crl}  for the proxy\nBulletin     {bulletin}  send it to every member"
    )


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="The operator's folder, or a silo's.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show members, keys, what is pending and what expires when; needs no passphrase, and changes nothing.

    Warns of what ends within 14 days, of the authority within 180. Ends with 1 if something has expired or is amiss.
    """
    from quire.consortium.standing import standing

    found = standing(folder, _now())
    if as_json:
        typer.echo(found.to_json())
    else:
        _show(found)
    raise typer.Exit(1 if found.failing else 0)


def _renew_at_operator(
    folder: Path, request_file: Path | None, fresh: bool, days: int | None, file: Path | None, variable: str | None
) -> None:
    from quire.consortium import documents
    from quire.consortium.authority import CLIENT_DAYS, SERVER_DAYS
    from quire.consortium.operator import opened

    found = None if request_file is None else documents.read(request_file, documents.RENEWAL)
    with opened(folder, _words(folder, file, variable), _now()) as operator:
        if found is None:
            operator.renew_server(fresh, days or SERVER_DAYS, _now())
            said = f"Certificate  {operator.folder.server_certificate}  a running server takes it up by itself"
            if fresh and operator.folder.bulletin.exists():
                said += f"\nBulletin     {operator.folder.bulletin}  send it to every member: the old key is refused"
        else:
            place = operator.renew(found, days or CLIENT_DAYS, _now())
            said = f"Admission    {place}  send it to {found.body['name']}"
    typer.echo(said)


def _words(folder: Path, file: Path | None, variable: str | None) -> str | None:
    """Return the passphrase of the operator's keys; None if they have none, or there is no such folder."""
    from quire.clients.identity import read_key_file
    from quire.consortium.about import read_operator_about
    from quire.consortium.layout import OperatorFolder

    place = OperatorFolder(folder)
    read_operator_about(place)
    return passphrase_for(read_key_file(place.admin_key), file, variable)


def _show(found: Standing) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from quire.consortium.certificates import day
    from quire.consortium.fingerprints import spoken
    from quire.consortium.standing import EXPIRED, GOOD, WAITING, WRONG

    console = Console(soft_wrap=False, highlight=False)
    roster = "no roster yet" if found.version is None else f"roster version {found.version}, {found.roster}"
    console.print(f"{found.consortium} at {found.server}: {roster}", markup=False, soft_wrap=True)
    table = Table("what", "name", "state", "until", "", box=box.SIMPLE, show_edge=False, pad_edge=False)
    styles = {EXPIRED: "bold red", WRONG: "bold red", GOOD: None, WAITING: "cyan"}
    for item in found.items:
        until = "" if item.until is None else day(item.until)
        table.add_row(item.what, item.name, item.state, until, item.words, style=styles.get(item.state, "yellow"))
    console.print(table)
    for item in found.items:
        if item.fingerprint is not None and item.what in ("admin", "identity", "member"):
            console.print(f"{item.name}: {spoken(item.fingerprint)}", markup=False, soft_wrap=True)


def _now() -> int:
    return int(time.time())
