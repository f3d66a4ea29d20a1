"""Simulating secure aggregation: the whole protocol, the short cut that comes to the same model, and no masks at all.

FedAvg over 10 and over 50 silos of 60 rows, all of them in every round, with an MLP of about 100,000 parameters
(``task=synthetic``). The contenders are ``aggregation=secure``, the same with ``aggregation.simulate=exact_sum``, and
``aggregation=plain``, as whole runs in this process, training and run folder included. They take turns; the seconds are
those of the processor. The two secure ones have to end with the same model, or there is no figure.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import torch
from harness import Figure

import quire

BASE = (
    "task=synthetic strategy.fraction=1.0 strategy.fraction_evaluate=0 output.report=false output.baselines=false "
    "output.progress=none data.rows={rows} partition.silos={silos} strategy.rounds={rounds}"
)
WAYS = {
    "protocol": "aggregation=secure",
    "exact_sum": "aggregation=secure aggregation.simulate=exact_sum",
    "plain": "aggregation=plain",
}


def once(overrides: str, models: list[str]) -> float:
    """Run a federation, note its model, and return the seconds of processor time."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        models.append(quire.run(overrides, Path(folder) / "run").model)
        return time.process_time() - started


def compare(silos: int, rounds: int, repetitions: int) -> list[Figure]:
    """Let the three ways take turns."""
    base = BASE.format(rows=75 * silos, silos=silos, rounds=rounds)
    models: dict[str, list[str]] = {name: [] for name in WAYS}
    contenders: dict[str, Callable[[], float]] = {
        name: partial(once, f"{base} {how}", models[name]) for name, how in WAYS.items()
    }
    seconds = harness.interleaved(contenders, repetitions)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    same = len({*models["protocol"], *models["exact_sum"]}) == 1
    about = f"{silos} silos, {rounds} rounds"
    told = f"medians of {repetitions}: " + ", ".join(f"{name} {value:.2f} s" for name, value in found.items())
    return [
        Figure(f"{about}: protocol and exact_sum end with one model, 1 if so", float(same), ">= 1"),
        Figure(f"{about}: protocol / exact_sum", found["protocol"] / found["exact_sum"] if same else None, None, told),
        Figure(f"{about}: exact_sum / plain", found["exact_sum"] / found["plain"] if same else None),
        Figure(f"{about}: protocol / plain", found["protocol"] / found["plain"]),
    ]


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    torch.set_num_threads(1)
    rounds, repetitions = (2, 1) if args.quick else (10, 5)
    once(f"{BASE.format(rows=750, silos=10, rounds=1)} aggregation=secure", [])  # imports are not what is measured
    figures = [figure for silos in (10, 50) for figure in compare(silos, rounds, repetitions)]
    return harness.report(figures, args, "exact_sum")


if __name__ == "__main__":
    sys.exit(main())
