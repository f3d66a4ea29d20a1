"""DP-FedSGD by a formula, for ``distributed_dp.py`` and ``distributed_hospitals.py``: one linear layer, many runs.

Encoding, shares of the noise, ring and probes are the product's. Gradients are those of a formula, many times faster
for batches so small, which :func:`apart` holds against the product's. Masks, which cancel, and messages are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.private.distributed import batch_sum, shaped
from quire.clients.tasks import Task
from quire.privacy.csprng import Csprng
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.release import add_noise, release_of
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, watch, words
from quire.privacy.randomness import key, stream


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

    @property
    def records(self) -> tuple[int, int]:
        """How many training rows there are, and how many the largest silo has."""
        counts = [len(rows) for rows in self.train]
        return sum(counts), max(counts)


@dataclass(frozen=True)
class Run:
    """What a run came to: the final model, and what its probes said."""

    model: Arrays
    probes: ProbeTest


def trained(data: Data, row: str, noise: SharedNoise, lr: float, seed: int) -> Run:
    """Train from zero.

    Parameters
    ----------
    data : Data
    row : str
        ``central``, ``distributed``, ``local``, ``alone`` (one silo, another for each seed) or ``none`` (neither clip
        nor noise).
    noise : SharedNoise
        Of the run; all rows take its z, its clip and its rounds.
    lr : float
    seed : int
        Of batches and noise.
    """
    model = {name: np.zeros_like(part) for name, part in data.task.initial_arrays(stream(seed, "model")).items()}
    vector = np.zeros(sum(part.size for part in model.values()))
    release = release_of(len(vector), noise.clip, noise.noise_multiplier, "discrete")
    encoding, probes = encoding_of(noise, len(vector)), ProbeTest()
    silos = len(data.train)
    chosen = [seed % silos] if row == "alone" else range(silos)
    denominator = noise.sampling_rate * sum(len(data.train[place]) for place in chosen)
    sources = [Csprng(key(seed, "benchmark", row, place)) for place in range(silos)]
    clip = math.inf if row == "none" else noise.clip
    for _ in range(noise.rounds):
        model = shaped(vector, model)
        sums = [clipped_sum(model, data.train[place], noise.sampling_rate, clip, sources[place]) for place in chosen]
        if row == "distributed":
            total = np.zeros(encoding.length, dtype=np.uint32)
            for part, source in zip(sums, sources, strict=True):
                total += add_share(encoding, words(encoding, part, source)[0], source)
            mean, released = mean_of(noise, encoding, total)
            probes = watch(probes, encoding, released, silos) if noise.probes else probes
        else:
            if row in ("local", "alone"):
                sums = [add_noise(part, release, sources[place]) for place, part in zip(chosen, sums, strict=True)]
            added = np.sum(sums, axis=0)
            mean = (add_noise(added, release, sources[0]) if row == "central" else added) / denominator
        vector -= lr * mean
    return Run(shaped(vector, model), probes)


def clipped_sum(model: Arrays, rows: Rows, rate: float, clip: float, source: Csprng) -> NDArray[np.float64]:
    """Draw a batch and return the sum of its clipped gradients, by the formula for logistic or softmax regression."""
    batch = rows.take(source.poisson_sample(len(rows), rate))
    x = _features(batch)
    pull = np.exp(log_probabilities(model, x))
    pull[np.arange(len(batch)), batch.y] -= 1.0
    if len(next(iter(model.values()))) == 1:  # one logit stands for two classes
        pull = pull[:, 1:]
    norms = np.linalg.norm(pull, axis=1) * np.sqrt(np.square(x).sum(axis=1) + 1.0)
    pull *= np.minimum(1.0, clip / np.maximum(norms, 1e-300))[:, None]
    return np.concatenate([(pull.T @ x).ravel(), pull.sum(axis=0)])


def log_probabilities(model: Arrays, x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the logarithms of what the model says of every class; one logit is that of class 1 over class 0."""
    weight, bias = model.values()
    logits = x @ weight.T + bias
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def apart(data: Data, rate: float, clip: float, seed: int) -> float:
    """Return how far the formula's sums are from the product's at a random model, over the clip; the worst silo."""
    source = stream(seed, "formula", "model")
    first = data.task.initial_arrays(stream(seed, "model"))
    model = {name: source.normal(0.0, 0.3, part.shape).astype(np.float32) for name, part in first.items()}
    distances = []
    for place, rows in enumerate(data.train):
        theirs = batch_sum(data.task, "auto", model, rows, rate, clip, Csprng(key(seed, "formula", place))).total
        ours = clipped_sum(model, rows, rate, clip, Csprng(key(seed, "formula", place)))
        distances.append(float(np.linalg.norm(ours - theirs)) / clip)
    return max(distances)


def accuracy(model: Arrays, rows: Rows) -> float:
    """Return the share of rows whose class the model names."""
    return float((log_probabilities(model, _features(rows)).argmax(axis=1) == rows.y).mean())


def auc(model: Arrays, rows: Rows) -> float:
    """Return the area under the ROC curve of a model with two classes."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(rows.y, log_probabilities(model, _features(rows))[:, 1]))


def loss(model: Arrays, rows: Rows) -> float:
    """Return the mean cross-entropy."""
    return float(-log_probabilities(model, _features(rows))[np.arange(len(rows)), rows.y].mean())


def _features(rows: Rows) -> NDArray[np.float64]:
    return rows.x.reshape(len(rows), math.prod(rows.x.shape[1:])).astype(np.float64)
