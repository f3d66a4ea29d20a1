"""Groups of silos under secure aggregation: what they cost, and what they hold against.

Silos are dealt into G groups; each is summed under masks by itself, and the groups' means are combined coordinate by
coordinate (``aggregation.groups``, ``aggregation.combine``). One sum is ``aggregation=secure`` without groups.
``task=digits`` (logistic regression), 10 rounds; accuracy is that of the final model on the test rows of all silos, and
points lost are means over seeds 1 to 3, to the unattacked run of one sum with the same seed. Runs in which accuracy
alone counts take ``aggregation.simulate=exact_sum``: the same model bit for bit, in less time; a figure below checks
that. ``iid`` deals rows out at random, ``dirichlet`` unlike from silo to silo (alpha 0.3).

Without an attack the settings are the defaults. Under attack both contenders are set with care, so that one sum has its
alarm at its best: ``aggregation.norm_bound=4`` (the first updates of honest silos are about 3.5 long, later ones about
0.8) and ``aggregation.max_rows=100`` (under iid, honest silos have 48 or 68). It is iid where nothing else is said. The
cheating silos are the first f, and so in f different groups. They cheat before anything is masked:

- sign flip: the own update times -10, which the silo's own app then cuts to the norm bound, with its own rows;
- alarm's limit: the same direction, as long as the alarm lets the whole sum be, with all the rows that it lets count;
- step reversed: the last step of the global model, turned round, with the most rows that a silo counts;
- label flip: trained on labels 9 - y, with the most rows;
- giant: an eighth of the ring in each coordinate, in two rounds of three (in every round it ends a run of one sum);
- silent: no answer, so that no sum of three silos opens (one sum goes on without them);
- no care taken: sign flip times 100 with the most rows, against ``norm_bound`` and ``max_rows`` as they are by default.

Beside them stands the median over all silos' updates in clear (``aggregation=median``), which the server then sees: its
f colluders are drawn at random and send what comes closest. A run that fails counts as 0 % accurate. With G = 2 f + 1,
and no group lost, the trimmed mean *is* the median and is not run a second time.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import groups_cost
import harness
from harness import Figure
from secure_cheats import Cheat, cheating

COMMON = (
    "task=digits strategy.fraction_evaluate=0 output.baselines=false output.report=false output.progress=none "
    "partition={partition} partition.silos={silos} strategy.rounds={rounds} seed={seed} "
)
SECURE = "aggregation=secure aggregation.simulate=exact_sum"
CLEAR = "runtime=batched aggregation=median"
CAREFUL = "aggregation.norm_bound=4 aggregation.max_rows=100"
SLACK, COST = 5.0, 2.0


@dataclass(frozen=True)
class Attack:
    """One way to cheat.

    Attributes
    ----------
    cheat : Cheat
    clear : str
        What comes closest to it where updates are sent in clear.
    settings : str
        Of the secure contenders.
    """

    cheat: Cheat
    clear: str
    settings: str = CAREFUL


ATTACKS = {
    "sign flip": Attack(Cheat(factor=-10.0), "attack=sign_flip attack.scale=10"),
    "alarm's limit": Attack(Cheat(factor=-100.0, full=True, limit=True), "attack=sign_flip attack.scale=100"),
    "step reversed": Attack(Cheat(factor=-1.0, reverse=True, full=True), "attack=inner_product attack.epsilon=1"),
    "label flip": Attack(Cheat(flip=True, full=True), "attack=label_flip"),
    "giant": Attack(Cheat(giant=True, every=3), "attack=giant"),
    "silent": Attack(Cheat(silent=True), "attack=not_finite"),
    "no care taken": Attack(Cheat(factor=-100.0, full=True), "attack=sign_flip attack.scale=100", ""),
}


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes
    ----------
    rounds : int
    seeds : tuple of int
    partitions : tuple of str
    calm : tuple of (int, tuple of int)
        Without attack: silos, and in how many groups they are dealt.
    cases : tuple of (int, int, int, str, tuple of str)
        Under attack: silos, groups, how many silos cheat, how rows are dealt, and the attacks.
    beyond : bool
        Whether to show what groups do not hold against.
    cost : tuple of int
        Silos, groups, parameters and repetitions of what is timed.
    """

    rounds: int = 10
    seeds: tuple[int, ...] = (1, 2, 3)
    partitions: tuple[str, ...] = ("iid", "dirichlet")
    calm: tuple[tuple[int, tuple[int, ...]], ...] = ((15, (3, 5)), (21, (3, 5, 7)))
    cases: tuple[tuple[int, int, int, str, tuple[str, ...]], ...] = (
        (21, 7, 1, "iid", tuple(ATTACKS)),
        (21, 7, 3, "iid", tuple(ATTACKS)),
        (30, 10, 2, "iid", ("alarm's limit", "step reversed", "silent")),
        (21, 7, 2, "dirichlet", ("alarm's limit", "step reversed", "label flip")),
    )
    beyond: bool = True
    cost: tuple[int, int, int, int] = (30, 5, 100_000, 3)


