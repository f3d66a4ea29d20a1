"""``quire log``: what a transparency log holds, whether it is sound, and proofs out of it. Offline, reading only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quire.verify_cli import tell

if TYPE_CHECKING:
    from quire.clients.identity import PublicIdentity, Roster
    from quire.transparency.entries import Entry
    from quire.transparency.proofs import Proof
    from quire.transparency.verify import Findings

app = typer.Typer(
    name="log",
    help="The transparency log: an append-only record that nobody can rewrite unseen. Show it, verify it, prove from "
    "it; all offline.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Where = Annotated[Path, typer.Argument(metavar="LOG", help="The log's folder, its run's folder, or its entries.jsonl.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
KeyFile = Annotated[Path | None, typer.Option("--key", help="The public key of the log, FILE.pub, as you trust it.")]

_COLUMNS = 60  # of a list of names


@app.command()
def show(
    log: Where,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind, for example model or refusal.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the entries of a log and its checkpoints. Nothing is verified: that is `quire log verify`.

    \b
    quire log show runs/mine
    quire log show runs/mine --kind refusal
    quire log show runs/mine --last 20 --json
    """
    from collections import deque

    from quire.transparency.entries import KINDS
    from quire.transparency.errors import LogError
    from quire.transparency.reading import Entries, read_notes
    from quire.transparency.verify import Place

    if kind is not None and kind not in KINDS:
        raise LogError(f"There are no entries of kind '{kind[:40]}': choose one of {', '.join(KINDS)}.")
    place = Place.of(log)
    notes, _ = read_notes(place.checkpoints)
    entries = Entries(place.entries)
    mark = f'"kind":"{kind}"'.encode()
    found: Iterator[tuple[int, Entry]] = entries.each(None if kind is None else lambda line: mark in line)
    if last is not None:
        found = iter(deque(found, maxlen=last))
    if as_json:
        for number, entry in found:
            typer.echo(json.dumps({"index": number, **json.loads(entry.data)}))
        return
    for number, entry in found:
        where = f"{entry.run}, round {entry.round}" if entry.round else entry.run
        typer.echo(f"{number:>6}  {_moment(entry.time)}  {where:<24}  {entry.kind:<12}  {_said(entry)}")
    typer.echo(f"{entries.tree.size} entries, {len(notes)} checkpoints; root {entries.tree.root().hex()}")
    if notes:
        one = notes[-1].checkpoint
        silos = [mark.name for mark in notes[-1].marks if mark.name != one.origin]
        typer.echo(
            f"The last checkpoint: '{one.origin}' at {one.size} entries, {_moment(one.time)}, countersigned by "
            f"{_names(silos) if silos else 'nobody'}"
        )


