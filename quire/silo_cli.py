"""``quire silo``: what a silo's operator does with the silo's own file."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.classify_cli import classify
from quire.launch_cli import silo_start
from quire.score_cli import score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from quire.clients.policy.chartered import Bound
    from quire.clients.policy.model import Operator, Policy
    from quire.clients.policy.words import Line
    from quire.clients.store import Spending
    from quire.conf.schema import Settings

app = typer.Typer(
    name="silo",
    help="A silo's own file, and what its policy accepts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: Checks whose objection does not keep the silo out of a run.
_ASIDE = ("scores",)


app.command("start")(silo_start)
app.command()(score)
app.command()(classify)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The silo's own file, silo.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of a run, as key=value.")] = None,
) -> None:
    """Explain what this silo accepts; with settings, whether it would take part in that run, and why.

    Reads the silo's own file, key, roster and books; no data, and it changes nothing. Ends with 0 if the run is
    accepted, with 1 if it is refused, or if the silo would refuse any run.

    \b
    quire silo check silo.yaml
    quire silo check silo.yaml task=tabular privacy=record privacy.epsilon=2
    """
    from rich.console import Console

    from quire.clients.data.silo_file import read_operator_of
    from quire.conf.compose import compose

    console = Console(soft_wrap=False, highlight=False)
    settings = compose(" ".join(overrides)) if overrides else None
    operator, bound, outside = _chartered(read_operator_of(file), file)
    _head(console, file, operator)
    if bound is not None:
        console.print(f"Charter: {bound.charter.label}; with it the stricter holds", markup=False)
    unlike = _labels(console, operator, bound, settings)
    if operator.policy is None:
        console.print("It has no policy: it serves the simulator, and a real silo refuses every run.", markup=False)
        raise typer.Exit(1 if settings is not None else 0)
    spent, broken = _standing(file, operator, operator.policy)
    broken += outside
    if settings is None:
        _explain(console, operator.policy)
        _budget(console, operator.policy, spent)
        _warn(console, operator.policy, broken)
        if broken:
            console.print("Until that is mended it refuses every run.", style="bold red")
        raise typer.Exit(1 if broken else 0)
    if bound is not None:
        broken += _against_charter(bound, operator, operator.policy, settings, spent)
    broken += unlike
    if operator.roster is None and settings.aggregation.name == "secure":
        broken.append("Roster: none is pinned, and secure aggregation is with members that the silo knows.")
    raise typer.Exit(0 if _judge(console, operator, operator.policy, settings, spent, broken) else 1)


def _chartered(operator: Operator, file: Path) -> tuple[Operator, Bound | None, list[str]]:
    """Return what the operator lays down as strict as the charter has it, the charter, and what is wrong with that."""
    if operator.charter is None:
        return operator, None, []
    from quire.clients.answering import Refusal
    from quire.clients.data.silo_file import name_in
    from quire.clients.policy.chartered import under_charter

    try:
        stricter, bound = under_charter(operator, name_in(file) or "")
    except Refusal as refusal:
        return operator, None, [f"Charter: {refusal.words}."]
    return stricter, bound, [] if bound is None else _against_silo(operator, bound)


def _against_silo(operator: Operator, bound: Bound) -> list[str]:
    """Say what keeps a silo out of any run under a charter: another key, or a store that knows a later version."""
    from quire.clients.answering import Refusal
    from quire.clients.identity import read_key_file
    from quire.clients.policy.attested import hold_to_attestation
    from quire.clients.policy.books import now
    from quire.clients.policy.chartered import another_key, look_back
    from quire.errors import QuireError

    found: list[str | None] = []
    with suppress(QuireError):  # a key or books that cannot be read: `_standing` says so
        if operator.identity.exists():
            found.append(another_key(bound, read_key_file(operator.identity).fingerprint))
    with suppress(QuireError):
        found.append(look_back(operator.store, bound.chain, bound.charter))
    try:
        hold_to_attestation(bound, operator, now())
    except Refusal as refusal:
        found.append(refusal.words)
    return [f"Charter: {words}." for words in found if words is not None]


def _against_charter(
    bound: Bound, operator: Operator, policy: Policy, settings: Settings, spent: Spending | None
) -> list[str]:
    """Say what the charter has against a run; its cap is on all that was spent since version 1 took force."""
    from quire.clients.answering import Refusal
    from quire.clients.code import code_hash
    from quire.clients.contract import EVALUATE
    from quire.clients.policy.books import look
    from quire.clients.policy.case import Case, State
    from quire.clients.policy.chartered import hold_to_charter

    chartered = None if spent is None else look(operator, policy, bound.began)
    state = State(stage=EVALUATE, code=code_hash(), spent=spent, chartered=chartered, members=_members(operator))
    try:
        hold_to_charter(bound, Case(policy, settings, state))
    except Refusal as refusal:
        return [f"Charter: {refusal.words}."]
    return []


def _labels(console: Console, operator: Operator, bound: Bound | None, settings: Settings | None) -> list[str]:
    """Print what the labels of the rows ask for, and return what they have against a run."""
    if operator.dataset is None:
        return []
    from quire.clients.data.rules.labels import described, objections

    for words in described(operator.dataset):
        console.print(words, markup=False, soft_wrap=True)
    charter = None if bound is None else bound.charter
    against = () if settings is None else objections(operator.dataset, charter, settings)
    return [f"Labels: {words}." for words in against]


def _head(console: Console, file: Path, operator: Operator) -> None:
    console.print(f"Silo file: {file}", markup=False)
    if operator.population is not None:
        name, records = operator.population.name, operator.population.records
        console.print(f"Population: {name}, {records} records declared", markup=False)
    if operator.roster is not None:
        said = f"Roster: {operator.roster.sha256[:12]}... in {operator.roster.file.name}"
        console.print(said, markup=False, soft_wrap=True)
    if operator.witness is not None:
        console.print(f"Witness: {operator.witness}", markup=False, soft_wrap=True)


def _standing(file: Path, operator: Operator, policy: Policy) -> tuple[Spending | None, list[str]]:
    """Return what is spent, None if that is not known, and what keeps the silo out of any run: key, roster, books."""
    from quire.clients.policy.books import look
    from quire.errors import QuireError

    if not operator.identity.exists():
        return None, [f"Key: {operator.identity} is not there; make one with `quire identity new {operator.identity}`."]
    found = []
    try:
        outside = _roster_objection(file, operator)
        if outside is not None:
            found.append(f"Roster: {outside}.")
    except QuireError as error:
        found.append(f"Key: {error}")
    try:
        return look(operator, policy), found
    except QuireError as error:
        return None, [*found, f"Books: {error}"]


def _roster_objection(file: Path, operator: Operator) -> str | None:
    """Say what there is against the pinned roster, or this silo's place in it; None if nothing, or none is pinned."""
    from quire.clients.answering import Refusal
    from quire.clients.data.silo_file import name_in
    from quire.clients.identity import read_key_file
    from quire.clients.policy.books import now
    from quire.clients.policy.membership import not_a_member, roster_of

    try:
        roster = roster_of(operator)
    except Refusal as refusal:
        return refusal.words
    name = name_in(file)
    if roster is None or name is None:  # without a name of its own it takes one from the settings of each run
        return None
    return not_a_member(roster, name, read_key_file(operator.identity).fingerprint, now())


