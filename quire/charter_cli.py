"""``quire charter``: what the members have agreed on, as a document that they sign and every silo checks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

if TYPE_CHECKING:
    from quire.charter.document import Charter
    from quire.charter.signed import SignedCharter
    from quire.clients.identity import PublicIdentity

app = typer.Typer(
    help="The charter: what the members have agreed on, signed by them, checked by every silo. See docs/charter.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CharterFile = Annotated[Path, typer.Argument(metavar="CHARTER", help="One version, as `quire charter propose` wrote.")]
Before = Annotated[Path | None, typer.Option("--previous", metavar="OLD", help="The version before this one.")]


@app.command()
def propose(
    draft: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What people wrote; docs/charter.md has a form.")],
    out: Annotated[Path, typer.Option(metavar="CHARTER", help="Where the document to sign goes: a new file.")],
    key: Annotated[
        list[Path] | None, typer.Option(metavar="FILE.pub", help="A member's public keys; may be repeated.")
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="A roster that has the members' public keys.")] = None,
    previous: Before = None,
) -> None:
    """Check a draft and write the document that members sign; with --previous an amendment of that version.

    The draft names each member by its fingerprint, which people compare; the keys themselves come from --key, from
    --roster, or from the version before, and stand in the document.

    \b
    quire charter propose charter.yaml --out charter-1.json --key a.pub --key b.pub --key c.pub
    quire charter propose charter.yaml --out charter-1.json --roster roster.json
    quire charter propose charter.yaml --out charter-2.json --previous charter-1.json
    """
    from quire.charter.chain import read_charter
    from quire.charter.drafts import read_draft
    from quire.charter.signed import SignedCharter, check_order
    from quire.charter.words import LOOSER, capped, changes, moment
    from quire.clients.identity import files

    old = None if previous is None else read_charter(previous).charter
    charter = read_draft(draft, _now(), _keys(key or [], roster), old)
    if old is not None:
        check_order(old, charter)
    files.create(out, SignedCharter(charter).encode(), files.EVERYBODY)
    typer.echo(f"{out}: {charter.label}\nHash {charter.hash}")
    for member in charter.members:
        typer.echo(f"  {member.name}: {capped(member) or 'no cap, the charter is without privacy'}")
    if old is None:
        typer.echo(f"It needs the signatures of {charter.needed} of its {len(charter.members)} members.")
    else:
        loose = [change.words for change in changes(old, charter) if change.effect == LOOSER]
        typer.echo(f"Looser than before: {'; '.join(loose) or 'nothing'}.")
        typer.echo(
            f"It needs the signatures of {old.amendments} of the {len(old.members)} members before, and of "
            f"{charter.needed} of its own {len(charter.members)}."
        )
    typer.echo(f"Each reads all that it says before: quire charter show {out}")
    typer.echo(
        f"They have until {moment(charter.not_before)}: quire charter sign {out} --key MEMBER.key"
        + (f" --previous {previous}" if old is not None else "")
    )


@app.command()
def sign(
    charter: CharterFile,
    key: Annotated[Path, typer.Option(help="The secret keys of a member.")],
    previous: Before = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Add a member's signature. What is signed is what `show` says: read it before.

    Who is no member, has signed already, or comes after the charter is to be in force, is refused. Members work on
    copies, which `merge` takes together, or hand one file on.

    \b
    quire charter sign charter-1.json --key silo.key
    quire charter sign charter-2.json --key silo.key --previous charter-1.json
    """
    from quire.charter.chain import read_charter
    from quire.clients.identity import files

    before = read_charter(charter)
    old = None if previous is None else read_charter(previous).charter
    identity = open_identity(key, passphrase_file, passphrase_env)
    signed = before.sign(identity, _now(), old)
    progress = _progress(signed, old)  # refuses bad signatures of others, before anything is written
    files.replace(charter, signed.encode())
    if any(one.fingerprint == identity.public.fingerprint for one in before.signatures):
        typer.echo("A bad signature that stood there under this key was replaced.")
    typer.echo(f"Signed {signed.charter.label} with {key}: {progress}\nHash {signed.charter.hash}")


