"""Canary audits of right and of broken code: how often a true claim is refuted, how often a broken one is not.

Canaries go through the product's own clipping, summation and noise, each in with probability 1/2. Paths: *sum* (the
noisy sum alone), *rows* (a linear model's per-sample gradients), *model* (breast_cancer's own model), *silos* (whole
updates and the server's sum). The mechanism is one release at rate 1 with noise of the size of the clip, delta 1e-5,
unless the figure says otherwise. Bugs are put in by this script; the product has no switch for them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from harness import Figure, arguments, report, spread

DELTA = 1e-5
CANARIES = 10_000
NOISE = ("quire.clients.private.sgd", "quire.strategies.private", "quire.simulation.audit_paths")
TASK = "task=breast_cancer partition=iid privacy=record privacy.epsilon=8 seed=1"


@dataclass(frozen=True)
class Result:
    """One audit: the claim and what was found, by both estimators, at 97.5 % each: 95 % together."""

    claim: float
    one_run: float
    gaussian: float

    @property
    def refuted(self) -> bool:
        """Whether a bound exceeds the claim."""
        return max(self.one_run, self.gaussian) > self.claim


@contextmanager
def noise_times(factor: float) -> Iterator[None]:
    """Let every release draw its noise with a smaller deviation than it says, or none at all."""
    from quire.privacy.dp.release import add_noise

    def weak(total: Any, release: Any, source: Any) -> Any:
        if factor == 0.0:
            return total
        return add_noise(total, replace(release, noise_multiplier=factor * release.noise_multiplier), source)

    patches = [patch(f"{module}.add_noise", weak) for module in NOISE]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@contextmanager
def no_clipping() -> Iterator[None]:
    """Let gradients and updates through as they are; the server, which would refuse long updates, lets them in too."""
    from quire.clients.private.gradients import ClippedGradients
    from quire.strategies.private import NoisySum

    right = ClippedGradients.sum
    with (
        patch.object(ClippedGradients, "sum", lambda self, x, y, clip: right(self, x, y, float("inf"))),
        patch("quire.simulation.audit_paths.clipped_update", lambda update, clip: (update, 0.0)),
        patch.object(NoisySum, "objection", lambda self, update: None),
    ):
        yield


def plan(noise: float = 1.0, releases: int = 1, discrete: bool = True, clip: float = 1.0) -> Any:
    """Return the mechanism that is audited."""
    from quire.clients.private.plan import Plan
    from quire.privacy.dp.contract import Unit

    return Plan(Unit.RECORD, clip, noise, 1.0, releases, 1, discrete, DELTA)


def paths(trials: int) -> Mapping[str, Callable[[int], Any]]:
    """Return, for each path with its noise, what makes canaries' scores of a seed."""
    from quire.clients.data.simulated import federation
    from quire.clients.tasks import task_of
    from quire.conf.compose import compose
    from quire.privacy.dp.contract import Unit
    from quire.simulation.audit_paths import through_model, through_rows, through_silos, through_sum

    settings = compose(TASK)
    task, rows = task_of(settings), federation(settings)[0].train
    discrete, floats = plan(), plan(discrete=False)
    silo = replace(discrete, unit=Unit.SILO)
    return {
        "sum": lambda seed: through_sum(discrete, 31, CANARIES, seed),
        "sum (gaussian)": lambda seed: through_sum(floats, 31, CANARIES, seed),
        "rows, ghost clipping": lambda seed: through_rows(discrete, "ghost", CANARIES, seed),
        "rows, hooks (gaussian)": lambda seed: through_rows(floats, "hooks", CANARIES, seed),
        "silos": lambda seed: through_silos(silo, 1, CANARIES, seed),
        "model": lambda seed: through_model(settings, task, rows, discrete, trials, seed),
    }


def audited(scores: Callable[[int], Any], mechanism: Any, seed: int) -> Result:
    """Audit once."""
    from quire.privacy.dp.audit import gaussian, one_run
    from quire.simulation.audit import claim

    found = scores(seed)
    bounds = [estimate(found.scores, found.included, DELTA, 0.975).epsilon for estimate in (one_run, gaussian)]
    return Result(claim(mechanism), *bounds)


def share(results: list[Result], refuted: bool) -> float:
    """Return the share of audits that did, or did not, refute the claim."""
    return sum(result.refuted is refuted for result in results) / len(results)


