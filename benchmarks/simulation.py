"""Client updates per second: ``runtime=inline`` beside the plainest PyTorch loop, Apple's pfl and Flower on Ray.

The work is that of ``task=synthetic``: 100 silos, 10 or 100 in each round, about 60 training rows of 784 numbers each,
batch 20, one epoch, SGD, the average weighted by rows, no evaluation, one torch thread; an MLP of about 100,000
parameters, or with ``task.model=cnn task.hidden=[768]`` a CNN of about 1.2 million on 28 x 28. The bare loop gets the
same rows and the same cohorts, so it takes the same number of steps. It neither checks, hashes nor writes anything; the
inline runtime does all that Quire does, a checkpoint and a line of the journal per round included. pfl gets rows of the
same number and form, and scores each silo before and after training, as it does. Steady state: the difference of a long
and a short run, so that what happens once in a run drops out.
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
import pfl_environment
from harness import Figure
from simulation_work import BATCH, MODELS, Measured, bare_loop

COHORT = 10
INLINE, BARE, FLOWER, PFL = "inline", "bare loop", "flwr run on Ray", "pfl"


@dataclass(frozen=True)
class Work:
    """What is trained, by how many silos a round, and how long."""

    model: str
    cohort: int
    short: int = 2
    long: int = 5
    repetitions: int = 2
    goal: str | None = None

    @property
    def title(self) -> str:
        """How figures name it."""
        return f"{self.model}, {self.cohort} per round"

    @property
    def overrides(self) -> str:
        """The same for ``quire run``."""
        model = "task.model=cnn task.hidden=[768]" if self.model == "cnn" else ""
        fraction = f"strategy.fraction={self.cohort / 100:g}"
        return (
            f"task=synthetic {model} {fraction} strategy.fraction_evaluate=0 output.baselines=false output.report=false"
        )


MLP = Work("mlp", 10, 10, 70, 9, ">= 0.9")
FULL = [
    MLP,
    Work("mlp", 100, 1, 7, 5, ">= 0.9"),
    Work("cnn", 10, 1, 4, 5, ">= 0.97"),
    Work("cnn", 100, 1, 2, 2, ">= 0.97"),
]
QUICK = [Work("mlp", 10, 5, 25, 2, ">= 0.9")]


def inline_run(rounds: int, work: Work = MLP) -> tuple[Measured, list[list[int]]]:
    """Run the federation through ``runtime=inline``; return also who trained in each round."""
    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = time.perf_counter()
        run_inline(compose(f"{work.overrides} strategy.rounds={rounds}"), run)
        seconds = time.perf_counter() - started
        journal = rounds_of(run)
    steps = sum(math.ceil(silo["rows"] / BATCH) for line in journal for silo in line["silos"].values())
    cohorts = [[int(name.rpartition("-")[2]) - 1 for name in line["replied"]] for line in journal]
    return Measured(seconds, steps, journal[-1]["train"]["loss"]), cohorts


def pfl_rate(work: Work, sizes: list[int], python: Path) -> float:
    """Return pfl's client updates per second, in a process of its own."""
    script = str(Path(__file__).parent / "pfl_contender.py")
    command = [str(python), script, work.model, str(work.cohort), str(work.long + 1), json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(why(done.returncode, done.stderr))
    ends = json.loads(done.stdout.splitlines()[-1])
    return (work.long - work.short) * work.cohort / (ends[work.long] - ends[work.short])


def rounds_of(run: Path) -> list[dict[str, Any]]:
    """Return the journal's complete lines about rounds."""
    try:
        text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in lines if line["event"] == "round"]


