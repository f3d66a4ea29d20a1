"""Exact discrete Gaussian noise: its cost against samplers that are neither secure nor exact, and what encoding adds.

Cost: 1,000,000 samples in one process, medians of interleaved repetitions. The yardstick: the difference of two Poisson
samples from numpy's PCG64, which is predictable, and is Skellam noise rather than Gaussian. Box-Muller is our own
floating-point Gaussian noise from the same AES-256-CTR keystream. A whole release is scaling, stochastic
rounding, noise and decoding of a million coordinates, after clipping.

Error: the standard deviation of the error of a released sum over z C sqrt(parties / shares), for 100 parties of
2**20 coordinates (2**14 in the short form) each at the clip, z = 1, all parties surviving, shares = 90. The integers
of all parties are added and cut to the width, as on the wire. 1 would be the Gaussian mechanism on real numbers.
"""

from __future__ import annotations

import math
import statistics
import sys

import harness
import numpy as np
from harness import Figure, timed
from numpy.typing import NDArray

from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.discrete_gaussian import sample
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.lattice import noisy_sum
from quire.privacy.dp.rejection import sample_by_rejection
from quire.privacy.dp.wire import pack, to_ring, unpack
from quire.privacy.randomness import key, stream

COUNT = 1_000_000
SIGMAS = (16, 256, 4096, 16_384, 1 << 20)
PARTIES, SHARES = 100, 90
WIDTHS = ((16, 2.0, True, 1.04), (24, 16.0, False, 1.01), (32, 16.0, False, 1.01))


def costs(repetitions: int) -> list[Figure]:
    """Time the samplers side by side."""
    source, insecure = Csprng(key(1, "benchmark")), stream(1, "benchmark")
    total = np.ones(COUNT) / math.sqrt(COUNT)
    figures = []
    for sigma in SIGMAS:
        sample(sigma**2, 1, source)  # builds the table, once for all releases with this variance
        mean = sigma**2 / 2
        seconds = harness.interleaved(
            {
                "exact": timed(lambda sigma=sigma: sample(sigma**2, COUNT, source)),
                "poisson": timed(lambda mean=mean: insecure.poisson(mean, COUNT) - insecure.poisson(mean, COUNT)),
            },
            repetitions,
        )
        ratio = harness.median_ratio(seconds, "exact", "poisson")
        taken = {name: f"{1000 * statistics.median(values):.1f} ms" for name, values in seconds.items()}
        note = f"{taken['exact']} against {taken['poisson']}"
        figures.append(Figure(f"exact over Poisson difference, sigma={sigma}, times the time", ratio, "<= 2", note))
    seconds = harness.interleaved(
        {
            "normals": timed(lambda: source.normals(COUNT)),
            "numpy": timed(lambda: insecure.normal(size=COUNT)),
            "words": timed(lambda: source.uint64(COUNT)),
            "release": timed(lambda: noisy_sum(total, 1.0, 1.0, source)),
            "poisson": timed(lambda: insecure.poisson(1.3e8, COUNT) - insecure.poisson(1.3e8, COUNT)),
        },
        repetitions,
    )
    for name, figure in (
        ("release", "a whole release (scale, round, exact noise, decode) over Poisson difference alone"),
        ("normals", "floating-point Box-Muller from AES-CTR over Poisson difference"),
        ("numpy", "numpy's insecure floating-point normals over Poisson difference"),
        ("words", "the AES-CTR keystream alone (8 bytes a number) over Poisson difference"),
    ):
        ratio = harness.median_ratio(seconds, name, "poisson")
        figures.append(Figure(figure, ratio, note=f"{1000 * statistics.median(seconds[name]):.1f} ms for 1,000,000"))
    few = 2_000
    slow = min(harness.interleaved({"slow": timed(lambda: sample_by_rejection(256**2, few, source))}, 2)["slow"])
    fast = timed(lambda: sample(256**2, COUNT, source))()
    note = f"{1e6 * slow / few:.0f} microseconds a sample, in Python: the oracle of the tests"
    figures.append(
        Figure("rejection sampler over table, sigma=256, times the time", slow / few / fast * COUNT, note=note)
    )
    return figures


def error(bits: int, kappa: float, rotated: bool, dimension: int, seed: int) -> tuple[float, Encoding]:
    """Return the error of one released sum over that of the Gaussian mechanism with as many shares."""
    rotation = key(seed, "rotation").hex() if rotated else None
    encoding = Encoding.plan(
        Unit.SILO,
        dimension,
        1.0,
        parties=PARTIES,
        noise_multiplier=1.0,
        noise_shares=SHARES,
        bits=bits,
        kappa=kappa,
        rotation=rotation,
    )
    vectors = stream(seed, "vectors")
    exact = np.zeros(dimension)
    total: NDArray[np.uint32] = np.zeros(encoding.length, dtype=np.uint32)
    for party in range(PARTIES):
        vector = vectors.normal(size=dimension)
        vector /= np.linalg.norm(vector)
        exact += vector
        source = Csprng(key(seed, "party", party))
        integers = encoding.encode(vector, source).integers + encoding.noise(source)
        total += unpack(pack(to_ring(integers), bits), bits, encoding.length)
    decoded, _ = encoding.decode(total)
    return float((decoded - exact).std()) / math.sqrt(PARTIES / SHARES), encoding


def errors(dimension: int, seeds: int) -> list[Figure]:
    """Measure what rounding and the width cost in accuracy."""
    figures = []
    for bits, kappa, rotated, goal in WIDTHS:
        ratios = [error(bits, kappa, rotated, dimension, seed)[0] for seed in range(seeds)]
        how = f"kappa={kappa:g}, {'rotated' if rotated else 'not rotated'}, d={dimension:,}"
        note = f"{how}; {seeds} seeds, {harness.spread(ratios)}"
        figures.append(Figure(f"error over z C, {bits} bits", statistics.mean(ratios), f"<= {goal}", note))
    return figures


def main() -> int:
    """Measure and report."""
    args = harness.arguments(__doc__)
    figures = costs(3 if args.quick else 15)
    figures += errors(1 << 14 if args.quick else 1 << 20, 1 if args.quick else 3)
    return harness.report(figures, args, "Discrete Gaussian noise")


if __name__ == "__main__":
    sys.exit(main())
