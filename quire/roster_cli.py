"""``quire roster``: who belongs to the consortium, under which keys, signed by its admins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

if TYPE_CHECKING:
    from quire.clients.identity import Attested, PublicIdentity, Roster, SignedRoster

app = typer.Typer(
    help="Who belongs to the consortium, under which keys: make a roster, sign it, check it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_DAYS = ["%Y-%m-%d"]
RosterFile = Annotated[Path, typer.Argument(metavar="ROSTER", help="The roster.")]


@app.command()
def create(
    roster: Annotated[Path, typer.Argument(metavar="ROSTER", help="Where it goes: a new file.")],
    member: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE.pub", help="A member and its public keys; may be repeated.")
    ] = None,
    admin: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]FILE.pub", help="Who signs the roster; may be repeated.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="NAME=ROLE", help="What a member does, if it is no silo.")
    ] = None,
    quorum: Annotated[int | None, typer.Option(help="How many admins have to sign; a majority of them.")] = None,
    roster_id: Annotated[str | None, typer.Option("--id", help="The consortium's name for it.")] = None,
    valid_from: Annotated[
        datetime | None, typer.Option(formats=_DAYS, help="First day of the members named here, UTC; today.")
    ] = None,
    valid_to: Annotated[
        datetime | None, typer.Option(formats=_DAYS, help="The day on which they expire, UTC; in two years.")
    ] = None,
    previous: Annotated[Path | None, typer.Option(help="The version that this one follows and takes over.")] = None,
    remove_member: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who leaves.")] = None,
    remove_admin: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who signs no longer.")] = None,
    attested: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="A member's enclave: of `quire enclave record`.")
    ] = None,
    aggregator: Annotated[Path | None, typer.Option(metavar="FILE", help="The server's enclave, likewise.")] = None,
) -> None:
    """Write a new roster, unsigned; or with --previous the next version, from what changes in it.

    \b
    quire roster create roster.json --id heart --member hospital-1=a.pub --member hospital-2=b.pub --admin anna=anna.pub
    quire roster create roster-2.json --previous roster.json --member hospital-3=c.pub --remove-member hospital-2
    """
    import secrets

    from quire.attest_cli import record_in, records_of
    from quire.clients.identity import IdentityFileError, SignedRoster
    from quire.clients.identity.errors import sentences
    from quire.clients.identity.rosters import Change, first_roster, next_roster, read_roster, write_new

    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    change = Change(
        members=_parties(member, "--member"),
        admins=_parties(admin, "--admin"),
        roles=_pairs(role, "--role"),
        removed_members=tuple(remove_member or ()),
        removed_admins=tuple(remove_admin or ()),
        quorum=quorum,
        valid_from=_seconds(valid_from or today),
        valid_to=_seconds(valid_to or today + timedelta(days=730)),
        attested=records_of(_pairs(attested, "--attested")),
        aggregator=None if aggregator is None else record_in(aggregator),
    )
    if previous is not None and roster_id is not None:
        raise IdentityFileError("--id is for a first roster: with --previous the id stays what it is.")
    old = None if previous is None else read_roster(previous).roster
    with sentences(roster):
        made = next_roster(old, change) if old else first_roster(roster_id or f"roster-{secrets.token_hex(8)}", change)
    write_new(roster, SignedRoster(made))
    _table(made)
    typer.echo(
        f"\nHash {made.hash}\n{roster} has no signature yet, and needs {made.quorum} of its {len(made.admins)} admins"
        + (f" and {old.quorum} of the {len(old.admins)} before" if old else "")
        + f".\nCompare every fingerprint with its owner, then: quire roster sign {roster} --key ADMIN.key"
    )


@app.command()
def sign(
    roster: RosterFile,
    key: Annotated[Path, typer.Option(help="The secret keys of an admin.")],
    previous: Annotated[Path | None, typer.Option(help="The version before, to sign as one of its admins.")] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Add an admin's signature to a roster; the hash stays what it is."""
    from quire.clients.identity.errors import sentences
    from quire.clients.identity.rosters import read_roster, sign_roster, write_over

    signed = read_roster(roster)
    old = None if previous is None else read_roster(previous).roster
    identity = open_identity(key, passphrase_file, passphrase_env)
    with sentences(roster):
        signed = sign_roster(signed, identity, old)
    write_over(roster, signed)
    typer.echo(f"Signed with {key}: {_progress(signed, old)}\nHash {signed.roster.hash}")


@app.command()
def merge(
    roster: RosterFile,
    other: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Copies that were signed elsewhere.")],
) -> None:
    """Take into ROSTER the signatures of copies of it."""
    from quire.clients.identity.rosters import merge_rosters, write_over

    signed = merge_rosters(roster, tuple(other))
    write_over(roster, signed)
    typer.echo(f"Merged: {_progress(signed)}")


@app.command()
def show(roster: RosterFile) -> None:
    """Show members, admins, who has signed, and the hash that silos pin."""
    from quire.clients.identity.rosters import read_roster, signature_states

    signed = read_roster(roster)
    _table(signed.roster, signature_states(signed, signed.roster.admins))
    typer.echo(f"\nHash {signed.roster.hash}\n{_progress(signed)}")


