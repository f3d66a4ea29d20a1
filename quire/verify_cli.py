"""``quire verify``: is a run's privacy card what its signed receipts say?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run with privacy.")]


def verify(
    folder: Folder,
    roster: Annotated[Path | None, typer.Option(help="The consortium's roster, from where you trust it.")] = None,
    pin: Annotated[str | None, typer.Option(help="The hash that the roster must have.")] = None,
    charter: Annotated[
        Path | None, typer.Option(help="The folder of the charter's versions, or the file of the only one.")
    ] = None,
) -> None:
    """Verify the privacy card of a run: recompute every figure, check every signature, offline; ends with 1 if not.

    \b
    quire verify runs/mine
    quire verify runs/mine --roster roster.json --pin 3f0c...
    quire verify runs/mine --roster roster.json --charter charter/
    """
    from quire.simulation.verify import verify_run

    found = verify_run(folder, roster, pin, charter)
    tell(found.notes, found.wrong)
    typer.echo("Verified.")


def tell(notes: Iterable[str], wrong: Sequence[str]) -> None:
    """Print what was found; end with 1 if anything is wrong."""
    for note in notes:
        typer.echo(note)
    for sentence in wrong:
        typer.echo(f"WRONG  {sentence}", err=True)
    if wrong:
        count = len(wrong)
        typer.echo(f"Does not verify: {count} {'discrepancy' if count == 1 else 'discrepancies'}.", err=True)
        raise typer.Exit(1)
