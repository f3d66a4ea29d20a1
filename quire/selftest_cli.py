"""``quire selftest``: does a deployment do what its settings promise, before a record is risked on it?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.findings_cli import check_file, write_file

if TYPE_CHECKING:
    from rich.table import Table

    from quire.simulation.selftest import Selftest

app = typer.Typer(
    help="Tests of what a deployment promises, without any record.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Keep the group: typer takes one of a single command for that command."""


@app.command()
def noise(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value, as for quire run.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the findings there.")] = None,
    folder: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the run folder there.")] = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Run nothing: judge a self-test that ended up there.")
    ] = None,
) -> None:
    """Test the noise that silos share: rounds in which all add noise to nothing, and no row is read.

    Everything else is as in the run whose settings these are: shares, masks, stages, opening. The opened sums are held
    against the promised noise: mean, variance, shape, tails, and rounds against each other. Ends with 0 if it is as
    promised, with 1 if not, with 2 on a mistake in what was asked. Noise as promised is found wanting once in 1,000.

    \b
    quire selftest noise task=breast_cancer privacy.epsilon=4 strategy.rounds=100
    quire selftest noise privacy=silo_distributed privacy.delta=1e-5 privacy.selftest=8
    quire selftest noise task=tabular silos=FOLDER privacy.records=900 privacy.largest=300
    quire selftest noise --judge RUN_DIR                  of a SuperLink: docs/distributed-privacy.md
    """
    from rich.console import Console

    from quire.errors import SettingsError
    from quire.simulation.promise import NotAsPromised, judge_anew
    from quire.simulation.selftest import run_selftest, settings_of
    from quire.simulation.silos import take_silos
    from quire.strategies.selftest import as_dict

    check_file(json_file)
    if judge is not None and (overrides or folder is not None):
        raise SettingsError("--judge looks at a self-test that is over: leave out settings and --folder.")
    console = Console(soft_wrap=False, highlight=False)
    if judge is not None:
        found = judge_anew(judge)
    else:
        settings = settings_of(take_silos(overrides or []))
        with tempfile.TemporaryDirectory(prefix="quire-") as scratch, console.status("Testing the noise"):
            found = run_selftest(settings, folder if folder is not None else Path(scratch) / "run")
    write_file(json_file, as_dict(found))
    console.print(_table(found))
    if not found.passed:
        raise NotAsPromised(found.verdict())
    console.print(found.verdict(), markup=False)


def _table(found: Selftest) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for name, width in {"of": 8, "found": 8, "promised": 8, "p": 8, "alarm below": 11, "would find": 10, "": 5}.items():
        table.add_column(name, min_width=width)
    for question in found.questions:
        table.add_row(
            question.name,
            f"{question.found:.4g}",
            f"{question.promised:g}",
            f"{question.p:.3g}",
            f"{question.level:g}",
            "-" if question.shows is None else f"{question.shows:.2g} off",
            "ALARM" if question.alarm else "ok",
        )
    return table
