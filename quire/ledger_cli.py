"""``quire ledger``: what a silo has spent, whether its books are sound, and the operator's override."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

if TYPE_CHECKING:
    from datetime import date

    from rich.table import Table

    from quire.clients.policy.model import Operator
    from quire.clients.store.inspection import Books, Inspection

app = typer.Typer(
    name="ledger",
    help="The privacy ledger of a silo: what its records have spent, and whether the books are sound.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Where = Annotated[Path, typer.Argument(metavar="SILO", help="The silo's own file, silo.yaml, or its store.")]
One = Annotated[str | None, typer.Option(help="Only this population.")]
Witness = Annotated[Path | None, typer.Option(help="The witness, where it is not the one that silo.yaml names.")]

#: The delta that epsilon is shown at where no policy names one.
_DELTA = 1e-5


@dataclass(frozen=True)
class _Found:
    """What the argument named."""

    store: Path
    witness: Path | None
    fingerprint: str | None
    operator: Operator | None

    def budget(self, population: str) -> tuple[float, float, int | None] | None:
        """Return epsilon, delta and the days of the period that the operator allows a population."""
        policy = None if self.operator is None else self.operator.policy
        if policy is None or policy.population.name != population or not policy.capped:
            return None
        return policy.epsilon, policy.delta, policy.period_days

    def inspect(self) -> Inspection:
        """Open the store for reading."""
        from quire.clients.store.inspection import Inspection

        return Inspection(self.store, self.witness, self.fingerprint)


@app.command()
def show(
    silo: Where,
    population: One = None,
    delta: Annotated[float | None, typer.Option(help="Show epsilon at this delta; the policy's, or 1e-5.")] = None,
    witness: Witness = None,
) -> None:
    """Show what was spent: by unit against the budget, and run by run.

    \b
    quire ledger show silo.yaml
    quire ledger show store/ --population heart-2020 --delta 1e-6
    """
    from rich.console import Console

    found = _find(silo, witness)
    inspection = found.inspect()
    console = Console(highlight=False)
    chosen = inspection.populations() if population is None else [population]
    if not chosen:
        console.print(f"The store {found.store} has no ledger yet: nothing was charged.", markup=False)
    for name in chosen:
        books = inspection.books(name)
        budget = found.budget(name)
        at = delta if delta is not None else _DELTA if budget is None else budget[1]
        if not 0 < at < 1:
            raise typer.BadParameter("delta has to be above 0 and below 1")
        console.print(f"Population {name}: {books.entries} entries in {found.store}", markup=False)
        console.print(_totals(books, budget, at))
        console.print(_runs(books, at))


@app.command()
def verify(silo: Where, population: One = None, witness: Witness = None) -> None:
    """Verify every signature, the chain, and that every event is booked at what it costs; ends with 1 on damage.

    \b
    quire ledger verify silo.yaml
    """
    found = _find(silo, witness)
    inspection = found.inspect()
    chosen = inspection.populations() if population is None else [population]
    for name in chosen:
        books = inspection.books(name, whole=True)
        typer.echo(f"{name}: {books.entries} entries are sound.")
        for opening in books.openings:
            if opening.because is not None:
                typer.echo(f"  overridden on {opening.day}: {opening.because}")
                typer.echo(f"  found then: {opening.found or 'nothing wrong'}")
    if not chosen:
        typer.echo("The store is sound, and has no ledger yet.")
    signer = inspection.about.public.fingerprint
    whose = "the silo's own key" if found.fingerprint is not None else "named by the store itself: compare it"
    typer.echo(f"Signed by {signer} ({whose}).")
    if inspection.heads.witnessed and found.witness is None:
        typer.echo("The store has a witness, which was not looked at: name it with --witness.")


@app.command()
def reset(
    silo: Annotated[Path, typer.Argument(metavar="SILO", help="The silo's own file, silo.yaml.")],
    population: Annotated[str, typer.Argument(help="The population whose ledger cannot be used.")],
    because: Annotated[str, typer.Option(help="Why; it stays in the ledger for ever.")],
    forget: Annotated[bool, typer.Option("--forget", help="Begin with nothing spent. Think twice.")] = False,
    witness: Witness = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Override a ledger that is damaged, missing or rolled back: begin a new segment, keep the history.

    The new segment begins with the most that any file still shows as spent, unless --forget says otherwise.

    \b
    quire ledger reset silo.yaml heart-2020 --because "disk failed on 3 May, restored the copy of 2 May"
    """
    from quire.clients.store.override import reset as override
    from quire.errors import DataError

    found = _find(silo, witness)
    if found.operator is None:
        raise DataError(f"{silo} is a folder; an override is signed by the silo, so name its silo.yaml.")
    identity = open_identity(found.operator.identity, passphrase_file, passphrase_env)
    done = override(found.store, population, because, identity, witness=found.witness, forget=forget)
    budget = found.budget(population)
    at = _DELTA if budget is None else budget[1]
    typer.echo(f"Found: {done.found or 'nothing wrong'}")
    typer.echo(f"Kept:  {done.kept if done.kept is not None else 'there was no file to keep'}")
    for unit, spending in done.carried.items():
        typer.echo(f"The new segment begins with epsilon {_number(spending.epsilon(at))} per {unit} at delta {at:g}.")
    if not done.carried:
        typer.echo("The new segment begins with nothing spent.")


def _find(silo: Path, witness: Path | None) -> _Found:
    if silo.is_dir():
        return _Found(silo, witness, None, None)
    from quire.clients.data.silo_file import read_operator_of
    from quire.clients.identity import read_key_file

    operator = read_operator_of(silo)
    key = operator.identity
    fingerprint = read_key_file(key).fingerprint if key.exists() else None
    return _Found(operator.store, witness or operator.witness, fingerprint, operator)


def _totals(books: Books, budget: tuple[float, float, int | None] | None, delta: float) -> Table:
    title = f"epsilon at delta {delta:g}"
    since = _since(budget)
    table = _table("unit", "runs", "rounds", title, *(("this period", "budget", "left") if budget else ()))
    for unit in books.units():
        spent = books.spent(unit).epsilon(delta)
        row = [str(unit), str(books.count_runs(unit)), str(books.count_charges(unit)), _number(spent)]
        if budget is not None:
            now = books.spent(unit, since).epsilon(delta)
            row += [_number(now), f"{budget[0]:g}", _number(max(0.0, budget[0] - now))]
        table.add_row(*row)
    return table


def _runs(books: Books, delta: float) -> Table:
    table = _table("run", "begun", "unit", "rounds", "epsilon")
    for (session, unit), (first, rounds, spending) in books.runs.items():
        table.add_row(session, first.isoformat(), str(unit), str(rounds), _number(spending.epsilon(delta)))
    return table


def _since(budget: tuple[float, float, int | None] | None) -> date | None:
    from datetime import UTC, datetime, timedelta

    if budget is None or budget[2] is None:
        return None
    return datetime.now(UTC).date() - timedelta(days=budget[2] - 1)


def _number(epsilon: float) -> str:
    return "unlimited" if math.isinf(epsilon) else f"{epsilon:.4g}"


def _table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(*titles, box=box.SIMPLE, show_edge=False, pad_edge=False)
