"""``quire attack``: attacks on federations of one's own, in simulation, held against every way to run them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quire.simulation.attacks.page import Page

app = typer.Typer(
    name="attack",
    help="Attack a simulated federation of your own: who was in it, what its rows looked like, what a silo holds. Each "
    "attack gets what an observer of the run really sees, and writes a page. docs/attacks.md says what that shows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, as for quire run.")]
Runs = Annotated[int, typer.Option(help="Runs of each kind, each with a seed of its own.")]
Out = Annotated[Path | None, typer.Option(help="The folder for page and result; runs/attacks/KIND-TIME by default.")]


@app.command()
def membership(overrides: Overrides = None, runs: Runs = 8, out: Out = None) -> None:
    """Tell which records were trained on: by a threshold on the loss, and by LiRA with shadow models.

    Runs the federation in clear, under masks, and with noise, and attacks each as a user of the model, as another silo
    and as the server. privacy=MODE chooses the noise; without it there are two kinds, at epsilon 1.

    \b
    quire attack membership
    quire attack membership task=breast_cancer privacy=record privacy.epsilon=2 --runs 16 --out runs/members
    """
    from quire.simulation.attacks import membership as room
    from quire.simulation.attacks import membership_page as pages

    def work(chosen: Any, seed: int, tell: Callable[[str], None]) -> tuple[Page, dict[str, Any]]:
        found = room.attack(chosen, runs, seed, tell)
        return pages.page(found, runs, seed), pages.result(found, runs, seed)

    _attack("membership", overrides, room.DEFAULTS, out, work, lambda: room.check(runs))


@app.command()
def inversion(
    overrides: Overrides = None,
    runs: Runs = 1,
    steps: Annotated[int, typer.Option(help="Steps of the search, 1 to 100,000.")] = 1000,
    tries: Annotated[int, typer.Option(help="Searches from other first guesses, 1 to 100; the best is kept.")] = 2,
    out: Out = None,
) -> None:
    """Get digits back from what the server sees of a round: by division in the first layer, and by search.

    \b
    quire attack inversion
    quire attack inversion partition.silos=5 training.batch_size=4 privacy=record privacy.epsilon=4
    """
    from quire.simulation.attacks import inversion as room
    from quire.simulation.attacks import inversion_page as pages

    search = room.searching(steps, tries)

    def work(chosen: Any, seed: int, tell: Callable[[str], None]) -> tuple[Page, dict[str, Any]]:
        found = room.attack(chosen, runs, seed, search, tell)
        return pages.page(found, runs, seed, search), pages.result(found, runs, seed, search)

    _attack("inversion", overrides, room.DEFAULTS, out, work, lambda: room.check(runs, search))


@app.command("property")
def balance(
    overrides: Overrides = None,
    runs: Runs = 1,
    shadows: Annotated[int, typer.Option(help="Silos that the attacker makes up, 20 to 100,000.")] = 200,
    out: Out = None,
) -> None:
    """Tell what share of each class a silo holds, from what the server sees of the first round.

    \b
    quire attack property
    quire attack property partition.alpha=0.2 privacy=silo privacy.delta=0.01 --shadows 100
    """
    from quire.simulation.attacks import property as room
    from quire.simulation.attacks import property_page as pages

    def work(chosen: Any, seed: int, tell: Callable[[str], None]) -> tuple[Page, dict[str, Any]]:
        found = room.attack(chosen, runs, seed, shadows, tell)
        return pages.page(found, runs, seed, shadows), pages.result(found, runs, seed, shadows)

    _attack("property", overrides, room.DEFAULTS, out, work, lambda: room.check(runs, shadows))


def _attack(
    kind: str,
    overrides: list[str] | None,
    defaults: str,
    out: Path | None,
    work: Callable[[Any, int, Callable[[str], None]], tuple[Page, dict[str, Any]]],
    check: Callable[[], None],
) -> None:
    from rich.console import Console

    from quire.conf.compose import compose
    from quire.simulation.attacks.page import prepare, write
    from quire.simulation.attacks.variants import variants

    check()
    chosen = variants(overrides or [], defaults)
    folder = out or Path("runs") / "attacks" / f"{kind}-{time.strftime('%Y-%m-%d-%H-%M-%S')}"
    prepare(folder)
    console = Console(soft_wrap=False, highlight=False)
    with console.status("Attacking") as status:
        page, result = work(
            chosen, compose(chosen[0].overrides).seed, lambda words: status.update(f"Attacking: {words}")
        )
    shown = write(folder, page, result)
    console.print(page.sentence + ".", markup=False, soft_wrap=True)
    for words in page.shows:
        console.print(f"- {words}", markup=False, soft_wrap=True)
    console.print(f"Page: {shown}", markup=False, soft_wrap=True)
