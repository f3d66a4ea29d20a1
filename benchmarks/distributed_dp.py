"""Distributed noise on digits: what it costs in accuracy, what it costs in time, and whether it is there.

Ten silos of about 144 training rows, dealt out IID, softmax regression (650 parameters), DP-FedSGD: in each of 300
rounds every silo draws a Poisson batch at rate 0.05, and one noisy step is taken. delta is 1e-5, the clip 0.5, the
noise discrete, the sum divided by the public number of rows that is expected. Side by side, with the same z:

central: one noise on the sum of all rows, by somebody who sees them. distributed: ten shares; c is the number of silos
that may side with the server, U_min the fewest whose sum is opened, and all ten survive. local: every silo noises its
own sum as if it were alone. alone: one silo trains on its own rows; another one for each seed.

Encoding, shares, ring and probes are the product's, gradients those of a formula that is held against the product's;
masks, which cancel, and messages are left out. For each seed, epsilon and row the learning rate is the one of a grid
(in the notes) with the highest accuracy on 20 % of that seed's training rows, then all are trained on; choosing is not
charged, here as elsewhere. The grid was laid out by trials on the validation rows of seed 101.

The share of alarms is over all distributed runs that the table needs: honest noise, 300 looks each.

Cost: one silo's part of a round of a million parameters, in one process, medians of interleaved repetitions: encoding,
a fresh share of the noise, masks; against the masks alone, for a roster of 100 silos and of 10.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import harness
import numpy as np
from harness import Figure
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows, concatenate
from quire.clients.data.simulated import federation
from quire.clients.private.distributed import batch_sum, shaped
from quire.clients.tasks import Task, task_of
from quire.conf.compose import compose
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.release import add_noise, release_of
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, probes_for, watch, words
from quire.privacy.dp.spending import Budget
from quire.privacy.randomness import key, stream
from quire.privacy.secagg.masks import add_masks
from quire.privacy.secagg.params import thresholds

SILOS, RATE, ROUNDS, DELTA, CLIP = 10, 0.05, 300, 1e-5, 0.5
RATES = (0.125, 0.25, 0.5, 1.0)
#: c and U_min of the distributed rows.
COHORTS = ((0, 9), (3, 7))
GOALS = {1.0: ">= 84", 4.0: ">= 91"}
WITHIN = "<= 8"
MILLION = 1_000_000
MASKING = "<= 3"

Step = Callable[[list[NDArray[np.float64]], int], NDArray[np.float64]]


@dataclass(frozen=True)
class Data:
    """A federation, ready to train on.

    Attributes
    ----------
    task : Task
    train : tuple of Rows
        Of each silo.
    scored : Rows
        Of all silos: to validate on, or to test.
    """

    task: Task
    train: tuple[Rows, ...]
    scored: Rows


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    accuracy: float
    loss: float
    probes: ProbeTest


@lru_cache(maxsize=4)
def data_of(seed: int, validate: bool) -> Data:
    """Return a seed's partition and split."""
    settings = compose(
        f"task=digits partition=iid partition.silos={SILOS} seed={seed} "
        f"data.validation_fraction={0.2 if validate else 0.0}"
    )
    silos = federation(settings)  # pixels, scaled by their public bounds; none is missing
    scored = concatenate([silo.scored if validate else silo.test for silo in silos])
    return Data(task_of(settings), tuple(silo.train for silo in silos), scored)


def noise_of(epsilon: float, cohort: tuple[int, int], data: Data, watched: bool = True) -> SharedNoise:
    """Plan the noise of a run for the silos' numbers of rows; probes only where they are watched."""
    return SharedNoise.plan(
        Unit.RECORD,
        CLIP,
        thresholds(SILOS, *cohort),
        rounds=ROUNDS,
        targets=[Budget(epsilon, DELTA)] * SILOS,
        sampling_rate=RATE,
        records=sum(len(rows) for rows in data.train),
        largest=max(len(rows) for rows in data.train),
        probes=probes_for(SILOS) if watched else 0,
    )


