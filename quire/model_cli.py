"""``quire model``: released models as signed and encrypted envelopes, and what becomes of each version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from quire import model_key_cli
from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

app = typer.Typer(
    help="Released models: signed and encrypted envelopes, versions, revocation. See docs/model-releases.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(model_key_cli.key_app, name="key")
app.add_typer(model_key_cli.watermark_app, name="watermark")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The registry's folder.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]
Identity = Annotated[Path, typer.Option(help="The releaser's secret keys, as `quire identity new` made them.")]
Why = Annotated[str, typer.Option(help="The reason, which everybody with the registry can read.")]
Pin = Annotated[str | None, typer.Option(help="The fingerprint that the releaser must have.")]
RosterFile = Annotated[
    Path | None, typer.Option(help="The consortium's roster, one of whose parties the releaser must be.")
]


@app.command()
def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a completed run.")],
    name: Annotated[str, typer.Option(help="What the model is called; the same name makes the next version.")],
    registry: Annotated[Path, typer.Option(metavar="DIR", help="The registry's folder; begun if there is none.")],
    to: Annotated[list[Path], typer.Option(metavar="FILE.pub", help="A recipient's public key; may be repeated.")],
    identity: Identity,
    purpose: Annotated[str, typer.Option(help="What the model may be used for, in words.")],
    expires: Annotated[str, typer.Option(metavar="DATE", help="The last day on which it opens, UTC: 2027-06-30.")],
    charter: Annotated[
        Path | None, typer.Option(help="The charter that the run is under: its file, or the folder of its versions.")
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="The roster that the run is verified against.")] = None,
    schema: Annotated[Path | None, typer.Option(help="schema.yaml, where silos read rows of their own.")] = None,
    watermark: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put in a watermark; its key goes to this new file.")
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Release a run that does not verify; the envelope says so.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Release a run's model: verify the run, encrypt model and card to the recipients, sign, enter in the book.

    \b
    quire model release runs/mine --name heart --registry releases --to berlin.recipient.pub --identity server.key
        --purpose "Research on the heart" --expires 2027-06-30 --roster roster.json
    """
    from quire.releases.making import Terms, last_day
    from quire.releases.making import release as make

    terms = Terms(name, purpose, last_day(expires), tuple(to), roster, charter, schema, unverified, watermark)
    made = make(run, registry, terms, open_identity(identity, passphrase_file, passphrase_env), _now())
    header = made.header
    for note in made.notes:
        typer.echo(note)
    if header.charter is not None and not header.charter.checked:
        typer.echo(f"Charter: {header.charter.hash}; what it says was not looked at, name it with --charter.")
    if watermark is not None:
        typer.echo(f"Watermark: its key is in {watermark}; keep it where nobody else can read it.")
    typer.echo(f"{made.path}: {header.label}, for {len(header.recipients)} {_recipients(header.recipients)}")
    typer.echo(f"Releaser {header.releaser.fingerprint}  tell it to them by another way than the file")


@app.command("open")
def opened(
    envelope: Annotated[Path, typer.Argument(metavar="ENVELOPE", help="The envelope's file.")],
    key: Annotated[Path, typer.Option(help="Your secret key, as `quire model key new` made it.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the model.")],
    registry: Annotated[Path | None, typer.Option(metavar="DIR", help="The registry that it is from.")] = None,
    pin: Pin = None,
    roster: RosterFile = None,
    version: Annotated[
        int | None, typer.Option(help="Open this version although another one is current; never a revoked one.")
    ] = None,
) -> None:
    """Open an envelope, if it is for this key, stands in its registry, and comes from a releaser that you trust.

    KEY.seen beside the key remembers each registry: an older copy of it is refused from then on.

    \b
    quire model open releases/envelopes/heart-2.envelope --key berlin.recipient --registry releases --pin 3f0c...
        --out heart
    """
    from quire.releases.disk import check_absent
    from quire.releases.opening import Trust, moment, open_envelope, write_out
    from quire.text import TEXT, visible

    check_absent(out)
    found = open_envelope(envelope, key, Trust.named(pin, roster), registry, _now(), version)
    write_out(found, out)
    for note in found.notes:
        typer.echo(note)
    header = found.header
    if header.origin.verified == "no":
        typer.echo("The releaser says that the run did not verify.")
    elif header.origin.simulated:
        typer.echo("The releaser says that the run was a simulation: its card guarantees nothing.")
    typer.echo(f"Purpose: {visible(header.purpose, TEXT)}")
    typer.echo(f"{out}: {header.label}, to be used until {moment(header.expires)}")