QUICK = Plan(4, (1,), ("iid",), ((9, (3,)),), ((9, 3, 1, "iid", ("alarm's limit", "giant")),), False, (9, 3, 20_000, 1))


@dataclass(frozen=True)
class Run:
    """What one run left.

    Attributes
    ----------
    accuracy : float
        Percent; 0 if it failed.
    failed : bool
    lost : int
        Rounds without a new model, those that a failed run never came to included.
    rejected : int
        Groups whose sum was rejected, over all rounds.
    """

    accuracy: float
    failed: bool
    lost: int
    rejected: int


def run(plan: Plan, silos: int, seed: int, how: str, partition: str = "iid") -> Run:
    """Run a federation in this process, and score the model that is left."""
    import quire
    from quire.conf.compose import compose
    from quire.errors import RunFailed
    from quire.simulation.baselines import compare

    overrides = COMMON.format(partition=partition, silos=silos, rounds=plan.rounds, seed=seed) + how
    with tempfile.TemporaryDirectory() as scratch:
        folder, failed, accuracy = Path(scratch) / "run", False, 0.0
        try:
            quire.run(overrides, folder)
        except RunFailed:
            failed = True
        else:
            scores = compare(compose(overrides), folder)["everyone"]["federated"]
            accuracy = 100 * float(scores["accuracy"])
        told = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        rounds = [line for line in told if line["event"] == "round"]
    groups = [one for line in rounds for one in line.get("secure", {}).get("groups", ())]
    moved = sum("lost" not in line for line in rounds)
    return Run(accuracy, failed, plan.rounds - moved, sum("rejected" in one for one in groups))


def grouped(groups: int, byzantine: int, combine: str) -> str:
    """Return the settings of groups; of as many silos as these may have, none may side with the server."""
    return (
        f"aggregation.groups={groups} aggregation.byzantine={byzantine} aggregation.combine={combine} "
        "aggregation.colluders=0"
    )


def combinations(groups: int, f: int, alarms: bool = False) -> tuple[str, ...]:
    """Return the combinations that are not the same; with an alarm fewer groups are left, and fewer trimmed off."""
    return ("median",) if groups == 2 * f + 1 and not alarms else ("median", "trimmed_mean")


@cache
def one_sum(plan: Plan, silos: int, seed: int, partition: str, settings: str) -> Run:
    """Run one sum, unattacked."""
    return run(plan, silos, seed, f"{SECURE} {settings}", partition)


def mean(values: Sequence[float]) -> float:
    """Return the mean to a thousandth, which is far less than a test row counts."""
    return round(statistics.fmean(values), 3) + 0.0  # no negative zero


def calm(plan: Plan, partition: str) -> list[Figure]:
    """Hold groups against one sum where nobody cheats."""
    found = []
    for silos, several in plan.calm:
        base = [one_sum(plan, silos, seed, partition, "").accuracy for seed in plan.seeds]
        for groups in several:
            # The trimmed mean against one bad silo keeps the most of all; of three groups it is the median.
            for combine in combinations(groups, 1):
                how = f"{SECURE} {grouped(groups, 1, combine)}"
                runs = [run(plan, silos, seed, how, partition).accuracy for seed in plan.seeds]
                by_seed = [one - other for one, other in zip(base, runs, strict=True)]
                found.append(
                    Figure(
                        f"no attack, {partition}, n={silos}, {groups} groups, {combine}: points lost to one sum",
                        mean(by_seed),
                        f"<= {COST:g}" if partition == "iid" else None,
                        f"{mean(runs):.1f} % against {mean(base):.1f} %; by seed "
                        f"{', '.join(f'{one:+.2f}' for one in by_seed)}",
                    )
                )
    return found


def attacked(
    plan: Plan, silos: int, f: int, attack: Attack, how: str, groups: int, partition: str = "iid"
) -> list[Run]:
    """Run with the first f silos cheating, once for each seed."""
    found = []
    for seed in plan.seeds:
        with cheating([f"site-{number + 1}" for number in range(f)], attack.cheat, groups):
            found.append(run(plan, silos, seed, f"{SECURE} {attack.settings} {how}", partition))
    return found


