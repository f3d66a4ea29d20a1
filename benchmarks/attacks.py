"""Attacks of our own on simulated federations: who was in training, what the rows were, what a silo holds.

Every figure is of `digits` and takes what an observer of the run sees (docs/attacks.md); epsilon is that of the runs'
own cards. *Membership*: a multi-layer perceptron that learns 45 rows at each of four silos by heart (seeds 1 to 8, each
run a target once, with the others as its shadows), the same with noise for records at epsilon 1, and, since that learns
next to nothing, a private model that does learn (seeds 1 to 5; its secure sums by the short cut, which gives the same
model). Of three attacks by three observers the highest figure counts. *Reconstruction*: one step on 8 digits at each of
ten silos (seeds 101 to 105), a search of 1,000 steps. A digit is recognised from a correlation of 0.98 on; chance is
the same with random digits of other people as guesses, and p the probability of as many hits or more by chance.
*Property*: shares of ten classes at ten silos that differ (seeds 201 and 202), as a distance from 0 (exact) to 1.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import harness
from harness import Figure

if TYPE_CHECKING:
    from quire.privacy.attacks.roc import Rate
    from quire.simulation.attacks.membership import Attacked

ALWAYS = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
#: A private model that learns: more rows, a smaller model, more rounds, and a clip and rate that suit noise.
LEARNS = (
    "task=digits task.model=logistic data.test_fraction=0.3 partition=iid partition.silos=4 strategy.rounds=30 "
    "training.lr=1 privacy=record_distributed privacy.epsilon=1 privacy.sampling_rate=0.3 privacy.clip=0.5 "
    "aggregation=secure aggregation.simulate=exact_sum"
)


def membership(quick: bool) -> list[Figure]:
    """Ask which records were in training."""
    from quire.simulation.attacks import membership as room
    from quire.simulation.attacks.variants import variants

    runs = 4 if quick else 8
    chosen = [one for one in variants([], room.DEFAULTS) if not quick or one.name in ("plain", "record")]
    figures = []
    for one in room.attack(chosen, runs, 1):
        if not one.variant.private:
            figures += _success(one)
        else:
            figures += _hidden(one, f"epsilon 1, {one.variant.title}")
    return figures


def learning(quick: bool) -> list[Figure]:
    """Ask the same of a private model that learns; not in the short form."""
    from quire.simulation.attacks import membership as room
    from quire.simulation.attacks.variants import Variant

    if quick:
        return []
    learns = Variant("record_distributed", f"{LEARNS} strategy.fraction_evaluate=0", "the noisy sum")
    (one,) = room.attack([learns], 5, 1)
    return _hidden(one, "epsilon 1, the noisy sum, a model that learns")


def _success(one: Attacked) -> list[Figure]:
    figures = []
    for observer in ("user", "server"):
        best = one.best(observer)
        goal = ">= 0.65" if (one.variant.name, observer) == ("plain", "user") else None
        who = f"membership, {one.variant.title}, as the {observer}"
        note = (
            f"{best.attack}, [{best.auc.low:.3f}, {best.auc.high:.3f}]; right on {100 * one.train_accuracy:.1f} % of "
            f"the members and {100 * one.test_accuracy:.1f} % of the others"
        )
        figures.append(Figure(f"{who}: AUC", best.auc.value, goal, note))
        figures.append(Figure(f"{who}: TPR at 1 % FPR", best.at_1_percent.value, None, _rate(best.at_1_percent)))
        figures.append(Figure(f"{who}: TPR at 0.1 % FPR", best.at_01_percent.value, None, _rate(best.at_01_percent)))
    return figures


def _hidden(one: Attacked, words: str) -> list[Figure]:
    accuracy = max(one.findings, key=lambda finding: finding.accuracy.value)
    found = max(one.findings, key=lambda finding: finding.at_1_percent.value)
    about = f"right on {100 * one.test_accuracy:.1f} % of the others; card: epsilon {one.spent['epsilon']:.3g}"
    return [
        Figure(
            f"membership, {words}: highest accuracy",
            accuracy.accuracy.value,
            "< 0.52",
            f"{accuracy.attack}, {accuracy.observer}, {_rate(accuracy.accuracy)}; {about}",
        ),
        Figure(
            f"membership, {words}: highest TPR at 1 % FPR",
            found.at_1_percent.value,
            "< 0.02",
            f"{found.attack}, {found.observer}, {_rate(found.at_1_percent)}",
        ),
        Figure(f"membership, {words}: highest AUC", one.best().auc.value, None, _rate(one.best().auc)),
    ]


def inversion(quick: bool) -> list[Figure]:
    """Ask for the rows themselves."""
    from quire.privacy.attacks.reconstruction import Search
    from quire.simulation.attacks import inversion as room
    from quire.simulation.attacks.variants import variants

    runs, search = (1, Search(steps=250, tries=1)) if quick else (5, Search(steps=1000, tries=1))
    figures = []
    for one in room.attack(variants([], room.DEFAULTS), runs, 101, search):
        found, chance = one.recognised(), one.chance()
        rows = sum(len(run.similarity) for run in one.runs)
        note = f"of {rows} rows, {_rate(found)}; chance {100 * chance.value:.2f} %"
        goal = ">= 0.5" if one.variant.name == "plain" else None
        figures.append(Figure(f"reconstruction, {one.variant.title}: share recognised", found.value, goal, note))
        if one.variant.name != "plain":
            by = f"division {_share(one.recognised('by_division'))}, search {_share(one.recognised('by_search'))}"
            figures.append(Figure(f"reconstruction, {one.variant.title}: p by chance", one.luck(), ">= 0.05", by))
    return figures


def balance(quick: bool) -> list[Figure]:
    """Ask for the shares of classes."""
    from quire.simulation.attacks import property as room
    from quire.simulation.attacks.variants import variants

    runs, shadows = (1, 40) if quick else (2, 200)
    chosen = [one for one in variants([], room.DEFAULTS) if not quick or one.name != "record"]
    figures = []
    for one in room.attack(chosen, runs, 201, shadows):
        note = f"{_rate(one.error(), 1)}; without the run {one.chance().value:.3f}"
        figures.append(Figure(f"property, {one.variant.title}: distance of shares", one.error().value, None, note))
    return figures


def _rate(rate: Rate, scale: float = 100.0) -> str:
    unit = " %" if scale == 100 else ""
    return f"[{scale * rate.low:.3g}, {scale * rate.high:.3g}]{unit}"


def _share(rate: Rate) -> str:
    return f"{100 * rate.value:.2f} %"


PARTS = {"membership": membership, "learning": learning, "inversion": inversion, "property": balance}


def main() -> int:
    """Run the benchmark."""
    parser = harness.parser(__doc__)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this")
    args = parser.parse_args()
    os.environ.update(ALWAYS)
    figures = [figure for part in args.part or PARTS for figure in PARTS[part](args.quick)]
    return harness.report(figures, args, "Attacks of our own")


if __name__ == "__main__":
    sys.exit(main())