def _explain(console: Console, policy: Policy) -> None:
    from quire.clients.policy.words import lines

    table = _table("what", "this silo accepts", "where it says so")
    for line in lines(policy):
        table.add_row(line.title, line.allows, _place(policy, line.name))
    console.print(table)


def _judge(
    console: Console,
    operator: Operator,
    policy: Policy,
    settings: Settings,
    spent: Spending | None,
    broken: Sequence[str],
) -> bool:
    """Print every check of a run, and return whether the silo would take part."""
    from quire.clients.code import code_hash
    from quire.clients.contract import EVALUATE
    from quire.clients.policy.case import Case, State
    from quire.clients.policy.words import lines_of_run

    state = State(stage=EVALUATE, code=code_hash(), spent=spent, members=_members(operator))
    found = lines_of_run(Case(policy, settings, state))
    table = _table("", "what", "this silo accepts", "this run asks for")
    for line in found:
        sign, style = _sign(line)
        table.add_row(sign, line.title, line.allows, line.asks, style=style)
    console.print(table)
    against = [line.objection for line in found if line.objection and line.name not in _ASIDE]
    for line in found:
        if line.objection:
            console.print(f"{line.title}: {line.objection}.", markup=False, soft_wrap=True)
    _budget(console, policy, spent)
    _warn(console, policy, broken)
    refused = bool(against or broken)
    verdict = "Refused: this silo would not take part." if refused else "Accepted: this silo would take part."
    console.print(verdict, style="bold red" if refused else "bold green")
    return not refused


def _members(operator: Operator) -> int | None:
    """Return how many the pinned roster lists; None where none is pinned, or it cannot be read, which is said apart."""
    from quire.clients.answering import Refusal
    from quire.clients.policy.membership import roster_of

    try:
        roster = roster_of(operator)
    except Refusal:
        return None
    return None if roster is None else len(roster.members)


def _budget(console: Console, policy: Policy, found: Spending | None) -> None:
    if not policy.capped or found is None:
        return
    spent = found.epsilon(policy.delta)
    when = f" in the last {policy.period_days} days" if policy.period_days else ""
    said = f"Budget of '{policy.population.name}' at delta {policy.delta:g}: epsilon {policy.epsilon:g}"
    if math.isinf(spent):
        said += f", and all of it is spent{when}: records were in a run without privacy"
    elif spent >= policy.epsilon:
        said += f", and {spent:.3g} is spent{when}: nothing is left"
    else:
        said += f", of which {spent:.3g} is spent{when} and {policy.epsilon - spent:.3g} is left"
    console.print(f"{said}.", markup=False, soft_wrap=True)


def _sign(line: Line) -> tuple[str, str | None]:
    if line.objection is None:
        return "yes", None
    return ("kept", "yellow") if line.name in _ASIDE else ("no", "bold red")


def _place(policy: Policy, name: str) -> str:
    line = dict(policy.lines).get(name)
    if line is not None:
        return f"line {line}"
    return "default" if hasattr(policy, name) else "always"


def _warn(console: Console, policy: Policy, broken: Sequence[str]) -> None:
    """Say what keeps the silo out of any run, and what its policy leaves to others."""
    from quire.clients.policy.words import cautions

    for words in broken:
        console.print(words, markup=False, soft_wrap=True, style="bold red")
    for words in cautions(policy):
        console.print(words, markup=False, soft_wrap=True, style="yellow")


def _table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(*titles, box=box.SIMPLE, show_edge=False, pad_edge=False)
