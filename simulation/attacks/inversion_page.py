"""The page of reconstruction: the digits that were there, and what each attack made of them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quire.privacy.attacks.reconstruction import Search
from quire.simulation.attacks.inversion import ALIKE, IMAGE, Attacked, Pictures
from quire.simulation.attacks.page import Page, Panel, Table, as_json, percents, picture
from quire.simulation.attacks.variants import words

_SHOWN = 8
_GIVEN = (
    (
        "To the server in every case",
        "The first global model, the settings (so the learning rate and how many rows are expected behind what it "
        "sees), the code, and the range of a pixel. No rows, no labels: these it infers from the gradient of the last "
        "layer.",
    ),
    ("Plain updates, noisy updates", "The update of the first silo in the first round, as it came over the wire."),
    (
        "Secure sum, noisy sum",
        "The mean that the opened sum of all silos came to, as its strategy got it. The masked vectors themselves are "
        "uniformly random by themselves, and are not used. What is looked for are the rows of all silos.",
    ),
)
_NOT = (
    "That nobody could do better: there are stronger searches, with priors over pictures, and servers that send models "
    "made to be inverted. Against these, too, only what holds for any attack helps: masks over many rows, and noise.",
    "That a sum is safe. Where a unit of the first layer is moved by a single row, its gradient is that row, however "
    "many rows are in the sum; with few rows, wide layers and one step this happens, and the table counts it.",
    "Recognising is not all that leaks. A guess below the threshold may still tell which class was there.",
    "Small pictures in small batches after one step leak most. Larger pictures, batches and more local steps leak "
    "less.",
)


def page(found: Sequence[Attacked], runs: int, seed: int, search: Search) -> Page:
    """Return the page."""
    plain = found[0].recognised().value
    rest = "; ".join(
        f"{one.variant.title} ({words(one.runs[0].spent)}) {_hits(one)} of {_rows(one)}" for one in found[1:]
    )
    return Page(
        kind="inversion",
        question="Which pictures did a silo train on?",
        sentence=f"From one plain update the server gets back {100 * plain:.0f} % of the digits behind it",
        verdict=f"The same attack on {rest}.",
        tone="bad" if plain >= 0.5 else "level",
        given=_GIVEN,
        shows=[_said(one) for one in found],
        not_shown=_NOT,
        runs=[(one.variant.title, f"quire run {one.variant.seeded(seed)}") for one in found],
        tables=[_table(found)],
        panels=[_panel(one) for one in found] + [_chance(found[0].runs[0])],
        panels_note=f"The first run of each kind. Alike is the correlation of pixels; from {ALIKE:g} on a digit counts "
        "as recognised, whatever the run. Where more than eight rows are behind what was seen, the eight "
        "that the attack came closest to are shown.",
        kicker=(
            f"{runs} run{'s' if runs != 1 else ''} of each kind, from seed {seed}",
            f"search: {search.steps} steps, best of {search.tries}",
        ),
    )


def result(found: Sequence[Attacked], runs: int, seed: int, search: Search) -> dict[str, Any]:
    """Return what ``result.json`` says."""
    return {
        "runs": runs,
        "seed": seed,
        "alike": ALIKE,
        "steps": search.steps,
        "tries": search.tries,
        "variants": [
            {
                "variant": one.variant.name,
                "overrides": one.variant.overrides,
                **one.runs[0].spent,
                "rows": _rows(one),
                "recognised": as_json(one.recognised()),
                "by_division": as_json(one.recognised("by_division")),
                "by_search": as_json(one.recognised("by_search")),
                "by_chance": as_json(one.chance()),
                "p_by_chance": one.luck(),
                "mean_similarity": one.mean()[0],
                "mean_similarity_by_chance": one.mean()[1],
                "similarity": [[round(float(value), 4) for value in run.similarity] for run in one.runs],
            }
            for one in found
        ],
    }


def _hits(one: Attacked) -> int:
    return int(sum((run.similarity >= ALIKE).sum() for run in one.runs))


def _rows(one: Attacked) -> int:
    return sum(len(run.similarity) for run in one.runs)


def _said(one: Attacked) -> str:
    likely = one.luck()
    beyond = "no more than digits of other people would give" if likely >= 0.05 else "more than chance gives"
    return f"{one.variant.title.capitalize()}: {_hits(one)} of {_rows(one)} rows are recognised, {beyond}."


def _table(found: Sequence[Attacked]) -> Table:
    rows = []
    for one in found:
        mean, chance = one.mean()
        rows.append(
            [
                one.variant.title,
                words(one.runs[0].spent),
                f"{_hits(one)} of {_rows(one)}",
                f"{100 * one.recognised('by_division').value:.1f} %",
                f"{100 * one.recognised('by_search').value:.1f} %",
                percents(one.recognised()),
                f"{100 * one.chance().value:.2f} %",
                f"{one.luck():.2g}",
                f"{mean:.2f} / {chance:.2f}",
            ]
        )
    head = (
        *("What the server has", "By the card", "Recognised", "Division", "Search", "Either", "Chance"),
        *("p", "Mean, attack / chance"),
    )
    return Table(
        "How many digits were recognised",
        head,
        rows,
        "Guesses are given to true rows one to one so that they are most alike in all, the kindest reading. Chance is "
        "the same with as many random digits of other people as guesses. p is the probability of as many hits or more "
        "by chance. Chance is often more alike in the mean: it offers real digits, a failed search offers blurs.",
    )


def _panel(one: Attacked) -> Panel:
    run = one.runs[0]
    best = np.argsort(-run.similarity, kind="stable")[:_SHOWN]
    order = np.sort(best) if len(run.truth) <= _SHOWN else best
    hits = int((run.similarity >= ALIKE).sum())
    note = f"{words(run.spent)}; {hits} of {len(run.truth)} recognised in this run"
    pairs = [_pair(run.truth[place], run.found[place], float(run.similarity[place])) for place in order]
    return Panel(one.variant.title.capitalize(), note, pairs, "bad" if hits else "good")


def _chance(run: Pictures) -> Panel:
    pairs = [
        _pair(run.truth[place], run.beside[place], float(run.chance[0][place]))
        for place in range(min(_SHOWN, len(run.truth)))
    ]
    return Panel("No update at all", "as many digits of other people, given to the rows in the same way", pairs)


def _pair(truth: Any, found: Any, similarity: float) -> dict[str, Any]:
    return {
        "truth": picture(truth, IMAGE),
        "found": picture(found, IMAGE),
        "similarity": f"{similarity:.2f}",
        "recognised": similarity >= ALIKE,
    }
