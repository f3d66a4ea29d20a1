"""Client updates per second: ``runtime=inline`` and Flower on Ray against the plainest sequential PyTorch loop.

The work is that of ``task=synthetic``: 100 silos, 10 in each round, about 60 training rows of 784 numbers each, an MLP
of about 100,000 parameters, batch 20, one epoch, SGD, the average weighted by rows, no evaluation, one torch thread.
The bare loop gets the same rows and the same cohorts, so it takes the same number of steps. It neither checks, hashes
nor writes anything; the inline runtime does all that Quire does, a checkpoint and a line of the journal per round
included. Steady state: the difference of a long and a short run, so that what happens once in a run drops out.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import Figure

WORK = "task=synthetic strategy.fraction_evaluate=0 output.baselines=false output.report=false"
COHORT, BATCH, LR = 10, 20, 0.1
INLINE, BARE, FLOWER = "inline", "bare loop", "flwr run on Ray"


@dataclass
class Measured:
    """What a run of some rounds did."""

    seconds: float
    steps: int
    loss: float


def bare_loop(data: Sequence[tuple[Any, Any]], cohorts: Sequence[Sequence[int]]) -> Measured:
    """Train by federated averaging in the plainest way: one model, one optimiser, one silo after another."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    started = time.perf_counter()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps, loss_sum, rows = 0, 0.0, 0
    for cohort in cohorts:
        total = sum(len(data[silo][1]) for silo in cohort)
        average = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        loss_sum, rows = 0.0, 0
        for silo in cohort:
            x, y = data[silo]
            model.load_state_dict(weights)
            order = torch.randperm(len(y))
            for start in range(0, len(y), BATCH):
                batch = order[start : start + BATCH]
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                loss.backward()
                optimizer.step()
                steps += 1
                loss_sum += loss.item() * len(batch)
            rows += len(y)
            for name, tensor in model.state_dict().items():
                average[name] += tensor * (len(y) / total)
        weights = average
    return Measured(time.perf_counter() - started, steps, loss_sum / rows)


def inline_run(rounds: int) -> tuple[Measured, list[list[int]]]:
    """Run the federation through ``runtime=inline``; return also who trained in each round."""
    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = time.perf_counter()
        run_inline(compose(f"{WORK} strategy.rounds={rounds}"), run)
        seconds = time.perf_counter() - started
        journal = rounds_of(run)
    steps = sum(math.ceil(silo["rows"] / BATCH) for line in journal for silo in line["silos"].values())
    cohorts = [[int(name.rpartition("-")[2]) - 1 for name in line["replied"]] for line in journal]
    return Measured(seconds, steps, journal[-1]["train"]["loss"]), cohorts


def rounds_of(run: Path) -> list[dict[str, Any]]:
    """Return the journal's complete lines about rounds."""
    try:
        text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line["event"] == "round"]


def steady(short: int, long: int, repetitions: int) -> list[Figure]:
    """Compare the inline runtime with the bare loop."""
    import torch

    from quire.clients.data.simulated import federation
    from quire.conf.compose import compose

    torch.set_num_threads(1)
    data = [(torch.from_numpy(silo.train.x), torch.from_numpy(silo.train.y)) for silo in federation(compose(WORK))]
    inline_run(2)  # imports, caches, first touch of memory
    reference, cohorts = inline_run(long)
    bare = bare_loop(data, cohorts)
    updates = (long - short) * COHORT

    def inline_rate() -> float:
        return updates / (inline_run(long)[0].seconds - inline_run(short)[0].seconds)

    def bare_rate() -> float:
        return updates / (bare_loop(data, cohorts).seconds - bare_loop(data, cohorts[:short]).seconds)

    rates = harness.interleaved({INLINE: inline_rate, BARE: bare_rate}, repetitions)
    ratio = harness.median_ratio(rates, INLINE, BARE)
    ratios = [one / other for one, other in zip(rates[INLINE], rates[BARE], strict=True)]
    how = f"median of {repetitions} interleaved repetitions of {long - short} rounds"
    alike = reference.steps == bare.steps and abs(reference.loss - bare.loss) <= 0.1 * max(
        reference.loss, bare.loss, 0.01
    )
    return [
        Figure(
            "inline over bare loop, client updates per second",
            ratio,
            ">= 0.7",
            f"{how}; repetitions lie between {harness.spread(ratios)}",
        ),
        *(
            Figure(
                f"{name}: client updates per second", statistics.median(rates[name]), None, harness.spread(rates[name])
            )
            for name in (INLINE, BARE)
        ),
        Figure(
            "inline and bare loop did the same work (1: yes)",
            float(alike),
            ">= 1",
            f"{reference.steps} and {bare.steps} steps in {long} rounds; training loss in the last round "
            f"{reference.loss:.4f} and {bare.loss:.4f}",
        ),
    ]


