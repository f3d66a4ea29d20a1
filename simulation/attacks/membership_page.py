"""The page of membership inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.simulation.attacks.membership import Attacked, Finding
from quire.simulation.attacks.page import Figure, Page, Table, as_json, interval, percents
from quire.simulation.attacks.variants import words
from quire.simulation.drawing import LINES, MUTED, draw

_SEES = {"user": "the user of the model", "silo": "another silo", "server": "the server"}
_GIVEN = (
    (
        "To all of them",
        "The settings, the code, and all records of the data set: which of them were in training is what is asked. "
        "Each attacker runs the federation itself on other random halves of the same records, as often as there are "
        "runs here less one, and compares (shadow models).",
    ),
    ("User of the model", "The final model, and nothing else of the run."),
    ("Another silo", "The global model of every round."),
    (
        "Server, plain updates or noisy updates",
        "Every silo's update of every round, as it came over the wire: so each silo's own model, and which silo a "
        "record would be of.",
    ),
    (
        "Server, secure sum or noisy sum",
        "The model of every round, and the mean that the opened sum of all updates came to, as its strategy got it. No "
        "update of a single silo reached it.",
    ),
)
_NOT = (
    "That nobody could do better. These are attacks from the literature that look at a record's loss; a stronger one "
    "may come, and what epsilon promises holds against that one too.",
    "A failed attack is no proof of privacy. Few noisy steps on few rows may teach the model little; its accuracy is "
    "in the table, for what was not learned cannot leak.",
    "The intervals take all questions for independent. Targets share records and shadows, so they are somewhat too "
    "narrow.",
    "Other data. These rows are public, and the attacker knows all of them; most real attackers know less.",
)


def page(found: Sequence[Attacked], runs: int, seed: int) -> Page:
    """Return the page."""
    plain, private = found[0], [one for one in found if one.variant.private]
    best = plain.best()
    rest = [f"{one.variant.title} ({words(one.spent)}) {one.best().auc.value:.2f}" for one in found[1:]]
    works = best.auc.low > 0.5
    hidden = all(one.best().accuracy.low <= 0.5 for one in private) and bool(private)
    verdict = f"The same attack elsewhere: {'; '.join(rest)}. 0.5 is a coin."
    return Page(
        kind="membership",
        question="Was this record among those that the federation was trained on?",
        sentence=f"From {plain.variant.title} {_SEES[best.observer]} tells members from others with an AUC of "
        f"{best.auc.value:.2f}",
        verdict=verdict,
        tone="bad" if works and not hidden else "level" if works else "open",
        given=_GIVEN,
        shows=_shows(found),
        not_shown=_NOT,
        runs=[(one.variant.title, f"quire run {one.variant.seeded(seed)}") for one in found],
        tables=[_models(found, runs), _best(found), *[_all(one) for one in found]],
        figures=_figures(found),
        kicker=(f"{runs} runs of each kind, seeds {seed} to {seed + runs - 1}",),
    )


def result(found: Sequence[Attacked], runs: int, seed: int) -> dict[str, Any]:
    """Return what ``result.json`` says."""
    return {
        "runs": runs,
        "seed": seed,
        "variants": [
            {
                "variant": one.variant.name,
                "overrides": one.variant.overrides,
                "members": one.members,
                "others": one.others,
                "train_accuracy": one.train_accuracy,
                "test_accuracy": one.test_accuracy,
                **one.spent,
                "findings": [_finding(finding) for finding in one.findings],
            }
            for one in found
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "observer": finding.observer,
        "attack": finding.attack,
        "auc": as_json(finding.auc),
        "tpr_at_1_percent_fpr": as_json(finding.at_1_percent),
        "tpr_at_0.1_percent_fpr": as_json(finding.at_01_percent),
        "balanced_accuracy": as_json(finding.accuracy),
    }


def _shows(found: Sequence[Attacked]) -> list[str]:
    said = []
    for one in found:
        best = one.best()
        said.append(
            f"{one.variant.title.capitalize()} ({words(one.spent)}): the best of these attacks is {best.attack} by "
            f"{_SEES[best.observer]}: it calls {100 * best.accuracy.value:.1f} % rightly (50 % is a coin), and finds "
            f"{100 * best.at_1_percent.value:.1f} % of the members at 1 % false alarms."
        )
    return said


_HEAD = ("Observer", "Attack", "AUC", "TPR at 1 % FPR", "TPR at 0.1 % FPR", "Balanced accuracy")


def _cells(finding: Finding) -> list[str]:
    rates = (finding.at_1_percent, finding.at_01_percent, finding.accuracy)
    return [finding.attack, interval(finding.auc), *map(percents, rates)]


def _models(found: Sequence[Attacked], runs: int) -> Table:
    rows = [
        [
            one.variant.title,
            words(one.spent),
            f"{100 * one.train_accuracy:.1f} %",
            f"{100 * one.test_accuracy:.1f} %",
            f"{one.members:,}",
            f"{one.others:,}",
        ]
        for one in found
    ]
    head = ("What the server has", "By the card", "Right on members", "Right on others", "Members", "Others")
    return Table(
        "The models that were attacked", head, rows, f"Over {runs} runs; epsilon is that of the runs' own cards."
    )


def _best(found: Sequence[Attacked]) -> Table:
    rows = [
        [f"{one.variant.title}: {_SEES[observer]}", *_cells(one.best(observer))]
        for one in found
        for observer in ("server", "silo", "user")
    ]
    return Table(
        "The best attack of each observer",
        _HEAD,
        rows,
        "With intervals of 95 %. Balanced accuracy is at the threshold that was best on the other runs, which an "
        "attacker can find for itself. The best of three attacks is shown, which flatters them a little where there is "
        "nothing.",
    )


def _all(one: Attacked) -> Table:
    rows = [[_SEES[finding.observer], *_cells(finding)] for finding in one.findings]
    return Table(f"All attacks: {one.variant.title}", _HEAD, rows)


def _figures(found: Sequence[Attacked]) -> list[Figure]:
    figures = []
    for place, observer in enumerate(("server", "user")):
        chosen = [(one.variant.title, one.best(observer)) for one in found]
        label = "; ".join(f"{title}: AUC {finding.auc.value:.2f}" for title, finding in chosen)
        svg = draw(f"roc{place}", 420, 340, label, lambda axes, chosen=chosen: _roc(axes, chosen))  # type: ignore[misc]
        figures.append(
            Figure(
                f"ROC of {_SEES[observer]}",
                svg,
                [f"{title}, {finding.attack}" for title, finding in chosen],
                "Both axes are logarithmic: what counts is on the left. Grey: a coin.",
            )
        )
    return figures


def _roc(axes: Any, chosen: Sequence[tuple[str, Finding]]) -> None:
    from matplotlib.ticker import NullLocator

    axes.plot([1e-4, 1], [1e-4, 1], color=MUTED, linewidth=1.0, linestyle="--")
    for color, (_, finding) in zip(LINES, chosen, strict=False):
        kept = finding.fpr > 0
        axes.plot(finding.fpr[kept], finding.tpr[kept].clip(min=1e-4), color=color, linewidth=1.8)
    axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
