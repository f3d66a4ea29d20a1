"""Poisoning: every attack against every rule, and who is quarantined.

``task=digits`` (logistic regression), rows dealt out at random, ``runtime=batched``, by the same apps as any run. The
table: 30 silos of which 9 collude, and 10 of which 3 do; Bulyan, which takes no more, with 6 and with 1. Its figures
are points of accuracy on all test rows that are lost to the unattacked plain mean of the same seed, the mean over
seeds. The best rule is chosen with hindsight, for each attack by itself. A run that fails counts as 0 % accurate.

Quarantine is ``suspicion=quarantine`` with its defaults beside the plain mean. Its rule was chosen on seeds 1 to 6: on
4 to 6 it first kept 0.8 % of honest silo-rounds out, and the least deviation of a size was raised from 0.1 to 0.2. The
figures are from seeds 101 to 103, at which nobody had looked. A silo-round is one silo's answer in one round; an
attacker's is caught if it did not enter the mean, an honest silo's is a false positive if it did not. NaN is refused as
an answer, which counts as caught. Intervals are Clopper and Pearson's at 95 %, as if silo-rounds were independent;
those of one run are not. ROC curves are those of the score z in single rounds, nobody left out, on the same seeds.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import harness
import numpy as np
import poisoning_roc
from harness import Figure

COMMON = (
    "task=digits runtime=batched strategy.fraction_evaluate=0 strategy.min_silos=1 output.baselines=false "
    "output.report=false"
)
ATTACKS = {
    "sign flip": "attack=sign_flip",
    "sign flip x 10": "attack=sign_flip attack.scale=10",
    "scaling x 100": "attack=scaling",
    "label flip": "attack=label_flip",
    "backdoor": "attack=backdoor attack.boost=3",
    "ALIE": "attack=alie",
    "inner product, 0.5": "attack=inner_product",
    "inner product, 5": "attack=inner_product attack.epsilon=5",
    "min-max": "attack=min_max",
    "min-max, unit": "attack=min_max attack.direction=unit",
    "free rider": "attack=free_rider",
    "NaN": "attack=not_finite",
    "giant": "attack=giant",
}
#: What they send has no bound, or is as far off as it goes.
UNBOUNDED = ("sign flip x 10", "scaling x 100", "inner product, 5", "NaN", "giant")
RULES = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centered_clipping", "norm_bound")
WITH_F = ("trimmed_mean", "krum", "multi_krum", "bulyan")
SIZES = {30: (9, 6), 10: (3, 1)}
SLACK = 5.0


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    sizes: tuple[int, ...] = (30, 10)
    rounds: int = 10
    seeds: tuple[int, ...] = (1,)
    rules: tuple[str, ...] = RULES
    attacks: tuple[str, ...] = tuple(ATTACKS)
    quarantine_seeds: tuple[int, ...] = (101, 102, 103)
    quarantine_rounds: int = 30


QUICK = Plan((10,), 4, (1,), ("median", "multi_krum"), ("scaling x 100", "ALIE", "giant"), (1,), 8)


@dataclass(frozen=True)
class Run:
    """What one run left."""

    accuracy: float
    success: float | None
    failed: bool
    rounds: tuple[dict[str, Any], ...]
    colluders: tuple[str, ...]


def run(overrides: str) -> Run:
    """Run once, in this process, and score the model that is left."""
    from quire.conf.compose import compose
    from quire.errors import RunFailed
    from quire.simulation.baselines import compare
    from quire.simulation.inline import run_inline
    from quire.simulation.poisoning.outcome import write_outcome

    partition = "" if "partition=" in overrides else "partition=iid"
    settings, failed = compose(f"{COMMON} {partition} {overrides}"), False
    with tempfile.TemporaryDirectory() as scratch, np.errstate(all="ignore"):
        folder = Path(scratch) / "run"
        try:
            run_inline(settings, folder)
        except RunFailed:
            failed = True
        accuracy = float(compare(settings, folder)["everyone"]["federated"]["accuracy"]) if not failed else 0.0
        outcome = (write_outcome(settings, folder) or {}) if not failed else {}
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    held = about["held_to"].get("attack", {})
    rounds = tuple(line for line in lines if line["event"] == "round")
    return Run(100 * accuracy, outcome.get("success"), failed, rounds, tuple(held.get("colluders", ())))


@cache
def unattacked(silos: int, rounds: int, seed: int) -> float:
    """Return the accuracy of the plain mean without an attack, percent."""
    return run(f"partition.silos={silos} strategy.rounds={rounds} seed={seed}").accuracy


def lost(plan: Plan, silos: int, f: int, attack: str, rule: str) -> tuple[float, list[Run]]:
    """Return the points lost under an attack by f silos, the mean over seeds, and the runs."""
    chosen = f"aggregation={rule}" + (f" aggregation.byzantine={f}" if rule in WITH_F else "")
    runs = [
        run(
            f"partition.silos={silos} strategy.rounds={plan.rounds} seed={seed} {ATTACKS[attack]} "
            f"attack.fraction={f / silos:g} {chosen}"
        )
        for seed in plan.seeds
    ]
    bases = [unattacked(silos, plan.rounds, seed) for seed in plan.seeds]
    return statistics.fmean(base - one.accuracy for base, one in zip(bases, runs, strict=True)), runs


def table(plan: Plan, silos: int) -> list[Figure]:
    """Hold every attack against every rule."""
    f, bulyan_f = SIZES[silos]
    found, plain_lost, bulyan_lost = [], {}, {}
    how = f"{plan.rounds} rounds, seeds {', '.join(map(str, plan.seeds))}"
    for attack in plan.attacks:
        losses, plainly = {}, lost(plan, silos, f, attack, "plain")
        plain_lost[attack] = plainly[0]
        fails = ", run failed" if any(one.failed for one in plainly[1]) else ""
        rates = {"plain": plainly[1]}
        for rule in plan.rules:
            losses[rule], rates[rule] = lost(plan, silos, f, attack, rule)
        bulyan_lost[attack], rates["bulyan"] = lost(plan, silos, bulyan_f, attack, "bulyan")
        best = min(losses, key=lambda rule: losses[rule])
        others = ", ".join(f"{rule} {loss:.1f}" for rule, loss in losses.items())
        name = f"n={silos}, f={f}, {attack}: points lost by the best rule"
        note = (
            f"best: {best}; plain mean {plain_lost[attack]:.1f}{fails}; {others}; bulyan (f={bulyan_f}) "
            f"{bulyan_lost[attack]:.1f}; {how}"
        )
        found.append(Figure(name, losses[best], f"<= {SLACK:g}", note))
        if (success := _success(rates["plain"])) is not None:
            every = {rule: _success(runs) for rule, runs in rates.items()}
            note = "; ".join(f"{rule} {100 * rate:.1f}" for rule, rate in every.items() if rate is not None)
            found.append(Figure(f"n={silos}, f={f}, {attack}: attack success, percent", 100 * success, None, note))
    worst = max(bulyan_lost, key=lambda attack: bulyan_lost[attack])
    bases = ", ".join(f"{unattacked(silos, plan.rounds, seed):.1f}" for seed in plan.seeds)
    failing = [attack for attack, points in plain_lost.items() if points > SLACK]
    return [
        *found,
        Figure(
            f"n={silos}, f={bulyan_f}, Bulyan: points lost under its worst attack",
            bulyan_lost[worst],
            f"<= {SLACK:g}",
            f"{worst}; {how}",
        ),
        Figure(
            f"n={silos}, f={f}: attacks under which the plain mean loses more than {SLACK:g} points",
            float(len(failing)),
            None,
            f"of {len(plain_lost)}: {', '.join(failing) or 'none'}; unattacked accuracy {bases} %",
        ),
    ]


def _success(runs: Sequence[Run]) -> float | None:
    rates = [one.success for one in runs if one.success is not None]
    return statistics.fmean(rates) if rates else None


@dataclass
class Counted:
    """Silo-rounds of attackers and of honest silos, and how many of each were kept out of the mean."""

    attackers: int = 0
    caught: int = 0
    honest: int = 0
    wronged: int = 0
    silos: list[bool] = field(default_factory=list)  # of each attacker: whether it was ever kept out

    def add(self, one: Run) -> None:
        """Count a run."""
        ever = dict.fromkeys(one.colluders, False)
        for line in one.rounds:
            refused = {failure["silo"] for failure in line["failed"] if failure["stage"] == "train"}
            told = line.get("suspicion", {})
            for silo in line["cohort"]:
                out = silo in refused or not told.get(silo, {"in_mean": True})["in_mean"]
                if silo in ever:
                    self.attackers, self.caught, ever[silo] = self.attackers + 1, self.caught + out, ever[silo] or out
                else:
                    self.honest, self.wronged = self.honest + 1, self.wronged + out
        self.silos += list(ever.values())

    def take(self, other: Counted) -> None:
        """Count what another one has counted."""
        for name in ("attackers", "caught", "honest", "wronged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.silos += other.silos


def interval(hits: int, of: int) -> str:
    """Return Clopper and Pearson's interval at 95 %, in percent."""
    from scipy.stats import beta

    low = beta.ppf(0.025, hits, of - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, of - hits) if hits < of else 1.0
    return f"{hits} of {of}, 95 % interval {100 * low:.3f} to {100 * high:.3f}"


