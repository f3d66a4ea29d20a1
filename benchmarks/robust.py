"""Robust aggregation beside Flower's classes: processor time for 50 updates of a million numbers, f = 10.

Each contender is handed the same ``ArrayRecord`` objects and returns the mean: Flower's class by ``aggregate_train``,
ours by the decoding that every round does and the aggregator's ``mean``. One thread, interleaved, medians of ratios.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy is imported

import harness  # noqa: E402
import numpy as np  # noqa: E402
from harness import Figure  # noqa: E402

SILOS, BYZANTINE = 50, 10
GOALS = {"trimmed_mean": 4.0, "median": 4.0, "krum": 4.0, "multi_krum": 4.0, "bulyan": 4.0}
OURS_ALONE = ("geometric_median", "centered_clipping", "norm_bound")


def contents(parameters: int) -> list[Any]:
    """Return 50 replies of a million numbers in four arrays, the first ten of them moved."""
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    rng = np.random.default_rng(0)
    replies = []
    for silo in range(SILOS):
        whole = rng.standard_normal(parameters).astype(np.float32) + np.float32(silo < BYZANTINE)
        parts = np.split(whole, [parameters // 2, parameters * 3 // 4, parameters - 10])
        record = ArrayRecord({f"layer{at}": Array(part) for at, part in enumerate(parts)})
        replies.append(RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 1})}))
    return replies


def handed(content: Any) -> Any:
    """Return a reply in containers of its own, which a contender may empty."""
    from flwr.app import RecordDict

    return RecordDict({name: record.copy() for name, record in content.items()})


def flower(name: str, replies: list[Any]) -> Callable[[], Any]:
    """Return Flower's class at work on the replies."""
    from flwr.app import Message
    from flwr.serverapp import strategy as theirs
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    classes = {
        "trimmed_mean": lambda: theirs.FedTrimmedAvg(beta=BYZANTINE / SILOS),
        "median": theirs.FedMedian,
        "krum": lambda: theirs.Krum(num_malicious_nodes=BYZANTINE),
        "multi_krum": lambda: theirs.MultiKrum(num_malicious_nodes=BYZANTINE, num_nodes_to_select=SILOS - BYZANTINE),
        "bulyan": lambda: theirs.Bulyan(num_malicious_nodes=BYZANTINE),
    }
    chosen = classes[name]()

    def aggregate() -> Any:
        messages = [Message(handed(content), 1, "train") for content in replies]
        arrays, _ = chosen.aggregate_train(1, messages)
        if arrays is None:
            raise RuntimeError(f"Flower's {name} aggregated nothing")
        return np.concatenate([array.reshape(-1) for array in arrays.to_numpy_ndarrays()])

    return aggregate


def ours(name: str, replies: list[Any]) -> Callable[[], Any]:
    """Return our aggregator at work on the replies."""
    from quire.clients.arrays import decode
    from quire.conf.compose import compose
    from quire.conf.robust_schema import FEWEST
    from quire.strategies.robust.build import robust_aggregator
    from quire.strategies.rounds import Cohort, Update

    more = f" aggregation.byzantine={BYZANTINE}" if name in FEWEST else ""
    settings = compose(f"task=synthetic partition.silos={SILOS} strategy.fraction=1 aggregation={name}{more}")
    rule = robust_aggregator(settings.aggregation)

    def aggregate() -> Any:
        updates = [Update(str(at), decode(handed(one)["arrays"]), 1.0) for at, one in enumerate(replies)]
        mean = rule.mean(updates, Cohort(1, ()))
        return np.concatenate([array.reshape(-1) for array in mean.values()])

    return aggregate


def plain(replies: list[Any]) -> Callable[[], Any]:
    """Return the plain mean at work on the replies."""
    from quire.clients.arrays import decode
    from quire.strategies.aggregators import PlainMean
    from quire.strategies.rounds import Cohort, Update

    def aggregate() -> Any:
        updates = [Update(str(at), decode(handed(one)["arrays"]), 1.0) for at, one in enumerate(replies)]
        return PlainMean().mean(updates, Cohort(1, ()))

    return aggregate


def timed(work: Callable[[], Any]) -> Callable[[], float]:
    """Return processor seconds of one call."""

    def measure() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return measure


def figures(parameters: int, repetitions: int) -> list[Figure]:
    """Compare every rule that Flower has, and time those that it has not beside the plain mean."""
    replies, found = contents(parameters), []
    for name, goal in GOALS.items():
        mine, theirs = ours(name, replies), flower(name, replies)
        apart = float(np.abs(mine() - theirs()).max())
        times = harness.interleaved({"ours": timed(mine), "Flower": timed(theirs)}, repetitions)
        ratios = [one / other for one, other in zip(times["Flower"], times["ours"], strict=True)]
        same = "the same mean" if apart < 1e-5 else f"means differ by up to {apart:.2g}"
        if name == "bulyan":
            same += " (Flower's takes its n - 2f updates by one look at the scores, ours one after the other)"
        found.append(
            Figure(
                f"{name}: Flower's processor time over ours",
                harness.median_ratio(times, "Flower", "ours"),
                f">= {goal:g}",
                f"{SILOS} updates of {parameters:,} numbers, f = {BYZANTINE}; ours {min(times['ours']):.2f} s at best; "
                f"ratios {harness.spread(ratios)}; {same}",
            )
        )
    for name in OURS_ALONE:
        times = harness.interleaved({"rule": timed(ours(name, replies)), "plain": timed(plain(replies))}, repetitions)
        found.append(
            Figure(
                f"{name}: processor time over the plain mean's",
                harness.median_ratio(times, "rule", "plain"),
                None,
                "Flower has no such class",
            )
        )
    return found


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    logging.disable(logging.WARNING)
    found = figures(100_000, 3) if args.quick else figures(1_000_000, 7)
    return harness.report(found, args, "Robust aggregation: 50 updates, ten of them byzantine, one thread")


if __name__ == "__main__":
    sys.exit(main())
