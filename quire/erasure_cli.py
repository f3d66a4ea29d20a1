"""``quire erasure``: requests for erasure at a silo, what was trained on the subject before, and attestations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

if TYPE_CHECKING:
    from quire.clients.data.consent.place import Place
    from quire.clients.data.consent.requests import Request
    from quire.clients.data.consent.traces import Trace
    from quire.clients.data.silo_file import SiloFile
    from quire.clients.identity import PublicIdentity

app = typer.Typer(
    name="erasure",
    help="Requests for erasure at a silo: recorded, excluded from then on, attested. Attestations are no proof.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Silo = Annotated[Path, typer.Argument(metavar="SILO", help="The silo's own file, silo.yaml.")]


@app.command()
def request(
    silo: Silo,
    given: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take the subject's id from this file, - for standard input."),
    ] = None,
) -> None:
    """Record that a subject asks for erasure; from the next message on, the subject's rows are left out.

    The id is asked for, or read from a file: on a command line every user of the machine could see it. It is kept as a
    keyed hash. A request does not delete rows from the silo's own tables; that is the operator's to do.

    \b
    quire erasure request silo.yaml
    quire erasure request silo.yaml --from subject.txt
    """
    from quire.clients.data.consent.requests import record

    own = _file(silo)
    place, subject = _place(own), _subject(given)
    made, new = record(place, subject, _column(own))
    if new:
        typer.echo(f"Request {made.id} is recorded: the subject's rows are left out from the next message on.")
    else:
        typer.echo(f"Request {made.id} of {made.time[:10]} is about this subject already; it stays as it is.")
    _show_rows(own, subject)
    _show_traces(place, made)


@app.command("list")
def listed(silo: Silo) -> None:
    """List the requests, and which runs were trained on each subject before."""
    from quire.clients.data.consent.requests import requests_of

    place = _place(_file(silo))
    found = requests_of(place)
    if not found:
        typer.echo("No request for erasure is recorded here.")
    for one in found.values():
        attested = f", attested {', '.join(time[:10] for time in one.attested)}" if one.attested else ""
        typer.echo(f"Request {one.id}, recorded {one.time.replace('T', ' ')[:19]} UTC{attested}")
        _show_traces(place, one)


@app.command()
def attest(
    silo: Silo,
    number: Annotated[str, typer.Argument(metavar="REQUEST", help="The number that `quire erasure request` gave.")],
    out: Annotated[Path, typer.Option(help="A new file for the attestation.")],
    say: Annotated[str | None, typer.Option(help="What else was done, in your own words; it is signed too.")] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Sign what this silo says it did about a request: an attestation, not a proof.

    It names the request, the runs that were trained on the subject before, and how many rounds were trained since
    without; no subject and no count of rows. It is refused if the silo's own lineage says otherwise.

    \b
    quire erasure attest silo.yaml 6f0c2a9be41d7735 --out attestation.json --say "rows deleted from the registry"
    """
    from quire.clients.data.consent import attest as attestations
    from quire.clients.data.consent.requests import requests_of
    from quire.errors import DataError

    own = _file(silo)
    place, operator = _place(own), own.operator
    found = requests_of(place)
    if number not in found:
        raise DataError(f"{silo} has no request {number[:40]}: see `quire erasure list {silo}`.")
    if own.name is None:
        raise DataError(f"{silo} has no 'name', under which an attestation would be signed: give it one.")
    identity = open_identity(operator.identity, passphrase_file, passphrase_env)
    made = attestations.attest(place, found[number], own.name, say, identity, out)
    typer.echo(f"{out}: attested by {own.name} ({made.signer[:16]}), {len(made.body['runs'])} runs named. No proof.")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The attestation.")],
    roster: Annotated[
        Path | None, typer.Option(help="The consortium's roster, whose member has to have signed.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Or the silo's public keys, silo.key.pub.")] = None,
) -> None:
    """Check who signed an attestation, and show what it says. Ends with 0 only if the signature is the silo's.

    \b
    quire erasure verify attestation.json --roster roster.json
    quire erasure verify attestation.json --key hospital-1.pub
    """
    from quire.clients.data.consent.attest import check_attestation, read_attestation

    made = read_attestation(file)
    check_attestation(made, _signer(roster, key, str(made.body["silo"])))
    body = made.body
    typer.echo(f"{file}: signed by {body['silo']} ({made.signer[:16]}) about request {body['request']}")
    typer.echo(f"Requested {body['requested']}, attested {body['attested']}; {body['rounds']} rounds trained since.")
    for run in body["runs"]:
        kind = ", simulated" if run["simulated"] else ""
        typer.echo(f"Run {run['run']}{kind}: rounds {run['first']} to {run['last']} were trained on the subject.")
    for run in body["continued"]:
        typer.echo(f"Run {run}: not trained on the subject, but it may have gone on with a run that was.")
    for run in body["unknown"]:
        typer.echo(f"Run {run}: cannot be told in all rounds; the silo knew rows by another column then.")
    if body["said"] is not None:
        typer.echo(f"The operator says: {body['said']}")
    typer.echo(body["statement"])


