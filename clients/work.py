"""The work behind the messages: load the silo's rows, train or score. Imports torch, so imported when needed."""

from __future__ import annotations

import torch

from quire.clients.arrays import Arrays
from quire.clients.data.silo import SiloData
from quire.clients.data.simulated import federation
from quire.clients.local import Trained, train_locally
from quire.clients.tasks import task_of
from quire.clients.training import workbench
from quire.conf.schema import Settings
from quire.privacy.randomness import stream


def train_update(
    settings: Settings, partition: int, silo: str, model: Arrays, told: Arrays, memory: Arrays, round_number: int
) -> Trained:
    """Train the global model on one silo's rows; see :func:`quire.clients.local.train_locally`."""
    rows = _prepare(settings, partition).train
    rng = stream(settings.seed, "batches", round_number, silo)
    return train_locally(workbench(task_of(settings)), rows, settings, rng, model, told, memory)


def score_model(settings: Settings, partition: int, arrays: Arrays) -> tuple[dict[str, float], int]:
    """Score the global model on one silo's test rows; return the scores and the number of rows."""
    rows = _prepare(settings, partition).test
    bench = workbench(task_of(settings))
    bench.load(arrays)
    return bench.score(rows), len(rows)


def _prepare(settings: Settings, partition: int) -> SiloData:
    if torch.get_num_threads() != settings.runtime.threads:
        torch.set_num_threads(settings.runtime.threads)
    return federation(settings)[partition]