def watched(plan: Plan, silos: int, attack: str | None, more: str = "") -> Counted:
    """Run an attack with quarantine, once for each seed; one that hides among the honest with the first seed only."""
    seeds = plan.quarantine_seeds if attack is None or attack in UNBOUNDED else plan.quarantine_seeds[:1]
    counted, f = Counted(), SIZES[silos][0]
    asked = f"{ATTACKS[attack]} attack.fraction={f / silos:g}" if attack else ""
    for seed in seeds:
        counted.add(
            run(
                f"partition.silos={silos} strategy.rounds={plan.quarantine_rounds} seed={seed} suspicion=quarantine "
                f"{asked} {more}"
            )
        )
    return counted


def quarantine(plan: Plan) -> list[Figure]:
    """Count who is kept out of the mean."""
    found, total = [], Counted()
    bounded = []
    chosen = [name for name in (*UNBOUNDED, *ATTACKS) if name in plan.attacks]
    for attack in dict.fromkeys(chosen):
        sum_of = Counted()
        for silos in plan.sizes:
            sum_of.take(watched(plan, silos, attack))
        if attack in UNBOUNDED:
            total.take(sum_of)
            continue
        bounded.append(
            Figure(
                f"quarantine, {attack}: attackers' silo-rounds kept out of the mean, percent",
                100 * sum_of.caught / sum_of.attackers,
                None,
                f"{interval(sum_of.caught, sum_of.attackers)}; {sum(sum_of.silos)} of {len(sum_of.silos)} attackers "
                f"at least once; of honest silo-rounds {interval(sum_of.wronged, sum_of.honest)}; seed "
                f"{plan.quarantine_seeds[0]}",
            )
        )
    clean = Counted()
    for silos in plan.sizes:
        clean.take(watched(plan, silos, None))
    honest, wronged = total.honest + clean.honest, total.wronged + clean.wronged
    how = f"{plan.quarantine_rounds} rounds, seeds {', '.join(map(str, plan.quarantine_seeds))}, n = {plan.sizes}"
    found += [
        Figure(
            "quarantine, unbounded attackers: silo-rounds kept out of the mean, percent",
            100 * total.caught / total.attackers,
            ">= 99.5",
            f"{interval(total.caught, total.attackers)}; {sum(total.silos)} of {len(total.silos)} attackers at least "
            f"once; {', '.join(name for name in UNBOUNDED if name in plan.attacks)}; {how}",
        ),
        Figure(
            "quarantine: honest silo-rounds kept out of the mean, percent",
            100 * wronged / honest,
            "<= 0.1",
            f"{interval(wronged, honest)}; beside unbounded attackers, and without any",
        ),
        Figure(
            "quarantine: silo-rounds of these two figures",
            float(honest + total.attackers),
            ">= 20000" if plan is not QUICK else None,
            how,
        ),
        *bounded,
    ]
    for alpha in (1.0, 0.1):
        unlike = watched(plan, plan.sizes[-1], None, f"partition=dirichlet partition.alpha={alpha:g}")
        found.append(
            Figure(
                f"quarantine, silos that are unlike (dirichlet, alpha {alpha:g}): honest silo-rounds kept out, percent",
                100 * unlike.wronged / unlike.honest,
                None,
                f"{interval(unlike.wronged, unlike.honest)}; no attack; n = {plan.sizes[-1]}",
            )
        )
    return found