def right_code(chosen: Mapping[str, Callable[[int], Any]], few: int, many: int) -> Iterator[Figure]:
    """Audit code as it is: at most one claim in twenty may be refuted, and the bounds should be near the claims."""
    from quire.privacy.dp.audit import gaussian, one_run
    from quire.simulation.audit_paths import through_sum

    for name, scores in chosen.items():
        seeds = many if name.startswith(("sum", "silos")) else few
        results = [audited(scores, plan(), seed) for seed in range(seeds)]
        best = [max(result.one_run, result.gaussian) for result in results]
        yield Figure(
            f"right code, {name}: share of seeds in which the bound is at most the claim",
            share(results, False),
            ">= 0.95",
            f"{seeds} seeds; claim {results[0].claim:.2f}, bounds {spread(best)}",
        )
    for noise, releases in ((0.5, 1), (2.0, 1), (8.0, 64)):
        mechanism = plan(noise, releases)
        results = [
            audited(lambda seed, of=mechanism: through_sum(of, 31, CANARIES, seed), mechanism, seed)
            for seed in range(many)
        ]
        yield Figure(
            f"right code, sum, noise {noise:g}, {releases} release(s): share of seeds with the bound at most the claim",
            share(results, False),
            ">= 0.95",
            f"{many} seeds; claim {results[0].claim:.2f}, largest Gaussian bound "
            f"{max(result.gaussian for result in results):.2f}, largest one-run bound "
            f"{max(result.one_run for result in results):.2f}",
        )
    from dp_accounting import get_epsilon_gaussian

    exact = get_epsilon_gaussian(1.0, DELTA)
    found = [chosen["sum"](1000 + seed) for seed in range(many)]
    bounds = [gaussian(one.scores, one.included, DELTA).epsilon for one in found]
    yield Figure(
        "right code, sum: share of seeds with the Gaussian bound at most the mechanism's exact epsilon",
        sum(bound <= exact for bound in bounds) / many,
        None,
        f"{many} seeds; exact {exact:.2f}; should be about 0.95, the limit's own confidence",
    )
    for name, estimate in (("one run, distribution-free", one_run), ("Gaussian", gaussian)):
        bounds = [estimate(one.scores, one.included, DELTA).epsilon for one in found]
        yield Figure(
            f"power: lower bound on epsilon, {name}, median",
            statistics.median(bounds),
            ">= 2.0",
            f"{many} seeds, {CANARIES} canaries, 95 % each; {spread(bounds)}; claimed (RDP) "
            f"{audited(chosen['sum'], plan(), 0).claim:.2f}",
        )


def broken_code(chosen: Mapping[str, Callable[[int], Any]], seeds: int) -> Iterator[Figure]:
    """Audit code with one bug at a time."""
    bugs: dict[str, tuple[Callable[[], Any], str | None]] = {
        "no clipping": (no_clipping, ">= 1"),
        "no noise": (lambda: noise_times(0.0), ">= 1"),
        "noise a tenth": (lambda: noise_times(0.1), ">= 1"),
        "noise times 0.316": (lambda: noise_times(0.1**0.5), None),
        "noise times 0.8": (lambda: noise_times(0.8), None),
    }
    for bug, (broken, goal) in bugs.items():
        for name, scores in chosen.items():
            if bug == "no clipping" and name.startswith("sum"):
                continue  # there is none on this path
            with broken():
                results = [audited(scores, plan(), seed) for seed in range(seeds)]
            one_run = sum(result.one_run > result.claim for result in results)
            normal = sum(result.gaussian > result.claim for result in results)
            yield Figure(
                f"{bug}, {name}: share of seeds in which it is caught",
                share(results, True),
                goal,
                f"{seeds} seeds: {one_run} by the one-run bound, {normal} by the Gaussian one",
            )


def main() -> int:
    """Audit right code, then broken code."""
    import torch

    args = arguments(__doc__)
    torch.set_num_threads(1)
    few, many, seeds, trials = (2, 12, 2, 200) if args.quick else (20, 100, 20, 500)
    chosen = paths(trials)
    figures = [*right_code(chosen, few, many), *broken_code(chosen, seeds)]
    return report(figures, args, "Canary audit")


if __name__ == "__main__":
    sys.exit(main())
