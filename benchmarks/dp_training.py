"""What a step of DP-SGD costs in time over a step of plain SGD, here and with Opacus, for an MLP and a CNN.

*Plain* is a step as every silo takes it without privacy. *Default* is a step under `privacy=record` as it comes: a
Poisson batch, clipping by book-keeping, the sum in float64, exact discrete noise from AES-CTR. *Gaussian noise* is the
same with `privacy.noise=gaussian`, *clipping alone* without noise. *Noise as Opacus draws it* is clipping as here with
float32 noise from torch's generator: what clipping costs beside Opacus' when noise is alike, and no way to train here.
*Opacus hooks* and *Opacus ghost* are steps of Opacus' own optimisers (`DPOptimizer`,
`DPOptimizerFastGradientClipping`) on Poisson batches of their own; its ghost clipping has no rule for convolutions, of
which it keeps the gradients.

Batch 64, noise multiplier 1, rows of 784 numbers and ten classes, one thread, contenders in turns; a time is that of
the processor, so that other work on the machine counts less. `mlp` is 784-128-10. `cnn` is the CNN of
`task=images` with 750 units in its dense layer. Shares are of a step by default, and of noise alone
where a note says so.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Figure
from privacy_cost import opacus_steps

BATCH, FEATURES, CLASSES, SEED = 64, 784, 10, 20261122
HIDDEN = {"mlp": (128,), "cnn": (750,)}
GOALS = {"mlp": "<= 1.3", "cnn": "<= 1.6"}
PLAIN, DEFAULT, GAUSSIAN, ALONE = "plain", "default", "gaussian noise", "clipping alone"
LIKE, HOOKS, GHOST = "noise as Opacus draws it", "Opacus hooks", "Opacus ghost"


class Clock:
    """Adds up the time that is spent within some functions.

    Attributes
    ----------
    spent : float
        Seconds of the processor.
    """

    def __init__(self) -> None:
        self.spent = 0.0

    def __call__(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, watched."""

        def watched(*args: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return work(*args, **options)
            finally:
                self.spent += time.process_time() - started

        return watched


class Model:
    """One model with everything that trains it.

    Parameters
    ----------
    name : str
        Of :data:`HIDDEN`.
    steps : int
        In a turn.
    """

    def __init__(self, name: str, steps: int) -> None:
        import numpy as np

        from quire.clients.data.silo import Rows
        from quire.clients.tasks.classification import Classification
        from quire.conf.schema import SgdTraining
        from quire.privacy.randomness import stream

        rng, count = stream(SEED, "rows"), BATCH * steps
        image = (1, 28, 28) if name == "cnn" else None
        self.task = Classification("benchmark", FEATURES, CLASSES, name, HIDDEN[name], image)
        x = rng.standard_normal((count, FEATURES)).astype(np.float32)
        self.rows = Rows(x, rng.integers(0, CLASSES, count).astype(np.int64))
        self.first = self.task.initial_arrays(stream(SEED, "model"))
        self.size, self.steps = sum(array.size for array in self.first.values()), steps
        self.training = SgdTraining("sgd", 1, steps, BATCH, 0.01, 0.0, 0.0, (), 0, None)

    def contenders(self) -> dict[str, Callable[[], float]]:
        """Return for each way to train a callable that takes a turn and returns the seconds of a step."""
        from quire.privacy.randomness import stream

        plain = self.bench()
        found = {
            PLAIN: lambda: plain.train(self.rows, self.training, stream(SEED, "batches")),
            DEFAULT: self.private(1.0, True),
            GAUSSIAN: self.private(1.0, False),
            ALONE: self.private(0.0, True),
            LIKE: self.like_opacus(),
        }
        for name, method in ((HOOKS, "hooks"), (GHOST, "ghost")):
            found[name] = opacus_steps(method, self.bench().model, self.task.loss, self.rows, self.steps)
        return {name: self.timed(work) for name, work in found.items()}

    def bench(self) -> Any:
        """Return a workbench of its own with the first model."""
        from quire.clients.training import Workbench

        bench = Workbench(self.task)
        bench.load(self.first)
        return bench

    def private(self, noise: float, discrete: bool, parts: dict[str, Clock] | None = None) -> Callable[[], object]:
        """Return a turn under ``privacy=record``; ``parts`` are clocks of its passes and of its weighted sums."""
        from quire.clients.private.plan import Plan
        from quire.clients.private.sgd import PrivateBench
        from quire.privacy.csprng import Csprng
        from quire.privacy.dp.contract import Unit
        from quire.privacy.randomness import key

        bench = self.bench()
        trainer = PrivateBench(bench, "auto")
        bench.load(self.first)  # what is tried out before training has overwritten it
        if parts is not None:
            rows: Any = trainer._gradients._rows
            rows.norms, rows.weighted = parts["passes and norms"](rows.norms), parts["weighted sums"](rows.weighted)
        plan = Plan(Unit.RECORD, 1.0, noise, 1.0 / self.steps, self.steps, BATCH, discrete, 1e-5)
        source = Csprng(key(SEED, "noise", str(noise), str(discrete)))
        return lambda: trainer.train(self.rows, plan, self.training, source)

    def like_opacus(self) -> Callable[[], None]:
        """Return a turn of clipping as here with noise, batches and steps as Opacus has them."""
        import torch

        from quire.clients.private.gradients import ClippedGradients

        bench, task = self.bench(), self.task
        engine = ClippedGradients(bench.model, task.loss, task.features, task.classes)
        bench.load(self.first)
        x, y = torch.from_numpy(self.rows.x), torch.from_numpy(self.rows.y)
        generator = torch.Generator().manual_seed(SEED)
        optimizer = torch.optim.SGD(bench.parameters, lr=0.01)
        sizes = [parameter.numel() for parameter in bench.parameters]

        def run() -> None:
            for _ in range(self.steps):
                batch = (torch.rand(len(y), generator=generator) < 1.0 / self.steps).nonzero().squeeze(1)
                total = torch.from_numpy(engine.sum(x[batch], y[batch], 1.0).total).float()
                total += torch.normal(0.0, 1.0, total.shape, generator=generator)
                total /= BATCH
                for parameter, part in zip(bench.parameters, total.split(sizes), strict=True):
                    parameter.grad = part.view_as(parameter)
                optimizer.step()

        return run

    def timed(self, work: Callable[[], object]) -> Callable[[], float]:
        """Return a contender."""

        def run() -> float:
            started = time.process_time()
            work()
            return (time.process_time() - started) / self.steps

        return run

    def shares(self, repetitions: int) -> dict[str, float]:
        """Return which part of a default step is spent on what."""
        from unittest.mock import patch

        from quire.clients.private import sgd

        parts = {name: Clock() for name in ("passes and norms", "weighted sums", "noise")}
        with patch.object(sgd, "add_noise", parts["noise"](sgd.add_noise)):
            turn = self.private(1.0, True, parts)
            turn()
            before = {name: clock.spent for name, clock in parts.items()}
            started = time.process_time()
            for _ in range(repetitions):
                turn()
            whole = time.process_time() - started
        found = {name: (clock.spent - before[name]) / whole for name, clock in parts.items()}
        return {**found, "batches, norms of sums, step": 1.0 - sum(found.values())}


def measure(quick: bool) -> list[Figure]:
    """Let the contenders of each model take turns."""
    import torch

    torch.set_num_threads(1)
    goals, others, shares = [], [], []
    for name in HIDDEN:
        steps, repetitions = {"mlp": (20, 25), "cnn": (4, 9)}[name]
        if quick:
            steps, repetitions = steps // 2, 3
        model = Model(name, steps)
        runs = model.contenders()
        for run in runs.values():
            run()  # caches, first-time imports
        found = harness.interleaved(runs, repetitions)
        each = {who: 1e3 * statistics.median(values) for who, values in found.items()}
        for who in list(runs)[1:]:
            ratio = harness.median_ratio(found, who, PLAIN)
            note = f"{each[who]:.3g} ms against {each[PLAIN]:.3g} ms a step; {harness.spread(over(found, who))}"
            if who in (DEFAULT, LIKE):
                goals.append(Figure(f"{name}: {who} over plain, time", ratio, GOALS[name], note))
            else:
                others.append(Figure(f"{name}: {who} over plain, time", ratio, None, note))
        for part, share in model.shares(max(1, repetitions // 3)).items():
            note = f"{1e9 * share * each[DEFAULT] / 1e3 / model.size:.3g} ns a parameter" if part == "noise" else ""
            shares.append(Figure(f"{name}: share of a default step, {part}", share, None, note))
        about = f"{repetitions} turns of {steps} steps; load of the machine {os.getloadavg()[0]:.1f}"
        others.append(Figure(f"{name}: parameters", float(model.size), None, about))
    return [*goals, *others, *shares]


def over(found: dict[str, list[float]], who: str) -> list[float]:
    """Return the ratios to plain, turn by turn."""
    return [one / other for one, other in zip(found[who], found[PLAIN], strict=True)]


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    return harness.report(measure(args.quick), args, "DP-SGD beside plain SGD and Opacus")


if __name__ == "__main__":
    sys.exit(main())