def roc(plan: Plan) -> tuple[list[Figure], dict[str, tuple[list[float], list[float]]]]:
    """Rank the silo-rounds of attackers and honest silos by their score; return the figures, and the curves."""
    from sklearn.metrics import roc_auc_score, roc_curve

    silos, found, curves = plan.sizes[0], [], {}
    f = SIZES[silos][0]
    for attack in plan.attacks:
        if attack == "NaN":  # never scored
            continue
        scores, labels = [], []
        for seed in plan.quarantine_seeds:
            one = run(
                f"partition.silos={silos} strategy.rounds={plan.rounds} seed={seed} suspicion=watch {ATTACKS[attack]} "
                f"attack.fraction={f / silos:g} aggregation=median"
            )
            for line in one.rounds:
                for silo, told in line["suspicion"].items():
                    scores.append(max(told["size_z"], told["direction_z"]))
                    labels.append(silo in one.colluders)
        off, on, _ = roc_curve(labels, scores)
        curves[attack] = (off.tolist(), on.tolist())
        at = {limit: 100 * float(on[off <= limit].max()) for limit in (0.001, 0.01, 0.1)}
        found.append(
            Figure(
                f"ROC, {attack}: area under the curve of single rounds",
                float(roc_auc_score(labels, scores)),
                None,
                f"caught {at[0.001]:.1f} % at 0.1 % false positives, {at[0.01]:.1f} % at 1 %, {at[0.1]:.1f} % at 10 %; "
                f"n={silos}, f={f}, aggregation=median, {len(labels)} silo-rounds",
            )
        )
    return found, curves


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    logging.getLogger("quire").setLevel(logging.CRITICAL)
    plan = QUICK if args.quick else Plan()
    figures = [figure for silos in plan.sizes for figure in table(plan, silos)]
    ranked, curves = roc(plan)
    figures += [*quarantine(plan), *ranked]
    if args.json is not None:
        title = f"Scores of single rounds, n={plan.sizes[0]}, f={SIZES[plan.sizes[0]][0]}, aggregation=median"
        poisoning_roc.draw(curves, title, args.json.with_suffix(".svg"))
    return harness.report(figures, args, "Poisoning: attacks, robust rules, quarantine")


if __name__ == "__main__":
    sys.exit(main())
