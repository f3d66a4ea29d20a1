"""``quire silo classify``: what the columns of a table seem to be, and a proposal of what to do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def classify(
    path: Annotated[Path, typer.Argument(help="The silo's own file, silo.yaml, or a CSV or Parquet file.")],
    separator: Annotated[
        str | None, typer.Option(help="Between the cells of a CSV file: one character, or \\t for a tab.")
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether a CSV file begins with the names of its columns; unsaid, it does if none looks like a value.",
        ),
    ] = None,
) -> None:
    """Propose what each column of a table is, and a `columns` block for silo.yaml; a person has to confirm it.

    Reads the rows on this machine, and prints no value: names of columns, shares, and how sure it is, an order and not
    a probability. What it takes for a plain measurement may still tell who somebody is.

    \b
    quire silo classify silo.yaml
    quire silo classify patients.csv
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from quire.clients.data.rules.classify import KINDS
    from quire.clients.data.rules.classify import classify as propose
    from quire.clients.data.rules.proposal import proposed
    from quire.clients.data.rules.tables import read_table

    found = read_table(path, separator, header)
    proposals = propose(found.columns, found.target, found.missing)
    table = Table("column", "proposed", "sure", "why", box=box.SIMPLE, show_edge=False, pad_edge=False)
    for one in proposals:
        table.add_row(_shown(one.column), KINDS[one.kind], f"{one.confidence:.2f}", one.why)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(proposed(proposals, found.wanted), soft_wrap=True)


def _shown(name: str) -> str:
    """Return a name without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
