"""``quire lineage``: what the rounds that a silo trained were trained on, in counts, at the silo alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quire.clients.data.consent.lineage import Line


def lineage(
    silo: Annotated[Path, typer.Argument(metavar="SILO", help="The silo's own file, silo.yaml.")],
    run: Annotated[int | None, typer.Option(help="Of this run alone, by Flower's number.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show of each round that this silo trained how many rows came in, and how many were left out and why.

    Which rows is not kept. The counts are the silo's own: none of them travels, and under differential privacy none may
    be given away.

    \b
    quire lineage silo.yaml
    quire lineage silo.yaml --run 8361724598273645982 --json
    """
    from quire.clients.data.consent.lineage import lines_of
    from quire.clients.data.consent.place import Place
    from quire.clients.data.silo_file import read_operator_of

    lines = [one for one in lines_of(Place.of(read_operator_of(silo))) if run is None or one.run == run]
    if as_json:
        for line in lines:
            typer.echo(json.dumps(asdict(line)))
        return
    if not lines:
        typer.echo(f"{silo} has no lineage{'' if run is None else f' of run {run}'}: rounds are noted with 'consent'.")
        return
    _table(lines)


def _table(lines: list[Line]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from quire.clients.data.consent.sieve import REASONS

    table = Table("time (UTC)", "run", "round", "came in", *REASONS, "trained", "kept for scores", box=box.SIMPLE)
    for line in lines:
        run = f"{line.run}{' (simulated)' if line.simulated else ''}"
        left = (str(line.left_out.get(why, 0)) for why in REASONS)
        counts = (str(line.round), str(line.came), *left, str(line.trained), str(line.scored))
        table.add_row(line.time.replace("T", " ")[:19], run, *counts)
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)