@app.command()
def verify(
    log: Annotated[
        Path, typer.Argument(metavar="LOG_OR_PROOF", help="A log, as for `quire log show`, or a proof's file alone.")
    ],
    key: KeyFile = None,
    roster: Annotated[Path | None, typer.Option(help="The consortium's roster: whose countersignatures count.")] = None,
    pin: Annotated[str | None, typer.Option(help="The hash that the roster must have.")] = None,
    countersigned: Annotated[
        list[str] | None,
        typer.Option(metavar="SILO", help="Must have countersigned what each round was bound to; repeat it."),
    ] = None,
    proof: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A proof that must be of this log; may be repeated.")
    ] = None,
    other: Annotated[Path | None, typer.Option(metavar="LOG", help="Another copy, which must be the same log.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a log offline, entry by entry; ends with 1 if anything is wrong.

    Recomputes every root, checks every checkpoint, its signature and that each goes on from the one before, and every
    countersignature if it has the roster. With --other, another copy, it says at which entry the two part.

    \b
    quire log verify runs/mine
    quire log verify runs/mine --key server.key.pub --roster roster.json --pin 3f0c...
    quire log verify runs/mine --countersigned silo-1 --countersigned silo-2 --roster roster.json
    quire log verify runs/mine --other copy-from-silo-1/
    quire log verify entry-7.json --key server.key.pub
    """
    from quire.transparency.verify import Place, verify_log

    public, members = _key(key), _roster(roster, pin)
    if (alone := _proof(log, strict=False)) is not None:
        _verify_proof(alone, public, members, countersigned or [], as_json)
        return
    proofs = [one for path in proof or [] if (one := _proof(path)) is not None]
    beside = None if other is None else Place.of(other)
    _report(verify_log(Place.of(log), public, members, countersigned or [], proofs, beside), as_json)


@app.command()
def prove(
    log: Where,
    index: Annotated[int, typer.Argument(min=0, help="The number of the entry, as `quire log show` gives it.")],
    out: Annotated[Path | None, typer.Option(help="Where the proof goes, a new file; else it is printed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a proof that an entry is in the log: JSON that anybody can check without the log.

    \b
    quire log prove runs/mine 7 --out entry-7.json
    quire log verify entry-7.json --key server.key.pub
    """
    from quire.clients.identity import files
    from quire.transparency.proofs import prove as proof_of
    from quire.transparency.reading import Entries, read_notes
    from quire.transparency.verify import Place

    place = Place.of(log)
    notes, _ = read_notes(place.checkpoints)
    proof = proof_of(Entries(place.entries), notes, index)
    if out is None:
        typer.echo(proof.encode(), nl=False)
        return
    files.create(out, proof.encode(), files.EVERYBODY)
    if as_json:
        typer.echo(json.dumps({"proof": str(out), "index": index, "size": proof.size, "hashes": len(proof.path)}))
        return
    unsigned = "the log as it is, which nobody has signed"
    under = unsigned if proof.note is None else f"its checkpoint at {proof.size} entries"
    typer.echo(f"{out}: entry {index} ({proof.entry.kind}) is in {under}; {len(proof.path)} hashes.")


def _report(found: Findings, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_as_dict(found)))
        raise typer.Exit(1 if found.wrong else 0)
    tell(found.remarks, found.wrong)
    typer.echo(f"Verified: '{found.origin}', {found.size} entries, {len(found.notes)} checkpoints.")


def _as_dict(found: Findings) -> dict[str, Any]:
    return {
        "verified": not found.wrong,
        "origin": found.origin,
        "key": None if found.key is None else found.key.fingerprint,
        "size": found.size,
        "root": found.root.hex(),
        "kinds": found.kinds,
        "checkpoints": [
            {
                "size": note.checkpoint.size,
                "root": note.checkpoint.root.hex(),
                "time": note.checkpoint.time,
                "countersigned": [mark.name for mark in note.marks if mark.name != note.checkpoint.origin],
            }
            for note in found.notes
        ],
        "unfinished_bytes": found.torn,
        "wrong": found.wrong,
        "remarks": found.remarks,
    }


def _verify_proof(
    proof: Proof, key: PublicIdentity | None, roster: Roster | None, silos: list[str], as_json: bool
) -> None:
    from quire.transparency.verify import verify_proof

    remarks = verify_proof(proof, key, roster, silos)
    said = json.loads(proof.entry.data)
    if as_json:
        typer.echo(json.dumps({"verified": True, "index": proof.index, "entry": said, "remarks": remarks}))
        return
    for remark in remarks:
        typer.echo(remark)
    typer.echo(f"Verified: entry {proof.index} of {proof.size} is {proof.entry.data.decode().rstrip()}")


def _key(path: Path | None) -> PublicIdentity | None:
    if path is None:
        return None
    from quire.clients.identity import read_key_file

    return read_key_file(path).public()


def _roster(path: Path | None, pin: str | None) -> Roster | None:
    from quire.transparency.errors import LogError

    if path is None:
        if pin is not None:
            raise LogError("--pin is the hash of a roster: name the roster with --roster.")
        return None
    from quire.clients.identity import load_roster, read_roster

    return load_roster(path, read_roster(path).roster.hash if pin is None else pin)


def _proof(path: Path, strict: bool = True) -> Proof | None:
    """Read a proof; where it need not be one, return None for whatever is a log rather than a proof."""
    from quire.clients.identity import files
    from quire.transparency.proofs import MAX_BYTES, Proof

    if not strict:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            if not file.read(16).startswith(b'{"checkpoint":'):
                return None
    return Proof.decode(files.read(path, MAX_BYTES))


def _said(entry: Entry) -> str:
    """Say what an entry says on one line, hashes by their first digits."""
    return ", ".join(f"{key} {_short(value)}" for key, value in entry.body.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return _names(value)
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if len(text) >= 64 else text


def _names(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _COLUMNS else f"{text[:_COLUMNS]}... ({len(names)})"


def _moment(seconds: int) -> str:
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return str(seconds)
