"""What a step of DP-SGD costs in time over a step of plain SGD, for each model and way to clip.

*Plain* is a step as every silo takes it without privacy. *Hooks* keeps each row's gradient, *ghost* its norm only (of
a convolution, for which Opacus' ghost clipping has no rule, the gradient where that is cheaper). Each draws its batch
by Poisson, clips, adds noise and steps, as under ``privacy=record``; *no noise* leaves the noise out. *Opacus* is a
step of Opacus' own optimisers (``DPOptimizer``, ``DPOptimizerFastGradientClipping``: float32 sums, noise from torch's
generator) on Poisson batches of its own, to see what exact noise, float64 sums and secret batches cost.

Batch 64, one pass over the rows, one thread, contenders in turns; a time is that of the processor, so that other work
on the machine counts little. ``logistic`` and ``mlp`` see rows of 784 numbers, ``cnn`` images of 28 x 28, all ten
classes; the parameters are counted in the notes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import harness
from harness import Figure

BATCH, FEATURES, CLASSES = 64, 784, 10
HIDDEN = {"logistic": (), "mlp": (128,), "cnn": (64,)}
PLAIN, OPACUS = "plain", "Opacus"
GOAL = "<= 1.5"
SEED = 20261121


def contenders(model: str, steps: int) -> tuple[dict[str, Callable[[], float]], int]:
    """Return for each way to train a callable that takes some steps and returns the seconds per step; the size too."""
    import numpy as np

    from quire.clients.data.silo import Rows
    from quire.clients.private.plan import Plan
    from quire.clients.private.sgd import PrivateBench
    from quire.clients.tasks.classification import Classification
    from quire.clients.training import Workbench
    from quire.conf.schema import SgdTraining
    from quire.privacy.csprng import Csprng
    from quire.privacy.dp.contract import Unit
    from quire.privacy.randomness import key, stream

    count = BATCH * steps
    image = (1, 28, 28) if model == "cnn" else None
    task = Classification("benchmark", FEATURES, CLASSES, model, HIDDEN[model], image)
    rng = stream(SEED, "rows")
    rows = Rows(
        rng.standard_normal((count, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, count).astype(np.int64)
    )
    first = task.initial_arrays(stream(SEED, "model"))
    training = SgdTraining("sgd", 1, steps, BATCH, 0.01, 0.0, 0.0, (), 0, None)

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            started = time.process_time()
            work()
            return (time.process_time() - started) / steps

        return run

    def private(method: str, noise: float, discrete: bool) -> Callable[[], float]:
        bench = Workbench(task)
        bench.load(first)
        trainer = PrivateBench(bench, method)
        plan = Plan(Unit.RECORD, 1.0, noise, 1.0 / steps, steps, BATCH, discrete, 1e-5)
        source = Csprng(key(SEED, "noise", method))
        return timed(lambda: trainer.train(rows, plan, training, source))

    plain = Workbench(task)
    plain.load(first)
    found = {PLAIN: timed(lambda: plain.train(rows, training, stream(SEED, "batches")))}
    for method in ("hooks", "ghost"):
        found[f"{method}, discrete noise"] = private(method, 1.0, True)
        found[f"{method}, gaussian noise"] = private(method, 1.0, False)
        found[f"{method}, no noise"] = private(method, 0.0, True)
        bench = Workbench(task)
        bench.load(first)
        found[f"{method}, {OPACUS}"] = timed(opacus_steps(method, bench.model, task.loss, rows, steps))
    return found, sum(array.size for array in first.values())


def opacus_steps(method: str, model: Any, loss: Callable[..., Any], rows: Any, steps: int) -> Callable[[], None]:
    """Return a callable that takes some steps with Opacus' own optimiser, on Poisson batches of its own."""
    import torch
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    generator = torch.Generator().manual_seed(SEED)
    model.train()
    options = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": BATCH, "generator": generator}
    base = torch.optim.SGD(model.parameters(), lr=0.01)
    if method == "ghost":
        wrapped = GradSampleModuleFastGradientClipping(model, max_grad_norm=1.0, use_ghost_clipping=True)
        optimizer = DPOptimizerFastGradientClipping(base, **options)
        criterion = DPLossFastGradientClipping(wrapped, optimizer, torch.nn.CrossEntropyLoss())
    else:
        wrapped, optimizer, criterion = GradSampleModule(model), DPOptimizer(base, **options), loss

    def run() -> None:
        for _ in range(steps):
            batch = (torch.rand(len(y), generator=generator) < 1.0 / steps).nonzero().squeeze(1)
            optimizer.zero_grad()
            criterion(wrapped(x[batch]), y[batch]).backward()
            optimizer.step()

    return run


def measure(quick: bool) -> list[Figure]:
    """Let the contenders of each model take turns."""
    import torch

    torch.set_num_threads(1)
    figures = []
    repetitions, steps = (3, 5) if quick else (7, 20)
    for model in HIDDEN:
        runs, size = contenders(model, steps)
        for run in runs.values():
            run()  # caches, first-time imports
        found = harness.interleaved(runs, repetitions)
        each = {name: statistics.median(values) for name, values in found.items()}
        for name in runs:
            if name == PLAIN:
                continue
            note = (
                f"{size:,} parameters; {1e3 * each[name]:.3g} ms against {1e3 * each[PLAIN]:.3g} ms a step; median of "
                f"{repetitions} turns of {steps} steps"
            )
            figures.append(
                Figure(f"{model}: {name} over plain, time", harness.median_ratio(found, name, PLAIN), None, note)
            )
        for method in ("hooks", "ghost"):
            ours, theirs = f"{method}, discrete noise", f"{method}, {OPACUS}"
            note = f"{1e3 * each[ours]:.3g} ms against {1e3 * each[theirs]:.3g} ms a step"
            figure = f"{model}: {ours} over {theirs}, time"
            figures.append(Figure(figure, harness.median_ratio(found, ours, theirs), GOAL, note))
    return figures


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    goals_first = sorted(measure(args.quick), key=lambda item: item.goal is None)
    return harness.report(goals_first, args, "The cost of DP-SGD in time")


if __name__ == "__main__":
    sys.exit(main())
