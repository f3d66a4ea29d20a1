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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import harness
import numpy as np
from harness import Figure
from noisy_sgd import Data, accuracy, apart, loss, trained
from numpy.typing import NDArray

from quire.clients.data.silo import concatenate
from quire.clients.data.simulated import federation
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.discrete_gaussian import sample
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.shares import add_share, encoding_of, probes_for, watch, words
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


@dataclass(frozen=True)
class Measured:
    """What a run came to on test rows, and the learning rate that validation rows chose."""

    accuracy: float
    probes: ProbeTest
    lr: float


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
        records=data.records[0],
        largest=data.records[1],
        probes=probes_for(SILOS) if watched else 0,
    )


def formula(seed: int) -> Figure:
    """Hold the formula, which is many times faster for batches so small, against the product's sums."""
    note = "float32 gradients there; the largest of ten silos"
    figure = "clipped sums by the formula against the product's, distance over the clip"
    return Figure(figure, apart(data_of(seed, False), RATE, CLIP, seed), "<= 1e-4", note)


def measured(row: str, epsilon: float, cohort: tuple[int, int], seed: int, rates: Sequence[float]) -> Measured:
    """Choose the learning rate on validation rows, train on all, score on test rows."""
    lr = rates[0]
    if len(rates) > 1:
        data = data_of(seed, True)
        noise = noise_of(epsilon, cohort, data, False)
        tried = {lr: trained(data, row, noise, lr, seed).model for lr in rates}
        lr = max(tried, key=lambda lr: (accuracy(tried[lr], data.scored), -loss(tried[lr], data.scored)))
    data = data_of(seed, False)
    run = trained(data, row, noise_of(epsilon, cohort, data), lr, seed)
    return Measured(accuracy(run.model, data.scored), run.probes, lr)


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
            values = [100 * one.accuracy for one in results]
            name, about, goal = row, "", None
            if row == "distributed":
                name = f"distributed, c={cohort[0]}, U_min={cohort[1]}"
                noise = noise_of(epsilon, cohort, data_of(seeds[0], False))
                spent = f"{noise.epsilon(DELTA):.3f}, if all others are dishonest {noise.epsilon_alone(DELTA):.3g}"
                about = f"; z {noise.noise_multiplier:g}, {noise.excess(SILOS):.2f} z on the sum, epsilon {spent}"
                goal = GOALS.get(epsilon) if cohort == COHORTS[0] else None
                alarms += sum(one.probes.alarm for one in results)
                ratios += [one.probes.ratio for one in results]
            means[name] = statistics.fmean(values)
            counted = ", ".join(f"{rate:g}: {sum(one.lr == rate for one in results)}" for rate in rates)
            note = f"{harness.over(values)}{about}; learning rates and how often each was chosen: {counted}"
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
    values = [100 * one.accuracy for one in plain]
    note = f"{harness.over(values)}; no clip, no noise, the same rounds and batches"
    return [*figures, Figure("digits: accuracy, not private, percent", statistics.fmean(values), None, note)]


def caught(seeds: Sequence[int]) -> list[Figure]:
    """Seed bugs into silos' noise, and count the runs that the probes find out within five rounds.

    The bugs stand in the probes' own sum: each silo's share there is drawn with the product's sampler, at a variance
    that the bug makes of the promised one.
    """
    noise = noise_of(1.0, COHORTS[0], data_of(1, False))
    encoding = encoding_of(noise, 650)
    promised = encoding.noise_variance
    bugs = {
        "honest": [promised] * SILOS,
        "noise times 0.9": [math.floor(0.81 * promised)] * SILOS,
        "square root of the shares forgotten": [promised // noise.shares] * SILOS,
        "one of ten silos adds none": [promised] * (SILOS - 1),
    }
    figures = []
    for bug, variances in bugs.items():
        found = []
        for seed in seeds:
            test, source = ProbeTest(), Csprng(key(seed, "bug", bug))
            for _ in range(5):
                drawn = [sample(variance, noise.probes, source) for variance in variances]
                test = watch(test, encoding, np.sum(drawn, axis=0), SILOS)
            found.append(bool(test.alarm))
        goal = "<= 0.05" if bug == "honest" else ">= 1"
        note = f"{sum(found)} of {len(found)} runs of 5 rounds; {noise.probes} probes"
        figures.append(Figure(f"probes: {bug}, share of runs with an alarm", sum(found) / len(found), goal, note))
    return figures


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

        def encode(encoding: Encoding = encoding, source: Csprng = source) -> None:
            words(encoding, vector, source)

        def noise_alone(
            encoding: Encoding = encoding, source: Csprng = source, plain: NDArray[np.uint32] = plain
        ) -> None:
            add_share(encoding, plain, source)

        def whole(encoding: Encoding = encoding, seeds: list[bytes] = seeds, source: Csprng = source) -> None:
            add_masks(add_share(encoding, words(encoding, vector, source)[0], source), seeds)

        contenders = {"whole": whole, "mask": mask, "encode": encode, "noise": noise_alone}
        seconds = harness.interleaved({name: harness.timed(work) for name, work in contenders.items()}, repetitions)
        ratio = harness.median_ratio(seconds, "whole", "mask")
        took = {name: f"{1000 * statistics.median(values):.0f} ms" for name, values in seconds.items()}
        note = (
            f"{took['whole']} against {took['mask']} for {members} masks; by itself encoding takes {took['encode']}, a "
            f"share of the noise {took['noise']}, whatever the number of silos; {encoding.bits} bits"
        )
        figures.append(
            Figure(f"cost: encode, noise and mask a million, {members} silos, over masking alone", ratio, MASKING, note)
        )
    return figures


def main() -> int:
    """Measure and report."""
    args = harness.arguments(__doc__)
    figures = costs(3 if args.quick else 15)
    figures.append(formula(1))
    figures += caught(range(1, 4 if args.quick else 21))
    figures += accuracies(
        range(1, 2 if args.quick else 21), (1.0,) if args.quick else (1.0, 4.0), RATES[2:3] if args.quick else RATES
    )
    goals_first = sorted(figures, key=lambda item: item.goal is None)
    return harness.report(goals_first, args, "Distributed noise")


if __name__ == "__main__":
    sys.exit(main())
