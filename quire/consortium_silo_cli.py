"""``quire consortium request``, ``join`` and ``renew``: what a silo's own people call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, new_passphrase, passphrase_for

AskPassphrase = Annotated[
    bool, typer.Option("--passphrase/--no-passphrase", help="Ask for a passphrase, or have none.")
]
PostQuantum = Annotated[
    bool, typer.Option("--post-quantum/--no-post-quantum", help="Add an ML-DSA-65 key; signatures then need both.")
]
Fingerprint = Annotated[
    str | None,
    typer.Option(metavar="DIGITS", help="The fingerprint as it was read out; else you compare."),
]
Yes = Annotated[bool, typer.Option("--yes", help="The fingerprint was compared already: ask nothing.")]


def request(
    invitation: Annotated[Path, typer.Argument(help="What the operator sent.")],
    folder: Annotated[Path, typer.Option(help="The silo's folder; made, mode 700, if it is missing.")],
    fingerprint: Fingerprint = None,
    yes: Yes = False,
    records: Annotated[
        int | None,
        typer.Option(min=1, help="How many records the silo declares, for the policy that silo.yaml begins with."),
    ] = None,
    passphrase: AskPassphrase = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
    post_quantum: PostQuantum = False,
) -> None:
    """At the silo: make its keys, which never leave the folder, and the request that goes back to the operator.

    Called again, it keeps the keys that are there.

    \b
    quire consortium request hospital-1.json --folder silo --records 303
    """
    from quire.clients.identity import read_key_file
    from quire.consortium.fingerprints import spoken
    from quire.consortium.layout import SiloFolder
    from quire.consortium.silo import read_invitation
    from quire.consortium.silo import request as make

    found = read_invitation(invitation)
    body, admin = found.body, found.identity("admin").fingerprint
    typer.echo(f"Invitation   {body['name']} to {body['consortium']} at {found.server}")
    given = compared(fingerprint, yes, admin, f"the operator of {body['consortium']}")
    key = SiloFolder(folder).identity_key
    if key.exists():
        words = passphrase_for(read_key_file(key), passphrase_file, passphrase_env)
    else:
        words = new_passphrase(f"Passphrase for {key}", passphrase, passphrase_file, passphrase_env)
    made = make(folder, found, given, words, post_quantum, records)
    typer.echo(
        f"Request      {SiloFolder(folder).request}  send it to the operator\n"
        f"Fingerprint  {spoken(made.identity('identity').fingerprint)}\n"
        "             read it out to the operator on another channel\n"
        f"Next         quire consortium join ADMISSION --folder {folder}"
    )


def join(
    sent: Annotated[Path, typer.Argument(metavar="FILE", help="An admission, first or renewed, or a bulletin.")],
    folder: Annotated[Path, typer.Option(help="The silo's folder.")],
) -> None:
    """At the silo: check and install what the operator sent: certificate, roster, list of revoked certificates.

    \b
    quire consortium join admission.json --folder silo
    quire consortium join bulletin.json --folder silo
    """
    from quire.consortium.joining import join as install

    changed = install(folder, sent)
    typer.echo("\n".join(changed) if changed else "Nothing in it is new.")


def renew_at_silo(folder: Path, fresh: bool, file: Path | None, variable: str | None) -> None:
    """Write a request for renewal, signed by the silo's identity."""
    from quire.clients.identity import read_key_file
    from quire.consortium.layout import SiloFolder
    from quire.consortium.silo import renew as ask

    place = SiloFolder(folder)
    words = passphrase_for(read_key_file(place.identity_key), file, variable) if place.identity_key.exists() else None
    ask(folder, fresh, words)
    typer.echo(
        f"Renewal      {place.request}  send it to the operator: the silo's keys have signed it\n"
        f"Next         quire consortium join ADMISSION --folder {folder}"
    )


def compared(given: str | None, yes: bool, fingerprint: str, whose: str) -> str:
    """Return a fingerprint that people have compared: as given, or as they confirm it."""
    from quire.consortium.errors import ConsortiumError
    from quire.consortium.fingerprints import compare, spoken

    if given is not None:
        compare(given, fingerprint, whose)
        return given
    typer.echo(f"Fingerprint  {spoken(fingerprint)}")
    if yes:
        return fingerprint
    if not sys.stdin.isatty():
        raise ConsortiumError(f"Compare this fingerprint with {whose}, then give what was read out with --fingerprint.")
    if not typer.confirm(f"Is this what {whose} reads out on another channel, to the last digit?", err=True):
        raise ConsortiumError("The fingerprint is another one: nothing was changed.")
    return fingerprint
