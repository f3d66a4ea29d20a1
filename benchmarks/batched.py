"""Many silos on one machine: ``runtime=batched`` and ``runtime.workers`` against the plainest sequential PyTorch loop.

The work is that of ``benchmarks/simulation.py``: 100 silos, about 60 training rows each, batch 20, one epoch, SGD, no
evaluation, one torch thread in each process; an MLP of about 100,000 parameters on rows of 784 numbers with 10 and 100
silos per round, and a CNN of about 1,200,000 on the same rows as images with 10. The bare loop has the same models and
rows. All contenders take turns; what is reported are medians of ratios within a turn. Steady state: the difference of a
long and a short run.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import Figure

QUIET = "strategy.fraction_evaluate=0 output.baselines=false output.report=false"
MLP = f"task=synthetic {QUIET}"
CNN = f"task=synthetic task.model=cnn task.hidden=[768] training.lr=0.01 {QUIET}"
BARE = "bare loop"
RUNTIMES = {
    "inline": "runtime=inline",
    "batched": "runtime=batched",
    "inline, 2 workers": "runtime=inline runtime.workers=2",
    "batched, 2 workers": "runtime=batched runtime.workers=2",
}


def processor() -> float:
    """Return the processor time of this process and of those that it has started and that have ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def seconds_of(overrides: str, rounds: int) -> float:
    """Run a federation in this process; return how long it took."""
    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_inline(compose(f"{overrides} strategy.rounds={rounds}"), Path(folder) / "run")
        return time.perf_counter() - started


def bare_seconds(overrides: str, updates: int, cohort: int) -> float:
    """Train by federated averaging in the plainest way: one model, one optimiser, one silo after another."""
    import torch

    from quire.clients.data.simulated import federation
    from quire.clients.tasks import task_of
    from quire.conf.compose import compose

    torch.set_num_threads(1)
    settings = compose(overrides)
    task, plan = task_of(settings), settings.training
    data: list[tuple[Any, Any]] = [
        (torch.from_numpy(silo.train.x), torch.from_numpy(silo.train.y)) for silo in federation(settings)
    ]
    model = task.build_model()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.SGD(model.parameters(), lr=plan.lr)
    started = time.perf_counter()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for first in range(0, updates, cohort):
        average = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        for place in range(first, first + cohort):
            x, y = data[place % len(data)]
            model.load_state_dict(weights)
            order = torch.randperm(len(y))
            for start in range(0, len(y), plan.batch_size):
                batch = order[start : start + plan.batch_size]
                optimizer.zero_grad()
                task.loss(model(x[batch]), y[batch]).backward()
                optimizer.step()
            for name, tensor in model.state_dict().items():
                average[name] += tensor / cohort
        weights = average
    return time.perf_counter() - started


def compared(title: str, overrides: str, cohort: int, rounds: tuple[int, int], turns: int, goals: Any) -> list[Figure]:
    """Let all contenders do the same work, in turns."""
    short, long = rounds
    updates = (long - short) * cohort

    spent: dict[str, list[float]] = {name: [] for name in (BARE, *RUNTIMES)}

    def bare() -> float:
        before = processor()
        seconds = bare_seconds(overrides, updates, cohort)
        spent[BARE].append(processor() - before)
        return updates / seconds

    def rate(name: str) -> Callable[[], float]:
        where = f"{overrides} {RUNTIMES[name]}"

        def measured() -> float:
            marks = [processor()]
            few = seconds_of(where, short)
            marks.append(processor())
            many = seconds_of(where, long)
            marks.append(processor())
            spent[name].append(marks[2] - 2 * marks[1] + marks[0])
            # On a busy machine the short run may take as long as the long one: at most twice the whole run's rate.
            return updates / max(many - few, 0.5 * many * (long - short) / long)

        return measured

    contenders: dict[str, Callable[[], float]] = {BARE: bare, **{name: rate(name) for name in RUNTIMES}}
    bare_seconds(overrides, cohort, cohort)
    for name in RUNTIMES:
        seconds_of(f"{overrides} {RUNTIMES[name]}", 1)  # imports, caches, first touch of memory
    rates = harness.interleaved(contenders, turns)
    how = f"median of {turns} turns of {updates} updates"
    figures = [
        Figure(f"{title}: {name}, client updates per second", statistics.median(found), None, harness.spread(found))
        for name, found in rates.items()
    ]
    figures += [
        Figure(
            f"{title}: {name}, milliseconds of processor time per update, all processes",
            1e3 * statistics.median(found) / updates,
            None,
            "what else the machine does counts for less here than in the rates",
        )
        for name, found in spent.items()
    ]
    for name, base, goal in goals:
        ratios = [one / other for one, other in zip(rates[name], rates[base], strict=True)]
        note = f"{how}; turns lie between {harness.spread(ratios)}"
        figures.append(Figure(f"{title}: {name} over {base}", harness.median_ratio(rates, name, base), goal, note))
    return figures


def parameters(overrides: str) -> int:
    """Return how many parameters the model of some settings has."""
    from quire.clients.tasks import task_of
    from quire.conf.compose import compose

    return sum(parameter.numel() for parameter in task_of(compose(overrides)).build_model().parameters())


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    dense = [
        ("batched, 2 workers", BARE, ">= 5"),
        ("batched", BARE, None),
        ("batched", "inline", ">= 1"),
        ("inline, 2 workers", "inline", None),
        ("inline", BARE, None),
    ]
    images = [
        ("batched, 2 workers", "batched", ">= 1.9"),
        ("batched", "inline", ">= 0.97"),
        ("inline, 2 workers", "inline", ">= 1.9"),
        ("inline", BARE, None),
    ]
    turns = 1 if args.quick else 3
    busy = f"load of the machine before: {os.getloadavg()[0]:.1f}"
    figures = compared("MLP, 10 per round", MLP, 10, (2, 12) if args.quick else (5, 45), turns, dense)
    everybody = f"{MLP} strategy.fraction=1"
    figures += compared("MLP, 100 per round", everybody, 100, (1, 3) if args.quick else (2, 8), turns, dense)
    figures += compared("CNN, 10 per round", CNN, 10, (1, 3) if args.quick else (1, 5), turns, images)
    for name, overrides in (("MLP", MLP), ("CNN", CNN)):
        figures.append(Figure(f"{name}: parameters", float(parameters(overrides)), None, busy))
    return harness.report(figures, args, "Many silos on one machine, against a bare loop")


if __name__ == "__main__":
    sys.exit(main())
