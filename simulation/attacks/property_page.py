"""The page of property inference: true and guessed shares of classes, silo by silo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quire.simulation.attacks.page import Figure, Page, Table, as_json, interval
from quire.simulation.attacks.property import Attacked
from quire.simulation.attacks.variants import words
from quire.simulation.drawing import LINES, MUTED, draw, share_axis

_GIVEN = (
    (
        "To the server in every case",
        "The first global model, the settings, the code, the mean number of rows of a silo, and rows of its own of the "
        "same population (those that silos keep for testing), of which it makes up silos to learn from.",
    ),
    ("Plain updates, noisy updates", "Each silo's update of the first round, as it came over the wire."),
    (
        "Secure sum, noisy sum",
        "The mean that the opened sum of all silos came to, as its strategy got it: the same for every silo.",
    ),
)
_NOT = (
    "Noise for records is not meant to hide this. It promises that one record more or less changes little; a silo's "
    "shares are a matter of hundreds of records. privacy=silo and silo_distributed are for whole silos.",
    "That a sum hides everything: it shows the shares of all silos together, and a server that sees many sums with "
    "other silos in each can compare them.",
    "That nobody could do better, in later rounds, with more rounds, or with a larger part of the update.",
)


def page(found: Sequence[Attacked], runs: int, seed: int, shadows: int) -> Page:
    """Return the page."""
    plain = found[0]
    rest = "; ".join(f"{one.variant.title} ({words(one.runs[0].spent)}) {one.error().value:.2f}" for one in found[1:])
    works = plain.error().high < plain.chance().value
    return Page(
        kind="property",
        question="What share of each class does a silo hold?",
        sentence=f"From a plain update the server tells a silo\N{RIGHT SINGLE QUOTATION MARK}s shares of classes to "
        f"within {plain.error().value:.2f}, against {plain.chance().value:.2f} without it",
        verdict=f"The same distance (0: exact, 1: nothing in common) for {rest}.",
        tone="bad" if works else "open",
        given=_GIVEN,
        shows=[_said(one) for one in found],
        not_shown=_NOT,
        runs=[(one.variant.title, f"quire run {one.variant.seeded(seed)}") for one in found],
        tables=[_table(found)],
        figures=[_figure(place, one) for place, one in enumerate(found)],
        kicker=(f"{runs} run{'s' if runs != 1 else ''} of each kind, from seed {seed}", f"{shadows} made-up silos"),
    )


def result(found: Sequence[Attacked], runs: int, seed: int, shadows: int) -> dict[str, Any]:
    """Return what ``result.json`` says."""
    return {
        "runs": runs,
        "seed": seed,
        "shadows": shadows,
        "variants": [
            {
                "variant": one.variant.name,
                "overrides": one.variant.overrides,
                **one.runs[0].spent,
                "distance": as_json(one.error()),
                "distance_by_chance": as_json(one.chance()),
                "top_class": as_json(one.top()),
                "top_class_by_chance": as_json(one.top_chance()),
                "shares": [
                    {
                        silo: {"true": _numbers(truth), "guessed": _numbers(guessed)}
                        for silo, truth, guessed in zip(run.silos, run.truth, run.guessed, strict=True)
                    }
                    for run in one.runs
                ],
            }
            for one in found
        ],
    }


def _numbers(shares: Any) -> list[float]:
    return [round(float(value), 4) for value in shares]


def _said(one: Attacked) -> str:
    error, chance = one.error(), one.chance()
    told = "better than" if error.high < chance.value else "no better than"
    return (
        f"{one.variant.title.capitalize()}: the guesses are {error.value:.2f} from the true shares, {told} the "
        f"population{chr(0x2019)}s shares ({chance.value:.2f})."
    )


def _table(found: Sequence[Attacked]) -> Table:
    rows = [
        [
            one.variant.title,
            words(one.runs[0].spent),
            interval(one.error(), 2),
            interval(one.chance(), 2),
            f"{100 * one.top().value:.0f} %",
            f"{100 * one.top_chance().value:.0f} %",
        ]
        for one in found
    ]
    head = (
        *("What the server has", "By the card", "Distance", "Without the run"),
        *("Largest class named", "Without the run"),
    )
    return Table(
        "How far the guesses are from the truth",
        head,
        rows,
        "Total variation distance of guessed and true shares: half the sum of the differences. With intervals of 95 % "
        "over silos. Beside it, what a server says that sees nothing of the run and knows the population.",
    )


def _figure(place: int, one: Attacked) -> Figure:
    run = one.runs[0]
    many = range(min(6, len(run.silos)))
    svg = draw(
        f"shares{place}",
        420,
        300,
        f"true and guessed shares of classes of {len(many)} silos, {one.variant.title}",
        lambda axes: _bars(axes, run.truth[list(many)], run.guessed[list(many)], [run.silos[index] for index in many]),
    )
    return Figure(
        one.variant.title.capitalize(),
        svg,
        ["guessed"],
        f"Grey: true shares, class by class, of {len(many)} silos of the first run. {words(run.spent).capitalize()}.",
    )


def _bars(axes: Any, truth: Any, guessed: Any, names: Sequence[str]) -> None:
    classes = truth.shape[1]
    width = 1.0 / (classes + 2)
    for silo in range(len(names)):
        at = silo + (np.arange(classes) + 1) * width
        axes.bar(at, truth[silo], width=width * 0.9, color=MUTED, alpha=0.45)
        axes.plot(at, guessed[silo], linestyle="none", marker="_", markersize=6, markeredgewidth=2, color=LINES[0])
    axes.set_xticks([silo + 0.5 for silo in range(len(names))], names)
    axes.set_ylim(0, 1)
    share_axis(axes.yaxis)
