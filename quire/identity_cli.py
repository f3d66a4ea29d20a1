"""``quire identity``: a party's own keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quire.clients.identity import PrivateIdentity
    from quire.clients.identity.keyfile import KeyFile

app = typer.Typer(
    help="This party's keys: make them, show them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PassphraseFile = Annotated[
    Path | None, typer.Option(help="Take the passphrase from this file, which only its owner can read.")
]
PassphraseVariable = Annotated[
    str | None, typer.Option("--passphrase-env", help="Take the passphrase from this environment variable.")
]


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="Where the secret keys go; the public ones go to FILE.pub.")],
    name: Annotated[str | None, typer.Option(help="What this party is called, such as hospital-1.")] = None,
    post_quantum: Annotated[
        bool, typer.Option("--post-quantum/--no-post-quantum", help="Add an ML-DSA-65 key; signatures then need both.")
    ] = False,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for a passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Make keys: FILE stays here, FILE.pub goes to the consortium's admins.

    \b
    quire identity new silo.key --name hospital-1 --passphrase
    """
    from quire.clients.identity import new_identity

    words = new_passphrase(f"Passphrase for {file}", passphrase, passphrase_file, passphrase_env)
    public = new_identity(file, name, post_quantum, words)
    protection = "no passphrase" if words is None else "encrypted with the passphrase"
    typer.echo(
        f"Secret keys  {file}  mode 600, {protection}; it stays here: keep a copy where nobody else can read it\n"
        f"Public keys  {file}.pub  goes to the consortium's admins\n"
        f"Algorithms   {' + '.join(public.algorithms)}\n"
        f"Fingerprint  {public.fingerprint}  tell it to them by another way than the file"
    )


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A file of keys, secret or public.")]) -> None:
    """Show what a file of keys says of itself: name, algorithms, fingerprint. Never a secret, never a passphrase."""
    from quire.clients.identity import read_key_file

    found = read_key_file(file)
    if found.encrypted is None:
        kind = "public keys"
        found.public()
    else:
        kind = "secret keys, encrypted with a passphrase" if found.encrypted else "secret keys, without a passphrase"
        if not found.encrypted:
            found.open()
    typer.echo(
        f"{file}: {kind}\n"
        f"Name         {found.name or '(none)'}\n"
        f"Algorithms   {found.algorithms}\n"
        f"Fingerprint  {found.fingerprint}"
    )


@app.command()
def public(
    file: Annotated[Path, typer.Argument(help="A file of secret keys.")],
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Print the public keys of FILE again, for when FILE.pub is lost: quire identity public FILE > FILE.pub"""
    from quire.clients.identity import read_key_file
    from quire.clients.identity.keyfile import write_public

    found = read_key_file(file)
    identity = found.open(passphrase_for(found, passphrase_file, passphrase_env))
    typer.echo(write_public(identity.public, found.name).decode(), nl=False)


def open_identity(path: Path, file: Path | None, variable: str | None) -> PrivateIdentity:
    """Return the keys in a party's key file, opened with the passphrase that :func:`passphrase_for` finds."""
    from quire.clients.identity import read_key_file

    found = read_key_file(path)
    return found.open(passphrase_for(found, file, variable))


def passphrase_for(found: KeyFile, file: Path | None, variable: str | None) -> str | None:
    """Return the passphrase of a key file that has one: as given, as a service finds it, or as somebody types it."""
    from quire.clients.identity import passphrase

    words = _given(file, variable)
    if words is not None or not found.encrypted:
        return words
    return passphrase.of_service() or _ask(f"Passphrase of {found.path}")


def new_passphrase(prompt: str, ask: bool, file: Path | None, variable: str | None) -> str | None:
    """Return the passphrase for keys that are about to be made, as given or as somebody types it; None for none."""
    from quire.clients.identity import IdentityFileError

    words = _given(file, variable)
    if ask and words is not None:
        raise IdentityFileError("--passphrase asks for one: leave it out, or the file or variable that holds one.")
    return _ask(prompt, confirm=True) if ask else words


def _given(file: Path | None, variable: str | None) -> str | None:
    if file is None and variable is None:
        return None
    from quire.clients.identity import IdentityFileError, passphrase

    if file is not None and variable is not None:
        raise IdentityFileError("Name a file or a variable that holds the passphrase, not both.")
    return passphrase.from_file(file) if file is not None else passphrase.from_variable(variable or "")


def _ask(prompt: str, confirm: bool = False) -> str:
    if not sys.stdin.isatty():
        from quire.clients.identity import IdentityFileError

        raise IdentityFileError(
            f"{prompt} is needed, and there is no terminal to ask at: use --passphrase-file or --passphrase-env."
        )
    words: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return words