def trained(
    data: Data, row: str, epsilon: float, cohort: tuple[int, int], lr: float, seed: int, watched: bool = True
) -> Run:
    """Train from zero and score.

    Parameters
    ----------
    data : Data
    row : str
        ``central``, ``distributed``, ``local``, ``alone`` or ``none``.
    epsilon : float
        Of the whole run.
    cohort : tuple of int
        c and U_min.
    lr : float
    seed : int
        Of batches and noise.
    watched : bool
        Whether there are probes.
    """
    noise = noise_of(epsilon, cohort, data, watched)
    model = {name: np.zeros_like(part) for name, part in data.task.initial_arrays(stream(seed, "model")).items()}
    vector = np.zeros(sum(part.size for part in model.values()))
    release = release_of(len(vector), CLIP, noise.noise_multiplier, "discrete")
    encoding, probes = encoding_of(noise, len(vector)), ProbeTest()
    chosen = [seed % SILOS] if row == "alone" else range(SILOS)
    denominator = RATE * sum(len(data.train[place]) for place in chosen)
    sources = [Csprng(key(seed, "benchmark", row, place)) for place in range(SILOS)]
    clip = math.inf if row == "none" else CLIP
    for _ in range(ROUNDS):
        model = shaped(vector, model)
        sums = [clipped_sum(model, data.train[place], clip, sources[place]) for place in chosen]
        if row == "distributed":
            total = np.zeros(encoding.length, dtype=np.uint32)
            for part, source in zip(sums, sources, strict=True):
                total += add_share(encoding, words(encoding, part, source)[0], source)
            mean, released = mean_of(noise, encoding, total)
            probes = watch(probes, encoding, released, SILOS) if watched else probes
        else:
            if row in ("local", "alone"):
                sums = [add_noise(part, release, sources[place]) for place, part in zip(chosen, sums, strict=True)]
            added = np.sum(sums, axis=0)
            mean = (add_noise(added, release, sources[0]) if row == "central" else added) / denominator
        vector -= lr * mean
    return Run(*scores(shaped(vector, model), data.scored), probes)


def clipped_sum(model: Arrays, rows: Rows, clip: float, source: Csprng) -> NDArray[np.float64]:
    """Draw a batch and return the sum of its clipped gradients, by the formula for softmax regression."""
    batch = rows.take(source.poisson_sample(len(rows), RATE))
    x = batch.x.reshape(len(batch), math.prod(rows.x.shape[1:])).astype(np.float64)
    pull = np.exp(log_probabilities(model, x))
    pull[np.arange(len(batch)), batch.y] -= 1.0
    norms = np.linalg.norm(pull, axis=1) * np.sqrt(np.square(x).sum(axis=1) + 1.0)
    pull *= np.minimum(1.0, clip / np.maximum(norms, 1e-300))[:, None]
    return np.concatenate([(pull.T @ x).ravel(), pull.sum(axis=0)])


def formula(seed: int) -> Figure:
    """Hold the formula, which is many times faster for batches so small, against the product's sums."""
    data = data_of(seed, False)
    model = {name: part.astype(np.float32) for name, part in data.task.initial_arrays(stream(seed, "model")).items()}
    apart = []
    for place, rows in enumerate(data.train):
        theirs = batch_sum(data.task, "auto", model, rows, RATE, CLIP, Csprng(key(seed, "formula", place))).total
        ours = clipped_sum(model, rows, CLIP, Csprng(key(seed, "formula", place)))
        apart.append(float(np.linalg.norm(ours - theirs)) / CLIP)
    note = "float32 gradients there; the largest of ten silos"
    return Figure(
        "clipped sums by the formula against the product's, distance over the clip", max(apart), "<= 1e-4", note
    )