def _signer(roster: Path | None, key: Path | None, silo: str) -> PublicIdentity:
    from quire.clients.identity import read_key_file, read_roster
    from quire.clients.identity.rosters import check_roster
    from quire.errors import DataError, SettingsError

    if key is not None and roster is None:
        return read_key_file(key).public()
    if roster is None or key is not None:
        raise SettingsError("Name who has to have signed: either --roster FILE or --key FILE.")
    signed = read_roster(roster)
    check_roster(roster, signed)
    for member in signed.roster.members:
        if member.name == silo:
            return member.identity
    raise DataError(f"{roster} has no member '{silo}', by whom the attestation says it is.")


def _file(silo: Path) -> SiloFile:
    from quire.clients.data.silo_file import read_silo
    from quire.errors import DataError

    own = read_silo(silo)
    if own.consent is None:
        raise DataError(f"{silo} has no 'consent' with the 'subject' column by which rows are known as somebody's.")
    return own


def _place(own: SiloFile) -> Place:
    from quire.clients.data.consent.place import Place

    return Place.of(own.operator)


def _column(own: SiloFile) -> str:
    return "" if own.consent is None else own.consent.subject


def _subject(given: Path | None) -> str:
    from quire.clients.data.consent.ids import MAX_ID, one_id
    from quire.errors import DataError

    if given is None:
        return one_id(typer.prompt("Subject id", hide_input=True, err=True), "The answer")
    limit = 4 * MAX_ID + 64
    try:
        if str(given) == "-":
            return one_id(sys.stdin.read(limit).removeprefix("\ufeff"), "Standard input")
        with given.open(encoding="utf-8-sig") as stream:  # some editors begin a file with a mark that nobody sees
            return one_id(stream.read(limit), given)
    except OSError as error:
        raise DataError(f"{given} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise DataError(f"{given} is not text in UTF-8.") from None


def _show_rows(own: SiloFile, subject: str) -> None:
    """Say how many rows have the id now: a request for one that is spelled otherwise leaves nothing out."""
    from quire.clients.data.own import rows_about
    from quire.errors import DataError

    try:
        found = rows_about(own, subject)
    except DataError as error:
        typer.echo(f"  Whether a row of this silo has the id could not be looked up: {error}")
        return
    if not found:
        typer.echo(
            "  No row of this silo has this id now, so this request leaves none out: unless they were deleted before, "
            "see whether it is spelled as in the silo's tables, and if not record another."
        )


def _show_traces(place: Place, made: Request) -> None:
    from quire.clients.data.consent.traces import traces_of

    traces = traces_of(place, made.subject, made.column)
    if not traces.touched and not traces.unknown:
        runs = len(traces.clean)
        typer.echo(f"  By this silo's lineage the subject was in none of the {runs} runs that it trained in.")
    for trace in traces.touched:
        kind = ", simulated" if trace.simulated else ""
        typer.echo(f"  Run {trace.run}{kind}: rounds {trace.first} to {trace.last} were trained on the subject.")
        typer.echo(f"    {_way_back(trace)}")
    for run in traces.continued:
        typer.echo(f"  Run {run}: not trained on the subject, but it may have gone on with a run that was.")
    for run in traces.unknown:
        typer.echo(f"  Run {run}: cannot be told in all rounds; the subject column, or the key, was another one then.")


def _way_back(trace: Trace) -> str:
    if trace.clean is None:
        return "No state of this run is known to be without the subject: train anew; it is left out now."
    command = "quire run resume=COPY" if trace.simulated else f"quire submit FOLDER --resume {trace.run}"
    return (
        f"Last without the subject: the model after round {trace.clean} ({trace.model[:16]}). A run folder keeps only "
        f"its newest checkpoint: with a copy of the folder as it was then, `{command}` goes on from there; without "
        "one, train anew."
    )