@app.command()
def verify(
    roster: RosterFile,
    pin: Annotated[str | None, typer.Option(metavar="HASH", help="The hash that it must have.")] = None,
    pinned: Annotated[
        Path | None, typer.Option(metavar="OLD", help="The roster pinned so far, which this one must follow.")
    ] = None,
) -> None:
    """Check a roster's signatures, and that it is the pinned one, or may follow it.

    Without --pin or --pinned this says only that the roster agrees with itself: anybody can make one that does.
    """
    from quire.clients.identity.errors import IdentityFileError
    from quire.clients.identity.rosters import check_roster, differences, read_roster

    if pin is not None and pinned is not None:
        raise IdentityFileError("Give --pin or --pinned, not both.")
    signed = read_roster(roster)
    old = None if pinned is None else read_roster(pinned)
    check_roster(roster, signed, pin, old)
    now = _seconds(datetime.now(UTC))
    active = signed.roster.active(now)
    typer.echo(
        f"{roster}: {signed.roster.roster_id}, version {signed.roster.version}, "
        f"{len(active)} of {len(signed.roster.members)} members active now\n"
        f"{_progress(signed, None if old is None else old.roster)}"
    )
    for member in signed.roster.members:
        if member not in active:
            typer.echo(f"{member.name} is {_validity(member.valid_from, member.valid_to, now)}")
    if pin is not None:
        typer.echo("It is the pinned roster.")
    elif old is not None:
        for line in differences(old.roster, signed.roster):
            typer.echo(line)
        typer.echo(f"It may follow {pinned}. Its hash, to pin from now on: {signed.roster.hash}")
    else:
        typer.echo(f"Nothing was pinned: before you trust it, compare this hash with the admins: {signed.roster.hash}")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    from quire.clients.identity import IdentityFileError

    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            raise IdentityFileError(f"{option} {text} must be NAME=VALUE.")
        if name in found:
            raise IdentityFileError(f"{option} names {name} twice.")
        found[name] = value
    return found


def _parties(given: list[str] | None, option: str) -> dict[str, PublicIdentity]:
    """Read what NAME=FILE.pub names; FILE.pub alone will do where the file gives a name."""
    from quire.clients.identity import IdentityFileError, read_key_file

    pairs = []
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            name, value = "", text
        found = read_key_file(Path(value))
        public, label = found.public(), name or found.name
        if label is None:
            raise IdentityFileError(f"{value} gives no name: write {option} NAME={value}.")
        pairs.append((label, public))
    twice = {label for label, _ in pairs if [name for name, _ in pairs].count(label) > 1}
    if twice:
        raise IdentityFileError(f"{option} names {min(twice)} twice.")
    return dict(pairs)


def _seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _validity(valid_from: int, valid_to: int, now: int) -> str:
    if now < valid_from:
        return f"valid from {_day(valid_from)} only"
    return f"expired since {_day(valid_to)}" if now >= valid_to else f"valid to {_day(valid_to)}"


def _progress(signed: SignedRoster, old: Roster | None = None) -> str:
    from quire.clients.identity.rosters import signature_states

    words = []
    for roster, whose in ((signed.roster, "its"), *(((old, "the previous"),) if old else ())):
        states = signature_states(signed, roster.admins)
        names = [name for name, state in states.items() if state == "signed"]
        by = f" ({', '.join(names)})" if names else ""
        words.append(f"{len(names)} of {whose} {len(states)} admins{by}, needs {roster.quorum}")
    return f"signed by {' and by '.join(words)}"


def _table(roster: Roster, states: dict[str, str] | None = None) -> None:
    """Print members and admins, each with the whole fingerprint on a line of its own: a cut one proves nothing."""
    now = _seconds(datetime.now(UTC))
    typer.echo(f"Roster {roster.roster_id}, version {roster.version}, quorum {roster.quorum}")
    if roster.previous:
        typer.echo(f"Follows {roster.previous}")
    rows = [("#", "member", "role", "validity", "keys")]
    rows += [
        (str(one.index), one.name, one.role, _validity(one.valid_from, one.valid_to, now), _keys(one.identity))
        for one in roster.members
    ]
    _columns(rows, [one.identity.fingerprint for one in roster.members])
    for one in roster.members:
        if one.attested is not None:
            typer.echo(f"\n{one.name} was attested {_day(one.attested.verified)}:{_enclave(one.attested)}")
    if roster.aggregator is not None:
        shown = roster.aggregator
        typer.echo(
            f"\nThe server was attested {_day(shown.attested.verified)}, with the key {shown.identity.fingerprint}:"
            + _enclave(shown.attested)
        )
    admins = [("admin", "signature", "keys")]
    admins += [(one.name, (states or {}).get(one.name, "none"), _keys(one.identity)) for one in roster.admins]
    _columns(admins, [one.identity.fingerprint for one in roster.admins])


def _enclave(found: Attested) -> str:
    from quire.clients.identity import INTEL

    root = "" if found.root == INTEL else f"\n    NOT UP TO INTEL'S ROOT: {found.root}"
    return (
        f"\n    measurement {found.measurement}\n    signer      {found.signer}, product {found.product}, version "
        f"{found.version}\n    platform    {', '.join([found.status, *found.advisories])}{root}"
    )


def _columns(rows: Sequence[tuple[str, ...]], fingerprints: list[str]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    typer.echo("")
    for row, fingerprint in zip(rows, ["", *fingerprints], strict=True):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if fingerprint:
            typer.echo(f"    {fingerprint}")


def _keys(identity: PublicIdentity) -> str:
    return " + ".join(identity.algorithms)