def log_probabilities(model: Arrays, x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the logarithms of what softmax regression says of every class."""
    weight, bias = model.values()
    logits = x @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def scores(model: Arrays, rows: Rows) -> tuple[float, float]:
    """Return accuracy and mean cross-entropy of softmax regression."""
    logs = log_probabilities(model, rows.x.reshape(len(rows), -1))
    return float((logs.argmax(axis=1) == rows.y).mean()), float(-logs[np.arange(len(rows)), rows.y].mean())


def measured(row: str, epsilon: float, cohort: tuple[int, int], seed: int, rates: Sequence[float]) -> tuple[Run, float]:
    """Choose the learning rate on validation rows, train on all, score on test rows."""
    tried = [
        (trained(data_of(seed, True), row, epsilon, cohort, lr, seed, False), lr) for lr in rates if len(rates) > 1
    ]
    lr = max(tried, key=lambda one: (one[0].accuracy, -one[0].loss))[1] if tried else rates[0]
    return trained(data_of(seed, False), row, epsilon, cohort, lr, seed), lr


def accuracies(seeds: Sequence[int], epsilons: Sequence[float], rates: Sequence[float]) -> list[Figure]:
    """Measure every row for every seed and epsilon."""
    figures, alarms, ratios = [], 0, []
    for epsilon in epsilons:
        means = {}
        for row, cohort in [
            *(("distributed", cohort) for cohort in COHORTS),
            *((row, COHORTS[0]) for row in ("central", "local", "alone")),
        ]:
            results = [measured(row, epsilon, cohort, seed, rates) for seed in seeds]
            values = [100 * run.accuracy for run, _ in results]
            name, about, goal = row, "", None
            if row == "distributed":
                name = f"distributed, c={cohort[0]}, U_min={cohort[1]}"
                noise = noise_of(epsilon, cohort, data_of(seeds[0], False))
                spent = f"{noise.epsilon(DELTA):.3f}, if all others are dishonest {noise.epsilon_alone(DELTA):.3g}"
                about = f"; z {noise.noise_multiplier:g}, {noise.excess(SILOS):.2f} z on the sum, epsilon {spent}"
                goal = GOALS.get(epsilon) if cohort == COHORTS[0] else None
                alarms += sum(run.probes.alarm for run, _ in results)
                ratios += [run.probes.ratio for run, _ in results]
            means[name] = statistics.fmean(values)
            counted = ", ".join(f"{rate:g}: {sum(lr == rate for _, lr in results)}" for rate in rates)
            note = f"{_over(values)}{about}; learning rates and how often each was chosen: {counted}"
            figures.append(Figure(f"digits: accuracy at epsilon {epsilon:g}, {name}, percent", means[name], goal, note))
        first, second = (f"distributed, c={c}, U_min={least}" for c, least in COHORTS)
        gap = means[first] - means[second]
        figures.append(
            Figure(
                f"digits: accuracy at epsilon {epsilon:g}, points lost by c=3 against c=0", gap, WITHIN, "of the means"
            )
        )
    runs = len(ratios)
    note = f"{runs} runs of {ROUNDS} rounds; variance over the promised one {harness.spread(ratios)}; of 1,000 one may"
    figures.append(Figure("probes: share of honest runs that raise an alarm", alarms / runs, "<= 0.05", note))
    plain = [measured("none", 1.0, COHORTS[0], seed, rates) for seed in seeds]
    values = [100 * run.accuracy for run, _ in plain]
    note = f"{_over(values)}; no clip, no noise, the same rounds and batches"
    return [*figures, Figure("digits: accuracy, not private, percent", statistics.fmean(values), None, note)]


def _over(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "one seed"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"mean over {len(values)} seeds, {harness.spread(values)}, standard error {error:.2g}"


def costs(repetitions: int) -> list[Figure]:
    """Time a silo's part of a round of a million parameters."""
    figures = []
    vector = stream(1, "vector").normal(size=MILLION) / math.sqrt(MILLION)
    for members in (100, 10):
        limits = thresholds(members, max(1, (members - 1) // 3))
        noise = SharedNoise(
            Unit.RECORD,
            CLIP,
            limits.members,
            limits.colluders,
            limits.min_survivors,
            members,
            1.0,
            RATE,
            ROUNDS,
            7.2 * members,
            batch=8,
            probes=probes_for(members),
        )
        encoding, source = encoding_of(noise, MILLION), Csprng(key(1, "costs"))
        add_share(encoding, words(encoding, vector, source)[0], source)  # builds the sampler's table, once for a run
        seeds = [source.bytes(32) for _ in range(members)]
        plain = np.zeros(encoding.length, dtype=np.uint32)

        def mask(seeds: list[bytes] = seeds, plain: NDArray[np.uint32] = plain) -> None:
            add_masks(plain, seeds)

        def whole(encoding=encoding, seeds=seeds, source=source) -> None:
            add_masks(add_share(encoding, words(encoding, vector, source)[0], source), seeds)

        seconds = harness.interleaved({"whole": _timed(whole), "mask": _timed(mask)}, repetitions)
        ratio = harness.median_ratio(seconds, "whole", "mask")
        took = {name: f"{1000 * statistics.median(values):.0f} ms" for name, values in seconds.items()}
        note = f"{took['whole']} against {took['mask']} for {members} masks; {encoding.bits} bits"
        figures.append(
            Figure(f"cost: encode, noise and mask a million, {members} silos, over masking alone", ratio, MASKING, note)
        )
    return figures


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def contender() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return contender


def main() -> int:
    """Measure and report."""
    args = harness.arguments(__doc__)
    figures = costs(3 if args.quick else 15)
    figures.append(formula(1))
    figures += accuracies(
        range(1, 2 if args.quick else 21), (1.0,) if args.quick else (1.0, 4.0), RATES[2:3] if args.quick else RATES
    )
    goals_first = sorted(figures, key=lambda item: item.goal is None)
    return harness.report(goals_first, args, "Distributed noise")


if __name__ == "__main__":
    sys.exit(main())