@app.command()
def merge(
    charter: CharterFile,
    other: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Copies that were signed elsewhere.")],
    previous: Before = None,
) -> None:
    """Take into CHARTER the signatures of copies of it, each checked before. If one is bad, nothing is written.

    \b
    quire charter merge charter-1.json from-berlin.json from-basel.json
    quire charter merge charter-2.json from-berlin.json --previous charter-1.json
    """
    from quire.charter.chain import read_charter
    from quire.charter.errors import CharterError, CharterRefused
    from quire.charter.signed import check_order
    from quire.clients.identity import files

    signed = read_charter(charter)
    old = None if previous is None else read_charter(previous).charter
    if old is not None:
        check_order(old, signed.charter)
    members = (*signed.charter.members, *(() if old is None else old.members))
    for path in other:
        found = read_charter(path)
        if found.charter != signed.charter:
            raise CharterError(
                f"{path} is another charter than {charter}: {found.charter.hash[:16]}, not {signed.charter.hash[:16]}."
            )
        try:
            signed = signed.with_checked(found.signatures, members)
        except CharterRefused as error:
            raise CharterError(f"{path}: {error}") from None
    try:
        progress = _progress(signed, old)
    except CharterRefused as error:
        raise CharterError(f"{charter}: {error}") from None
    files.replace(charter, signed.encode())
    typer.echo(f"Merged: {progress}")


@app.command()
def show(charter: CharterFile, previous: Before = None) -> None:
    """Show a charter in plain words: what it says, who has signed, who is missing, and how long it lasts.

    \b
    quire charter show charter-1.json
    quire charter show charter-2.json --previous charter-1.json
    """
    from quire.charter.chain import read_charter
    from quire.charter.words import described, signing, standing

    signed = read_charter(charter)
    old = None if previous is None else read_charter(previous).charter
    for line in (*described(signed.charter), *signing(signed, old), "", standing(signed.charter, _now())):
        typer.echo(line)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A version.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
) -> None:
    """Say in words what NEW says otherwise than OLD, what is looser first. Signatures are for `verify`.

    \b
    quire charter diff charter-1.json charter-2.json
    """
    from quire.charter.chain import read_charter
    from quire.charter.words import changes

    found = changes(read_charter(old).charter, read_charter(new).charter)
    for change in found:
        typer.echo(f"{change.effect:<9} {change.words}")
    if not found:
        typer.echo("Nothing is different.")


@app.command()
def verify(
    charters: Annotated[
        list[Path], typer.Argument(metavar="CHARTER...", help="All versions, in any order; or the folder of them.")
    ],
    root: Annotated[str | None, typer.Option(metavar="HASH", help="The hash that version 1 must have.")] = None,
) -> None:
    """Check all versions of a charter offline: signatures, order, dates; and say which is in force.

    Version 1 needs the signatures of as many of its members as it says. A later one needs those of as many members of
    the version BEFORE as that one says, and of its own: who may amend a charter is not for the amendment to say.
    Without --root this says only that the versions agree with each other: anybody can make such.

    Ends with 0 if one is in force, with 1 if not or if they do not hold, with 2 if one cannot be read.

    \b
    quire charter verify charter
    quire charter verify charter-1.json charter-2.json --root 5f0c...
    """
    from quire.charter.chain import charter_files, expired, read_charter, verified
    from quire.charter.words import standing

    chain = verified((read_charter(file) for path in charters for file in charter_files(path)), root)
    for signed in chain.versions:
        typer.echo(f"version {signed.charter.version}  {signed.charter.hash}  {_progress(signed)}")
    now = _now()
    if root is None:
        typer.echo(f"Nothing was pinned: before you trust it, compare this hash with the members: {chain.first.hash}")
    charter = chain.in_force(now)  # raises if none is yet
    typer.echo(f"In force: version {charter.version}. {standing(charter, now)}")
    if expired(charter, now):
        raise typer.Exit(1)


def _keys(files: list[Path], roster: Path | None) -> dict[str, PublicIdentity]:
    from quire.clients.identity import read_key_file, read_roster

    found = [read_key_file(file).public() for file in files]
    if roster is not None:
        found += [member.identity for member in read_roster(roster).roster.members]
    return {identity.fingerprint: identity for identity in found}


def _progress(signed: SignedCharter, previous: Charter | None = None) -> str:
    from quire.charter.signed import signers

    charter, words = signed.charter, []
    sides = [(charter.members, charter.needed, "its")]
    if previous is not None:
        sides.append((previous.members, previous.amendments, "the previous"))
    for members, needed, whose in sides:
        names = [member.name for member in signers(signed, members)]
        by = f" ({', '.join(names)})" if names else ""
        words.append(f"{len(names)} of {whose} {len(members)} members{by}, needs {needed}")
    return f"signed by {' and by '.join(words)}"


def _now() -> int:
    return int(time.time())
