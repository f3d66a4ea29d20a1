"""Which settings `make demo` runs with: chosen on validation rows, never on the rows that its report scores.

The demo's own partition and test rows (its seed) stay as they are; 20 % of each hospital's training rows are set aside,
class by class, by other seeds. On the rest a grid of sampling rates, rounds, learning rates and clips is trained under
`privacy=record_distributed`, by the product's gradients, encoding and shares of noise; masks, which cancel, and
messages are left out. c, U_min and delta are the product's defaults.

For each epsilon the best cell is the one of highest mean balanced accuracy over the seeds on the validation rows, ties
going to the lower loss. The demo's epsilon is the smallest whose best lies within one point of the best at the largest.
Trying settings on these rows is not charged to any epsilon, here as elsewhere.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import harness
import numpy as np
import torch
from harness import Figure

from quire.clients.data.silo import Rows, concatenate, hold_out
from quire.clients.data.simulated import federation
from quire.clients.private.distributed import batch_sum, shaped
from quire.clients.secure.noise import noise_of
from quire.clients.tasks import task_of
from quire.clients.training import workbench
from quire.conf.compose import compose
from quire.privacy.csprng import Csprng
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, words
from quire.privacy.randomness import key, stream

#: What the demo is, whatever is chosen: the defaults of `quire run`, seed and partition included.
BASE = "task=breast_cancer aggregation=secure privacy=record_distributed"
#: What was chosen; the Makefile and README.md say the same.
CHOSEN = "privacy.epsilon=1 privacy.sampling_rate=0.5 strategy.rounds=60 training.lr=2 privacy.clip=0.5"
EPSILONS = (0.5, 1.0, 2.0, 4.0)
GRID = {
    "privacy.sampling_rate": (0.1, 0.2, 0.5),
    "strategy.rounds": (30, 60),
    "training.lr": (0.5, 1.0, 2.0, 4.0),
    "privacy.clip": (0.5, 1.0),
}
QUICK = {"privacy.sampling_rate": (0.2,), "strategy.rounds": (60,), "training.lr": (1.0, 2.0), "privacy.clip": (1.0,)}
SEEDS = range(101, 106)
SHARE, WITHIN, GOAL = 0.2, 1.0, "<= 2"

Cell = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Outcome:
    """What a cell of the grid came to on validation rows: means over seeds, in percent; the loss as it is."""

    cell: Cell
    score: float
    error: float
    loss: float

    @property
    def words(self) -> str:
        """The cell as overrides."""
        return " ".join(f"{name}={value:g}" for name, value in self.cell)


def rows_of(seed: int) -> tuple[tuple[Rows, ...], Rows]:
    """Return what each hospital of the demo trains on, and all validation rows, by the split of a seed."""
    silos = [
        hold_out(silo, SHARE, stream(seed, "validation", place)) for place, silo in enumerate(federation(compose(BASE)))
    ]
    return tuple(silo.train for silo in silos), concatenate([silo.scored for silo in silos])


def trained(cell: Cell, epsilon: float, seed: int) -> dict[str, float]:
    """Train one cell with batches and noise of a seed, and score it on the seed's validation rows."""
    overrides = " ".join(f"{name}={value:g}" for name, value in cell)
    # The public number of records is that of the rows that are left.
    settings = compose(f"{BASE} privacy.epsilon={epsilon:g} {overrides} data.validation_fraction={SHARE}")
    train, validation = rows_of(seed)
    task, noise = task_of(settings), replace(noise_of(settings), probes=0)
    model = task.initial_arrays(stream(seed, "model"))
    vector = np.concatenate([part.ravel() for part in model.values()]).astype(np.float64)
    encoding = encoding_of(noise, len(vector))
    sources = [Csprng(key(seed, "demo", place)) for place in range(len(train))]
    for _ in range(settings.strategy.rounds):
        model = {name: part.astype(np.float32) for name, part in shaped(vector, model).items()}
        total = np.zeros(encoding.length, dtype=np.uint32)
        for rows, source in zip(train, sources, strict=True):
            part = batch_sum(task, "auto", model, rows, noise.sampling_rate, noise.clip, source).total
            total += add_share(encoding, words(encoding, part, source)[0], source)
        vector -= settings.training.lr * mean_of(noise, encoding, total)[0]
    bench = workbench(task)
    bench.load({name: part.astype(np.float32) for name, part in shaped(vector, model).items()})
    return bench.score(validation)


def outcome(cell: Cell, epsilon: float, seeds: Sequence[int]) -> Outcome:
    """Try one cell with all seeds."""
    found = [trained(cell, epsilon, seed) for seed in seeds]
    values = [100 * scores["balanced_accuracy"] for scores in found]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Outcome(cell, statistics.fmean(values), error, statistics.fmean(scores["loss"] for scores in found))


def ranked(epsilon: float, grid: dict[str, tuple[float, ...]], seeds: Sequence[int]) -> list[Outcome]:
    """Try the whole grid at one epsilon; the best comes first."""
    cells = [tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return sorted((outcome(cell, epsilon, seeds) for cell in cells), key=lambda one: (-one.score, one.loss))


def winner(best: dict[float, Outcome]) -> float:
    """Return the smallest epsilon whose best is within a point of the best at the largest."""
    return min(epsilon for epsilon, one in best.items() if one.score >= best[max(best)].score - WITHIN)


def table(epsilon: float, outcomes: Sequence[Outcome]) -> None:
    """Print every cell at an epsilon, the best first."""
    print(f"Epsilon {epsilon:g}: balanced accuracy on validation rows (%), its standard error, loss, settings")
    for one in outcomes:
        print(f"{one.score:8.2f} {one.error:6.2f} {one.loss:7.3f}   {one.words}", flush=True)


def main() -> int:
    """Try, print the tables, name the winner."""
    args = harness.arguments(__doc__)
    torch.set_num_threads(1)  # so small a model waits for its threads
    grid, seeds = (QUICK, SEEDS[:2]) if args.quick else (GRID, SEEDS)
    best, figures = {}, []
    for epsilon in EPSILONS[2:] if args.quick else EPSILONS:
        outcomes = ranked(epsilon, grid, seeds)
        table(epsilon, outcomes)
        one = best[epsilon] = outcomes[0]
        name = f"best balanced accuracy on validation rows at epsilon {epsilon:g}, percent"
        note = f"standard error {one.error:.2g} over {len(seeds)} seeds; the best of {len(outcomes)}: {one.words}"
        figures.append(Figure(name, one.score, None, note))
    epsilon = winner(best)
    note = f"quire run {BASE} privacy.epsilon={epsilon:g} {best[epsilon].words}"
    print(f"Winner: {note}")
    return harness.report([*figures, Figure("epsilon of the winner", epsilon, GOAL, note)], args, "The demo's settings")


if __name__ == "__main__":
    sys.exit(main())
