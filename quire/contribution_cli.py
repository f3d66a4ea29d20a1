"""``quire contribution``: what does each silo add to the model?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quire.simulation.contribution import Contribution


def contribution(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value, as for quire run.")] = None,
    cycles: Annotated[
        int, typer.Option(help="Cycles of sampled orders, 2 to 10,000; a cycle has as many orders as there are silos.")
    ] = 4,
    tolerance: Annotated[
        float, typer.Option(help="Leave an order once a coalition scores so close to everybody; 0 leaves none.")
    ] = 0.01,
    exact: Annotated[bool, typer.Option("--exact", help="Train all coalitions, of ten silos at most.")] = False,
    score: Annotated[str, typer.Option(help="What a coalition is worth: accuracy, or loss with its sign turned.")] = (
        "accuracy"
    ),
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the findings there.")] = None,
) -> None:
    """Train coalitions of simulated silos, each as a federation of its own, and say what each silo adds.

    Shapley values from sampled orders, with 95 % intervals, and leave-one-out. Only models of whole coalitions are
    used. Under privacy it is refused: docs/fairness.md says why, and what the figures tell.

    \b
    quire contribution task=digits strategy.rounds=10
    quire contribution task=digits aggregation=secure --cycles 10
    quire contribution task=tabular silos=FOLDER --exact --json worth.json
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from quire.errors import SettingsError
    from quire.simulation.contribution import contribution as find
    from quire.simulation.silos import take_silos
    from quire.strategies.checkpoint import replace
    from quire.text import TEXT, visible

    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise SettingsError(
            f"'{visible(str(json_file), TEXT)}' cannot be written: name a file in a folder that exists."
        )
    given = " ".join(take_silos(overrides or []))
    console = Console(highlight=False)
    with console.status("Training coalitions") as status:
        found = find(given, cycles, tolerance, exact, score, lambda runs: status.update(f"Training coalitions: {runs}"))
    if json_file is not None:
        try:
            replace(json_file, (json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise SettingsError(
                f"'{visible(str(json_file), TEXT)}' cannot be written ({error.strerror}): name another file."
            ) from error
    table = Table(box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("silo", "Shapley value", "95 % interval", "leave-one-out"):
        table.add_column(name)
    for name, value, width, lost in zip(found.names, found.shapley, found.half_width, found.left_out, strict=True):
        between = "exact" if found.orders == 0 else f"{value - width:+.4f} to {value + width:+.4f}"
        table.add_row(visible(name, TEXT), f"{value:+.4f}", between, f"{lost:+.4f}")
    console.print(table)
    for line in _words(found):
        console.print(line, markup=False, soft_wrap=True)


def _words(found: Contribution) -> list[str]:
    score = "accuracy" if found.score == "accuracy" else "minus the loss"
    how = "all coalitions" if found.orders == 0 else f"{found.orders} orders"
    words = [
        f"{score.capitalize()} on {found.rows} rows of all silos: {found.nobody:.4f} by the first model, "
        f"{found.everybody:.4f} by all silos together; the values add up to {math.fsum(found.shapley):+.4f}.",
        f"From {how}, with {found.runs} federations trained. Fewer than {found.least} silos train no model, and are "
        "worth what the first one is.",
    ]
    if found.attack:
        words.insert(0, f"These federations were attacked on purpose (attack={found.attack}): no silo is worth this.")
    if found.truncated:
        words.append(
            f"{found.truncated} times a silo was taken to add nothing, because all before it scored as everybody does."
        )
    if found.secure:
        words.append(
            "In a deployment the server would learn the sums of many coalitions, and two that differ by one silo tell "
            "much of its update: every silo would have to agree to that."
        )
    return words
