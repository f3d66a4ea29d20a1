"""``quire silo``: what a silo's operator does with the silo's own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from quire.clients.policy.model import Operator, Policy
    from quire.clients.policy.words import Line
    from quire.conf.schema import Settings

app = typer.Typer(
    name="silo",
    help="A silo's own file, and what its policy accepts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: Checks whose objection does not keep the silo out of a run.
_ASIDE = ("scores",)


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The silo's own file, silo.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of a run, as key=value.")] = None,
) -> None:
    """Explain what this silo accepts; with settings, whether it would take part in that run, and why.

    Reads the silo's own file and its books, no data. Ends with 0 if the run is accepted, with 1 if it is refused.

    \b
    quire silo check silo.yaml
    quire silo check silo.yaml task=tabular privacy=record privacy.epsilon=2
    """
    from rich.console import Console

    from quire.clients.data.silo_file import read_operator_of
    from quire.conf.compose import compose

    console = Console(soft_wrap=False, highlight=False)
    settings = compose(" ".join(overrides)) if overrides else None
    operator = read_operator_of(file)
    _head(console, file, operator)
    if operator.policy is None:
        console.print("It has no policy: it serves the simulator, and a real silo refuses every run.", markup=False)
        raise typer.Exit(1 if settings is not None else 0)
    if settings is None:
        _explain(console, operator.policy)
        _spent(console, operator, operator.policy)
        return
    raise typer.Exit(0 if _judge(console, operator, operator.policy, settings) else 1)


def _head(console: Console, file: Path, operator: Operator) -> None:
    console.print(f"Silo file: {file}", markup=False)
    if operator.population is not None:
        name, records = operator.population.name, operator.population.records
        console.print(f"Population: {name}, {records} records declared", markup=False)
    if operator.roster is not None:
        console.print(f"Roster: {operator.roster.sha256[:12]}... in {operator.roster.file.name}", markup=False)


def _explain(console: Console, policy: Policy) -> None:
    from quire.clients.policy.words import lines

    table = _table("what", "this silo accepts", "where it says so")
    for line in lines(policy):
        table.add_row(line.title, line.allows, _place(policy, line.name))
    console.print(table)
    _warn(console, policy)


def _judge(console: Console, operator: Operator, policy: Policy, settings: Settings) -> bool:
    """Print every check of a run, and return whether the silo would take part."""
    from quire.clients.code import code_hash
    from quire.clients.contract import EVALUATE
    from quire.clients.policy.books import look
    from quire.clients.policy.case import Case, State
    from quire.clients.policy.words import lines_of_run

    state = State(stage=EVALUATE, code=code_hash(), spent=look(operator, policy))
    found = lines_of_run(Case(policy, settings, state))
    table = _table("", "what", "this silo accepts", "this run asks for")
    for line in found:
        sign, style = _sign(line)
        table.add_row(sign, line.title, line.allows, line.asks, style=style)
    console.print(table)
    against = [line for line in found if line.objection and line.name not in _ASIDE]
    for line in found:
        if line.objection:
            console.print(f"{line.title}: {line.objection}.", markup=False, soft_wrap=True)
    _spent(console, operator, policy)
    _warn(console, policy)
    verdict = "Refused: this silo would not take part." if against else "Accepted: this silo would take part."
    console.print(verdict, style="bold red" if against else "bold green")
    return not against


def _spent(console: Console, operator: Operator, policy: Policy) -> None:
    from quire.clients.policy.books import look

    if not policy.capped:
        return
    spent = look(operator, policy).epsilon(policy.delta)
    left = "nothing is left" if spent >= policy.epsilon else f"the cap is {policy.epsilon:g}"
    console.print(
        f"Spent by '{policy.population.name}' so far: epsilon {spent:.3g} at delta {policy.delta:g}; {left}.",
        markup=False,
        soft_wrap=True,
    )


def _sign(line: Line) -> tuple[str, str | None]:
    if line.objection is None:
        return "yes", None
    return ("kept", "yellow") if line.name in _ASIDE else ("no", "bold red")


def _place(policy: Policy, name: str) -> str:
    line = dict(policy.lines).get(name)
    if line is not None:
        return f"line {line}"
    return "default" if hasattr(policy, name) else "always"


def _warn(console: Console, policy: Policy) -> None:
    if policy.test_seed:
        console.print(
            "Warning: test_seed is true. Whoever knows the seed can undo the noise: never over real records.",
            style="yellow",
        )
    if not policy.code:
        console.print(
            "Note: no code is pinned, so what the policy holds back it holds back from an honest-but-curious server.",
            markup=False,
            soft_wrap=True,
        )


def _table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(*titles, box=box.SIMPLE, show_edge=False, pad_edge=False)