@app.command("list")
def listed(folder: Folder) -> None:
    """List the models of a registry with their versions; the book's signatures are checked, envelopes are not."""
    from quire.releases.checking import standing
    from quire.releases.opening import moment
    from quire.releases.registry import read_registry

    book, now = read_registry(folder), _now()
    typer.echo(f"Registry {book.id}\nReleaser {book.releaser.fingerprint}")
    if not book.models:
        typer.echo("Nothing was released yet.")
    for name, model in sorted(book.models.items()):
        for one in model.versions:
            typer.echo(f"{name} {one.number:<4} {standing(book, name, one, now):<12} released {moment(one.released)}")


@app.command()
def show(
    folder: Folder,
    name: Name,
    number: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="The current one by default.")] = None,
) -> None:
    """Show what the envelope of a version says of itself, and how that version stands."""
    import json

    from quire.releases.checking import standing
    from quire.releases.errors import Refused
    from quire.releases.opening import described, read_envelope
    from quire.releases.registry import envelope_file, read_registry
    from quire.text import TEXT, visible

    book = read_registry(folder)
    model = book.model(name)
    found = book.version(name, number if number is not None else model.current or len(model.versions))
    envelope = read_envelope(envelope_file(folder, name, found.number))
    if envelope.hash != found.envelope:
        raise Refused(f"The envelope of {name} version {found.number} is not the one that the book names.")
    for key, value in described(envelope.header).items():
        typer.echo(f"{key:<11} {visible(value if isinstance(value, str) else json.dumps(value), TEXT)}")
    typer.echo(f"{'stands':<11} {standing(book, name, found, _now())}")
    if found.revoked is not None:
        typer.echo(f"{'why':<11} {visible(found.revoked, TEXT)}")
    elif model.current == found.number and model.why is not None:
        typer.echo(f"{'why':<11} rolled back to: {visible(model.why, TEXT)}")


@app.command()
def rollback(
    folder: Folder,
    name: Name,
    identity: Identity,
    to: Annotated[int, typer.Option(metavar="N", help="The version that is to be the current one again.")],
    why: Why,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Make an older version the current one again; the newer ones then open only by their number.

    \b
    quire model rollback releases heart --to 1 --why "version 2 was trained on wrong units" --identity server.key
    """
    from quire.releases.registry import opened as registry

    secret, now = open_identity(identity, passphrase_file, passphrase_env), _now()
    with registry(folder, secret, now) as found:
        found.roll_back(name, to, why, now)
    typer.echo(f"{name} version {to} is the current one. Recipients see it once they have this registry.")


@app.command()
def revoke(
    folder: Folder,
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Its number.")],
    identity: Identity,
    why: Why,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Revoke a version for good. Who has opened it already keeps what is on its disk: this takes nothing back.

    \b
    quire model revoke releases heart 2 --why "a silo withdrew" --identity server.key
    """
    from quire.releases.registry import opened as registry

    secret, now = open_identity(identity, passphrase_file, passphrase_env), _now()
    with registry(folder, secret, now) as found:
        found.revoke(name, version, why, now)
        current = found.book.models[name].current
    typer.echo(f"{name} version {version} is revoked. Recipients see it once they have this registry.")
    if current is None:
        typer.echo(f"{name} has no current version now: release another, or `quire model rollback` to an older one.")


@app.command()
def verify(folder: Folder, pin: Pin = None, roster: RosterFile = None) -> None:
    """Check a registry offline: every line of its book, every envelope; ends with 1 if anything does not hold."""
    from quire.releases.checking import check_registry
    from quire.releases.opening import Trust
    from quire.verify_cli import tell

    found = check_registry(folder, Trust.named(pin, roster), _now())
    tell(found.notes, found.wrong)
    typer.echo("Verified.")


def _recipients(ids: Sequence[str]) -> str:
    return "recipient" if len(ids) == 1 else "recipients"


def _now() -> int:
    return int(time.time())
