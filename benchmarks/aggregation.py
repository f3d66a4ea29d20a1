"""Aggregating 100 updates of 10 million float32 parameters: beside Flower's FedAvg, and beside reading the same bytes.

Ours takes updates in one by one and sums in float64, in as many threads as the process may use cores; Flower's
``aggregate_arrayrecords`` is what its FedAvg calls, on the same bytes. Both include reading the arrays out of Flower's
records. The read is ``numpy.sum`` over each array, in one thread and in as many as ours uses. To spare memory, 100
updates are ten different ones taken ten times. Contenders take turns; ratios are of neighbouring turns.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import harness
from harness import Figure

OURS, FLOWER, READ, READ_ALL = "Quire", "flwr FedAvg", "reading, one thread", "reading, as many threads"


def measure(parameters: int, repetitions: int) -> list[Figure]:
    """Time all contenders on the same updates."""
    import numpy as np
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    from quire.clients.arrays import decode, encode
    from quire.strategies.aggregators import RunningMean
    from quire.strategies.rounds import Update

    rng = np.random.default_rng(0)
    different = [encode({"w": rng.standard_normal(parameters, dtype=np.float32)}) for _ in range(10)]
    weights = [float(weight) for weight in rng.integers(40, 80, 100)]
    records = [different[place % 10] for place in range(100)]
    contents = [
        RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": weight})})
        for record, weight in zip(records, weights, strict=True)
    ]
    kept: dict[str, np.ndarray] = {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def ours() -> None:
        running = RunningMean()
        for record, weight in zip(records, weights, strict=True):
            running.add(Update("silo", decode(record), weight))
        kept[OURS] = running.mean()["w"]

    def flower() -> None:
        kept[FLOWER] = aggregate_arrayrecords(contents, "num-examples")["w"].numpy()

    def read() -> None:
        for record in records:
            decode(record)["w"].sum()

    def read_all() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda record: decode(record)["w"].sum(), records))

    size = 100 * parameters * 4 / 1e9

    def speed(work: Callable[[], None]) -> Callable[[], float]:
        took = harness.timed(work)
        return lambda: size / took()

    contenders = {OURS: ours, FLOWER: flower, READ: read, READ_ALL: read_all}
    rates = harness.interleaved({name: speed(work) for name, work in contenders.items()}, repetitions)
    off = float(np.abs(kept[OURS] - kept[FLOWER]).max())
    million = f"{parameters / 1e6:g}M"

    def over(base: str, goal: str | None) -> Figure:
        note = f"median of {repetitions} interleaved repetitions; {cores} threads"
        return Figure(f"{million}: {OURS} over {base}, speed", harness.median_ratio(rates, OURS, base), goal, note)

    return [
        over(FLOWER, ">= 5"),
        Figure(f"{million}: largest difference from flwr's mean", off, "<= 1e-5", "flwr sums in float32"),
        over(READ, None),
        over(READ_ALL, None),
        *(
            Figure(f"{million}, {name}: GB/s", statistics.median(rates[name]), None, harness.spread(rates[name]))
            for name in rates
        ),
    ]


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    figures = measure(1_000_000, 3) if args.quick else [*measure(10_000_000, 5), *measure(1_000_000, 7)]
    figures.sort(key=lambda item: item.goal is None)
    return harness.report(figures, args, "Aggregation: the mean of 100 updates, weighted by rows")


if __name__ == "__main__":
    sys.exit(main())
