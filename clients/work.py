"""The work behind the messages: load the silo's rows, train or score. Imports torch, so imported when needed."""

from __future__ import annotations

import torch

from quire.clients.arrays import Arrays
from quire.clients.data.silo import SiloData
from quire.clients.data.simulated import federation
from quire.clients.tasks import task_of
from quire.clients.training import workbench
from quire.conf.schema import Settings
from quire.privacy.randomness import stream


def train_update(
    settings: Settings, partition: int, silo: str, arrays: Arrays, round_number: int, mu: float
) -> tuple[Arrays, int, float]:
    """Train the global model on one silo's rows.

    Returns
    -------
    update : dict of str to numpy.ndarray
        New model minus the global one, in the model's dtype.
    rows : int
        Training rows used.
    loss : float
        Mean training loss.
    """
    rows = _prepare(settings, partition).train
    bench = workbench(task_of(settings))
    bench.load(arrays)
    loss = bench.train(rows, settings.training, stream(settings.seed, "batches", round_number, silo), mu)
    return bench.difference(arrays), len(rows), loss


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