def first_round(contender: str) -> float:
    """Return seconds from the start of a process to the end of its first round, imports and data included."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        process, started = start(contender, 1, run)
        try:
            while not rounds_of(run) and process.poll() is None:
                time.sleep(0.005)
            seconds = time.perf_counter() - started
        finally:
            output = process.communicate()[0]
        if process.returncode or not rounds_of(run):
            raise RuntimeError(why(process.returncode, output))
    return seconds


def start(contender: str, rounds: int, run: Path) -> tuple[subprocess.Popen[str], float]:
    """Start this script anew, to do nothing but one contender's run."""
    command = [sys.executable, __file__, "--child", contender, str(rounds), str(run)]
    started = time.perf_counter()
    return (
        subprocess.Popen(
            command, env=harness.child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ),
        started,
    )


def why(status: int | None, output: str) -> str:
    """Say how a child ended: its exit status and the last line it printed, without the machine's paths."""
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "nothing printed")
    return f"exit status {status}, {re.sub(r'/[^ ,:)]+', '...', last)[:200]}"


def child(contender: str, rounds: int, run: Path) -> int:
    """Do one contender's run; the body of a process that :func:`start` starts."""
    if contender == BARE:
        import numpy as np
        import torch

        torch.set_num_threads(1)
        rng = np.random.default_rng(0)
        data = [
            (
                torch.from_numpy(rng.standard_normal((60, 784), dtype=np.float32)),
                torch.from_numpy(rng.integers(0, 10, 60)),
            )
            for _ in range(100)
        ]
        done = bare_loop(data, [rng.choice(100, COHORT, replace=False).tolist() for _ in range(rounds)])
        run.mkdir()
        line = {"event": "round", "round": rounds, "train": {"loss": done.loss}}
        (run / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
        return 0
    from quire.conf.compose import compose

    if contender == FLOWER:
        from quire.simulation.flower import run_flower

        run_flower(compose(f"{WORK} runtime=flower strategy.rounds={rounds}"), run)
    else:
        from quire.simulation.inline import run_inline

        run_inline(compose(f"{WORK} strategy.rounds={rounds}"), run)
    return 0


def first_rounds(contenders: Sequence[str], repetitions: int) -> list[Figure]:
    """Measure how long each contender takes from nothing to the end of its first round."""
    figures = []
    for contender in contenders:
        name = f"{contender}: seconds from the start of the process to the end of round 1"
        try:
            seconds = [first_round(contender) for _ in range(repetitions)]
        except RuntimeError as error:
            figures.append(Figure(name, None, None, f"not measured: {error}"))
            continue
        note = (
            "imports, data and enrolment included" if contender != BARE else "imports included; rows made on the spot"
        )
        figures.append(Figure(name, statistics.median(seconds), None, f"{note}; {harness.spread(seconds)}"))
    return figures


def flower_steady(rounds: int, bare_rate: float) -> list[Figure]:
    """Measure ``flwr run`` between the ends of its second and last rounds, as its journal grows."""
    names = (f"{FLOWER}: client updates per second", f"{FLOWER} over bare loop, client updates per second")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        process, _ = start(FLOWER, rounds, run)
        seen: list[tuple[int, float]] = []  # rounds done, and when that was first seen
        try:
            while process.poll() is None and (not seen or seen[-1][0] < rounds):
                time.sleep(0.02)
                done = len(rounds_of(run))
                if done >= 2 and (not seen or done > seen[-1][0]):
                    seen.append((done, time.perf_counter()))
        finally:
            output = process.communicate()[0]
    if process.returncode or not seen or seen[-1][0] < rounds or len(seen) < 2:
        return [Figure(name, None, None, f"not measured: {why(process.returncode, output)}") for name in names]
    (first, begun), (last, ended) = seen[0], seen[-1]
    rate = (last - first) * COHORT / (ended - begun)
    note = f"one run, rounds {first + 1} to {last}, one Ray worker per core; measured before: 0.1 to 0.2"
    return [Figure(names[0], rate, None, note), Figure(names[1], rate / bare_rate, None, note)]


def main() -> int:
    """Measure, print, write."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    args = harness.arguments(__doc__)
    figures = steady(5, 35, 3) if args.quick else steady(10, 70, 9)
    bare_rate = next(item.value for item in figures if item.figure.startswith(BARE)) or math.nan
    if args.quick:
        figures.append(Figure(f"{FLOWER}: client updates per second", None, None, "not measured with --quick"))
        figures += first_rounds([INLINE, BARE], 1)
    else:
        figures += flower_steady(30, bare_rate)
        figures += first_rounds([INLINE, BARE], 5)
        figures += first_rounds([FLOWER], 2)
    return harness.report(figures, args, "Simulation: 100 silos, 10 per round, 60 rows each, MLP of 100k parameters")


if __name__ == "__main__":
    sys.exit(main())