def told(base: Sequence[float], runs: Sequence[Run], rounds: int) -> str:
    """Say what runs lost, in points and in rounds."""
    points = mean([one - other.accuracy for one, other in zip(base, runs, strict=True)])
    if any(one.failed for one in runs):
        return f"{points:.1f} (the run ended)"
    shown = f"{round(points, 1) + 0.0:.1f}"
    lost = mean([one.lost for one in runs])
    return shown + (f" ({lost:.3g} of {rounds} rounds lost)" if lost else "")


def under_attack(plan: Plan, silos: int, groups: int, f: int, partition: str, names: Sequence[str]) -> list[Figure]:
    """Hold groups, one sum and the median in clear against cheats."""
    found, failing, where = [], {}, f"n={silos}, {groups} groups, f={f}"
    where += "" if partition == "iid" else f", {partition}"
    for name in names:
        attack = ATTACKS[name]
        base = [one_sum(plan, silos, seed, partition, attack.settings).accuracy for seed in plan.seeds]
        ways = {
            combine: attacked(plan, silos, f, attack, grouped(groups, f, combine), groups, partition)
            for combine in combinations(groups, f, attack.cheat.giant)
        }
        alone = attacked(plan, silos, f, attack, "", 1, partition)
        clear = [
            run(plan, silos, seed, f"{CLEAR} {attack.clear} attack.fraction={f / silos}", partition)
            for seed in plan.seeds
        ]
        points = {
            combine: mean([one - other.accuracy for one, other in zip(base, runs, strict=True)])
            for combine, runs in ways.items()
        }
        best = min(points, key=lambda combine: points[combine])
        if (lost := mean([one - other.accuracy for one, other in zip(base, alone, strict=True)])) > SLACK:
            failing[name] = lost
        each = "; ".join(f"{combine} {told(base, runs, plan.rounds)}" for combine, runs in ways.items())
        found.append(
            Figure(
                f"{where}, {name}: points lost by the better combination",
                points[best],
                f"<= {SLACK:g}" if partition == "iid" else None,
                f"{each}; one sum {told(base, alone, plan.rounds)}; median in clear {told(base, clear, plan.rounds)}; "
                f"unattacked {mean(base):.1f} %",
            )
        )
        if attack.cheat.giant:
            rejected = mean([one.rejected for one in ways[best]])
            found.append(
                Figure(
                    f"{where}, {name}: rounds lost by groups, of {plan.rounds}",
                    max(mean([one.lost for one in runs]) for runs in ways.values()),
                    "<= 0",
                    f"one sum {mean([one.lost for one in alone]):.3g}; of groups {rejected:.3g} sums were rejected, "
                    "and the others combined",
                )
            )
    found.append(
        Figure(
            f"{where}: attacks under which one sum loses more than {SLACK:g} points",
            float(len(failing)),
            ">= 1" if partition == "iid" else None,
            f"of {len(names)}: {', '.join(f'{name} {points:.1f}' for name, points in failing.items()) or 'none'}",
        )
    )
    return found


def beyond(plan: Plan) -> list[Figure]:
    """Show what groups do not hold against: more cheats than they are meant for, and silence in the smallest groups."""
    found = []
    for silos, f, name, why in (
        (21, 4, "alarm's limit", "most groups are bad, and nothing is promised"),
        (21, 1, "silent", "of three silos no sum opens without one; 7 groups hold against 3 bad ones only if all open"),
        (30, 1, "silent", "a sum of four or five silos opens without one"),
    ):
        attack = ATTACKS[name]
        base = [one_sum(plan, silos, seed, "iid", attack.settings).accuracy for seed in plan.seeds]
        runs = attacked(plan, silos, f, attack, grouped(7, 3, "median"), 7)
        found.append(
            Figure(
                f"n={silos}, 7 groups, byzantine=3, {name} of {f}: points lost by the median",
                mean([one - other.accuracy for one, other in zip(base, runs, strict=True)]),
                None,
                f"{told(base, runs, plan.rounds)}: {why}",
            )
        )
    return found


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    logging.getLogger("quire").setLevel(logging.CRITICAL)
    plan = QUICK if args.quick else Plan()
    figures = [figure for partition in plan.partitions for figure in calm(plan, partition)]
    for case in plan.cases:
        figures += under_attack(plan, *case)
    figures += beyond(plan) if plan.beyond else []
    return harness.report(
        [*figures, *groups_cost.figures(*plan.cost)], args, "Groups of silos under secure aggregation"
    )


if __name__ == "__main__":
    sys.exit(main())
