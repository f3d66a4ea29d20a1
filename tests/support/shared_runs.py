"""What the tests of distributed noise have in common: a small federation, and its rounds by the core's functions."""

import json

import numpy as np

from quire.clients.arrays import decode
from quire.clients.data.simulated import federation
from quire.clients.local import train_locally
from quire.clients.private.distributed import batch_sum, clipped_vector
from quire.clients.secure.noise import noise_of
from quire.clients.tasks import task_of
from quire.clients.training import workbench
from quire.conf.compose import compose
from quire.privacy import randomness
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, words

BASE = "task=breast_cancer partition=iid aggregation=secure output.report=false output.baselines=false"
RECORD = f"{BASE} privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 training.lr=0.1"
SILO = f"{BASE} privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5"
UNITS = {"record": RECORD, "silo": SILO}
NAMES = [f"hospital-{place}" for place in range(1, 6)]

assert decode  # re-exported for tests that read messages


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rounds_of(folder):
    return [line for line in lines_of(folder) if line["event"] == "round"]


def card_of(folder):
    return json.loads((folder / "privacy_card.json").read_text())


def expected_sum(settings, model, silos, number, attempt=1, noisy=True):
    """The sum that one attempt of a round opens, decoded: the mean, and the probes."""
    noise, task, rows = noise_of(settings), task_of(settings), federation(settings)
    encoding = encoding_of(noise, sum(part.size for part in model.values()), settings.aggregation.bits)
    total = np.zeros(encoding.length, np.uint32)
    for silo in silos:
        own = rows[int(silo.split("-")[1]) - 1].train

        def source(purpose, silo=silo):
            return Csprng(randomness.key(settings.seed, purpose, number, attempt, silo))

        if noise.unit is Unit.RECORD:
            vector = batch_sum(task, "auto", model, own, noise.sampling_rate, noise.clip, source("batch")).total
        else:
            rng = randomness.stream(settings.seed, "batches", number, attempt, silo)
            update = train_locally(workbench(task), own, settings, rng, model, {}, {}).update
            vector, _ = clipped_vector(update, tuple(model), noise.clip)
        plain, _ = words(encoding, vector, source("secure-rounding"))
        total += add_share(encoding, plain, source("noise-share")) if noisy else plain
    return mean_of(noise, encoding, total)


def expected_model(overrides, survivors, attempts=None, noisy=True):
    """The model after rounds that these silos survived, without a server's or a silo's code around it."""
    settings = compose(overrides)
    model = task_of(settings).initial_arrays(randomness.stream(settings.seed, "model"))
    step = -settings.training.lr if settings.privacy.name.startswith("record") else 1.0
    for number, silos in enumerate(survivors, start=1):
        mean, _ = expected_sum(settings, model, silos, number, (attempts or {}).get(number, 1), noisy)
        at, after = 0, {}
        for name, part in model.items():
            move = (step * mean[at : at + part.size]).reshape(part.shape)
            after[name] = (part.astype(np.float64) + 1.0 * move).astype(part.dtype)
            at += part.size
        model = after
    return model
