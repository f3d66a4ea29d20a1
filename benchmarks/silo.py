"""The silo's own decision: what it costs beside the training that it lets happen, and that it is never too lax.

*Decision*: the policy's checks on a run, as every message passes them, over a client update of the default task
(``task=breast_cancer``: load the rows, train an epoch, take the difference), in turns in one process; under
``privacy=record`` over an update under it. The noise is calibrated once in a process and then kept; that first time is
told beside it. Reading the books from the disk is the store's, and not in here.

*Pairs*: random policies and settings, each changed once for the stricter (a tighter limit, a laxer setting); a refusal
that turns into an approval, or an approval outside a limit, is counted. The same check is a test.
"""

from __future__ import annotations

import math
import runpy
import statistics
import sys
import time
from collections.abc import Callable

import harness
from harness import Figure

UPDATE, PRIVATE_UPDATE = "client update", "client update under privacy=record"
PLAIN, PRIVATE = "decision", "decision under privacy=record"
PAIRS, SEED = 100_000, 20261121


def decisions(quick: bool) -> list[Figure]:
    """Time decisions in turns with client updates."""
    from quire.clients.entropy import Seeded
    from quire.clients.policy.case import State
    from quire.clients.policy.decide import Allow, decide
    from quire.clients.policy.model import Policy, Population
    from quire.clients.private.plan import plan_of
    from quire.clients.tasks import task_of
    from quire.clients.work import train_privately, train_update
    from quire.conf.compose import compose
    from quire.privacy.dp.spending import Spending
    from quire.privacy.randomness import stream

    settings = compose("task=breast_cancer strategy.min_silos=4")
    private = compose("task=breast_cancer strategy.min_silos=4 privacy=record privacy.epsilon=2")
    modes = {"none": (settings, math.inf, 1.0), "record": (private, 4.0, 1e-5)}
    policies = {
        mode: Policy(
            frozenset({mode}),
            frozenset({"plain"}),
            frozenset(),
            Population("p", 400),
            epsilon,
            delta,
            trusts_server=True,
        )
        for mode, (_, epsilon, delta) in modes.items()
    }
    state = State(stage="train", spent=Spending.zero())
    model, entropy = task_of(settings).initial_arrays(stream(1, "model")), Seeded(1)

    def repeated(work: Callable[[], object], times: int) -> Callable[[], float]:
        def timed() -> float:
            started = time.perf_counter()
            for _ in range(times):
                work()
            return (time.perf_counter() - started) / times

        return timed

    started = time.perf_counter()
    if not isinstance(decide(policies["record"], private, state), Allow):
        raise SystemExit("the policy of this benchmark refuses its own run")
    first = time.perf_counter() - started
    contenders = {
        UPDATE: repeated(lambda: train_update(settings, 0, "hospital-1", model, {}, {}, 1, entropy), 10),
        PRIVATE_UPDATE: repeated(
            lambda: train_privately(private, 0, "hospital-1", plan_of(private, 400), model, 1, entropy), 2
        ),
        PLAIN: repeated(lambda: decide(policies["none"], settings, state), 5000),
        PRIVATE: repeated(lambda: decide(policies["record"], private, state), 1000),
    }
    for work in contenders.values():
        work()  # imports, caches
    repetitions = 5 if quick else 25
    found = harness.interleaved(contenders, repetitions)
    middle = {name: 1e6 * statistics.median(seconds) for name, seconds in found.items()}
    return [
        Figure(
            f"{name} over {update}, time",
            harness.median_ratio(found, name, update),
            "< 0.01",
            f"median of {repetitions} turns: {middle[name]:.3g} and {middle[update]:.3g} us",
        )
        for name, update in ((PLAIN, UPDATE), (PRIVATE, PRIVATE_UPDATE))
    ] + [Figure("first decision under privacy=record, seconds", first, None, "calibrates the noise, imports included")]


def pairs(count: int) -> list[Figure]:
    """Count the outcomes of random pairs that are laxer than they may be."""
    vary = runpy.run_path(str(harness.ROOT / "tests" / "clients" / "policy" / "test_monotone.py"))["vary"]
    started = time.perf_counter()
    outcome = vary(count, SEED)
    seconds = time.perf_counter() - started
    refusing = f"{outcome.allowed} approved, {outcome.turned} of them refused after one change"
    return [
        Figure(
            f"laxer outcomes in {count} random pairs of policy and settings",
            float(len(outcome.laxer)),
            "<= 0",
            f"{refusing}; {len(outcome.refused_by)} of the checks refused something; {seconds:.3g} s in all",
        )
    ]


def main() -> int:
    """Run both."""
    args = harness.arguments(__doc__)
    figures = [*decisions(args.quick), *pairs(PAIRS // 10 if args.quick else PAIRS)]
    return harness.report(figures, args, "The silo's own decision")


if __name__ == "__main__":
    sys.exit(main())
