"""``quire model key`` and ``quire model watermark``: what recipients and releasers keep to themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

key_app = typer.Typer(
    help="A recipient's key pair, to which envelopes are encrypted.", no_args_is_help=True, rich_markup_mode=None
)
watermark_app = typer.Typer(
    help="Watermarks: is a model one that was released with this key?", no_args_is_help=True, rich_markup_mode=None
)


@key_app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the recipient is called, such as berlin.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the two files go.")] = Path(),
    identity: Annotated[
        Path | None, typer.Option(help="Sign the public key with these secret keys, which a roster has the others of.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Make a key pair: NAME.recipient stays here, NAME.recipient.pub goes to who releases models.

    \b
    quire model key new berlin --folder keys --identity berlin.key
    """
    from quire.releases.recipients import new_recipient

    signer = None if identity is None else open_identity(identity, passphrase_file, passphrase_env)
    path, made = new_recipient(folder, name, signer)
    by = "signed by nobody" if made.signer is None else f"signed by {made.signer.fingerprint[:16]}"
    typer.echo(
        f"Secret key  {path}  mode 600, no passphrase; it stays here, and whoever has it can open what is sent to you\n"
        f"Public key  {path}.pub  {by}; it goes to who releases models\n"
        "Algorithms  ML-KEM-768 + X25519\n"
        f"Key id      {made.id}  tell it to them by another way than the file"
    )


@key_app.command()
def show(file: Annotated[Path, typer.Argument(metavar="FILE.pub", help="A recipient's public key.")]) -> None:
    """Show whose a public key says that it is, its id, and who has signed it."""
    from quire.releases.recipients import read_recipient

    found = read_recipient(file)
    by = "nobody" if found.signer is None else found.signer.fingerprint
    typer.echo(f"Name       {found.name}\nKey id     {found.id}\nSigned by  {by}")


@watermark_app.command()
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")],
    key: Annotated[Path, typer.Option(help="The watermark's key, as `quire model release --watermark` made it.")],
    envelope: Annotated[
        Path | None, typer.Option(help="The envelope that committed to the key when the model was released.")
    ] = None,
) -> None:
    """Say how many bits of a key's message a model holds, and how likely that is without the mark.

    Ends with 0 if the mark is there, with 1 if not. Without --envelope it does not show that the key is older than the
    model: a key can be made to fit any model.

    \b
    quire model watermark verify suspect.safetensors --key heart.watermark
        --envelope releases/envelopes/heart-1.envelope
    """
    from quire.clients.identity import files
    from quire.releases.header import MAX_PAYLOAD
    from quire.releases.marks import MarkKey, committed
    from quire.releases.opening import arrays_of
    from quire.releases.watermark import THRESHOLD, read_mark

    secret = MarkKey.read(key)
    found = read_mark(arrays_of(files.read(model, MAX_PAYLOAD), str(model)), secret.seed, secret.layers)
    typer.echo(f"{found.matching} of {found.bits} bits match; without the mark with probability {found.p_value:.2g}")
    if envelope is None:
        typer.echo("When the key was made was not looked at: name the --envelope that committed to it.")
    else:
        typer.echo(committed(envelope, secret))
    if not found.holds:
        typer.echo(f"Not found: the threshold is {THRESHOLD:g}. That does not show that it never was there.")
        raise typer.Exit(1)
    typer.echo(f"Found: below the threshold of {THRESHOLD:g}.")