def steady(work: Work, python: Path | None, lacking: str) -> list[Figure]:
    """Compare the inline runtime with the bare loop, and with pfl where it is installed."""
    import torch

    from quire.clients.data.simulated import federation
    from quire.conf.compose import compose

    torch.set_num_threads(1)
    silos = federation(compose(work.overrides))
    data = [(torch.from_numpy(silo.train.x), torch.from_numpy(silo.train.y)) for silo in silos]
    build = MODELS[work.model]
    inline_run(1, work)  # imports, caches, first touch of memory
    reference, cohorts = inline_run(work.long, work)
    bare = bare_loop(data, cohorts, build)
    updates = (work.long - work.short) * work.cohort

    def inline_rate() -> float:
        return updates / (inline_run(work.long, work)[0].seconds - inline_run(work.short, work)[0].seconds)

    def bare_rate() -> float:
        return updates / (
            bare_loop(data, cohorts, build).seconds - bare_loop(data, cohorts[: work.short], build).seconds
        )

    contenders = {INLINE: inline_rate, BARE: bare_rate}
    if python is not None:
        contenders[PFL] = lambda: pfl_rate(work, [len(y) for _, y in data], python)
    rates = harness.interleaved(contenders, work.repetitions)
    how = f"median of {work.repetitions} interleaved repetitions of {work.long - work.short} rounds"
    alike = reference.steps == bare.steps and abs(reference.loss - bare.loss) <= 0.1 * max(
        reference.loss, bare.loss, 0.01
    )

    def over(base: str, goal: str | None) -> Figure:
        name = f"{work.title}: inline over {base}, client updates per second"
        if base not in rates:
            return Figure(name, None, goal, f"not measured: {lacking}")
        ratios = [one / other for one, other in zip(rates[INLINE], rates[base], strict=True)]
        note = f"{how}; repetitions lie between {harness.spread(ratios)}"
        return Figure(name, harness.median_ratio(rates, INLINE, base), goal, note)

    return [
        over(BARE, work.goal),
        over(PFL, ">= 1.25"),
        *(
            Figure(
                f"{work.title}, {name}: client updates per second",
                statistics.median(rates[name]),
                None,
                harness.spread(rates[name]),
            )
            for name in rates
        ),
        Figure(
            f"{work.title}: inline and bare loop did the same work (1: yes)",
            float(alike),
            ">= 1",
            f"{reference.steps} and {bare.steps} steps in {work.long} rounds; training loss in the last round "
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

        run_flower(compose(f"{MLP.overrides} runtime=flower strategy.rounds={rounds}"), run)
    else:
        from quire.simulation.inline import run_inline

        run_inline(compose(f"{MLP.overrides} strategy.rounds={rounds}"), run)
    return 0


def first_rounds(contenders: Sequence[str], repetitions: int) -> list[Figure]:
    """Measure how long each contender takes from nothing to the end of its first round."""
    figures: list[Figure] = []
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


def first_over_bare(figures: Sequence[Figure]) -> Figure:
    """Put the first rounds of inline and of the bare loop in proportion."""
    found = {item.figure.partition(":")[0]: item.value for item in figures}
    value = None if found[INLINE] is None or found[BARE] is None else found[INLINE] / found[BARE]
    return Figure("first round: inline over bare loop, seconds from the start of the process", value, "<= 3", "")


def flower_steady(rounds: int, bare_rate: float, inline_rate: float) -> list[Figure]:
    """Measure ``flwr run`` between the ends of its second and last rounds, as its journal grows."""
    names = (
        f"{MLP.title}, {FLOWER}: client updates per second",
        f"{MLP.title}: {FLOWER} over bare loop, client updates per second",
        f"{MLP.title}: inline over {FLOWER}, client updates per second",
    )
    goals = (None, None, ">= 8")
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
        text = f"not measured: {why(process.returncode, output)}"
        return [Figure(name, None, goal, text) for name, goal in zip(names, goals, strict=True)]
    (first, begun), (last, ended) = seen[0], seen[-1]
    rate = (last - first) * COHORT / (ended - begun)
    note = f"one run, rounds {first + 1} to {last}, one Ray worker per core; measured before: 0.1 to 0.2"
    values = (rate, rate / bare_rate, inline_rate / rate)
    return [Figure(name, value, goal, note) for name, value, goal in zip(names, values, goals, strict=True)]


def main() -> int:
    """Measure, print, write."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    args = harness.arguments(__doc__)
    python, lacking = (None, "not with --quick") if args.quick else pfl_environment.python()
    figures = [figure for work in (QUICK if args.quick else FULL) for figure in steady(work, python, lacking)]
    rates = {item.figure: item.value or math.nan for item in figures}
    if args.quick:
        figures += [*(firsts := first_rounds([INLINE, BARE], 1)), first_over_bare(firsts)]
    else:
        bare_rate, inline_rate = (rates[f"{MLP.title}, {name}: client updates per second"] for name in (BARE, INLINE))
        figures += flower_steady(30, bare_rate, inline_rate)
        figures += [*(firsts := first_rounds([INLINE, BARE], 5)), first_over_bare(firsts), *first_rounds([FLOWER], 2)]
    figures.sort(key=lambda item: item.goal is None)
    return harness.report(figures, args, "Simulation: 100 silos, 60 rows each, MLP of 100k and CNN of 1.2M parameters")


if __name__ == "__main__":
    sys.exit(main())
