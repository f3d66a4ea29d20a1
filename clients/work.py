"""The work behind the messages: load the silo's rows, train or score. Imports torch, so imported when needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import torch

from quire.clients.arrays import Arrays
from quire.clients.compression import compressed
from quire.clients.contract import TUNED
from quire.clients.data.consent.sieve import Sifted
from quire.clients.data.own import Where, load
from quire.clients.data.preprocess import prepare, preprocessing_of
from quire.clients.data.silo import Rows, SiloData
from quire.clients.device import device_of
from quire.clients.entropy import Entropy
from quire.clients.local import Trained, train_locally
from quire.clients.private.plan import Plan, SharedPlan
from quire.clients.private.work import Shown, private_update, shared_vector
from quire.clients.tasks import Task, task_of
from quire.clients.tasks.local_layers import joined, local_names
from quire.clients.tasks.moments import Statistics
from quire.clients.training import Workbench, WrongModel, workbench
from quire.conf.schema import NoCompression, Settings
from quire.errors import DataError

#: Told what consent made of the rows that are about to be trained on.
Note = Callable[[Sifted | None], None]


def train_update(
    settings: Settings,
    where: Where,
    silo: str,
    model: Arrays,
    told: Arrays,
    memory: Arrays,
    round_number: int,
    entropy: Entropy,
    statistics: Statistics | None = None,
    note: Note | None = None,
) -> Trained:
    """Train the global model on one silo's rows; see :func:`quire.clients.local.train_locally`.

    What comes out is compressed, if the settings say so.
    """
    rows, task = _prepare(settings, where, silo, statistics, note).train, _task(settings, where)
    rng = entropy.generator("batches", round_number, silo)
    local = local_names(task, settings.training.local_layers)
    whole = _whole(task, settings, model, memory)
    trained = train_locally(workbench(task, device_of(settings)), rows, settings, rng, whole, told, memory, local)
    if isinstance(settings.compression, NoCompression):
        return trained
    update, kept = compressed(trained.update, memory, settings.compression)
    return dataclasses.replace(trained, update=update, memory={**trained.memory, **kept})


def train_privately(
    settings: Settings,
    where: Where,
    silo: str,
    plan: Plan,
    model: Arrays,
    round_number: int,
    entropy: Entropy,
    note: Note | None = None,
) -> tuple[Arrays, Shown]:
    """Train the global model on one silo's rows under a plan; see :func:`quire.clients.private.work.private_update`."""
    rows = _prepare(settings, where, silo, None, note).train
    return private_update(settings, _task(settings, where), rows, plan, entropy, silo, model, round_number)


def sum_privately(
    settings: Settings,
    where: Where,
    silo: str,
    plan: SharedPlan,
    model: Arrays,
    attempt: tuple[int, int],
    entropy: Entropy,
    note: Note | None = None,
) -> tuple[np.ndarray, Shown]:
    """Work out what one silo adds to a sum under a plan; see :func:`quire.clients.private.work.shared_vector`."""
    rows = _prepare(settings, where, silo, None, note).train
    return shared_vector(settings, _task(settings, where), rows, plan, entropy, silo, model, attempt)


def score_model(
    settings: Settings,
    where: Where,
    silo: str,
    arrays: Arrays,
    statistics: Statistics | None,
    memory: Arrays,
    rng: np.random.Generator,
) -> tuple[dict[str, float], int]:
    """Score the global model on one silo's validation rows, or on its test rows where it keeps none.

    With ``training.tuning_epochs`` a copy that is trained on the silo's own training rows is scored as well, and then
    let go: its scores are named ``tuned_...``.

    Parameters
    ----------
    settings, where, silo, arrays, statistics
        As for :func:`train_update`.
    memory : dict of str to numpy.ndarray
        What the silo keeps, such as its own layers.
    rng : numpy.random.Generator
        Shuffles the rows for tuning.

    Returns
    -------
    scores : dict of str to float
    rows : int
        Rows scored.
    """
    data, task = _prepare(settings, where, silo, statistics), _task(settings, where)
    whole = _whole(task, settings, arrays, memory)
    scores = _score(task, data.scored, whole, device_of(settings))
    if settings.training.tuning_epochs and len(data.train):
        bench = workbench(task, device_of(settings))
        tuned(bench, settings, whole, data.train, rng)
        found = bench.score(data.scored)
        scores |= {TUNED + name: value for name, value in found.items() if np.isfinite(value)}
    return scores, len(data.scored)


def tuned(bench: Workbench, settings: Settings, model: Arrays, rows: Rows, rng: np.random.Generator) -> None:
    """Train a bench's model from the global one on a silo's own rows, by ``training.tuning_epochs`` passes."""
    plan = settings.training
    lr = plan.tuning_lr if plan.tuning_lr is not None else plan.lr
    bench.load(model)
    bench.train(rows, dataclasses.replace(plan, epochs=plan.tuning_epochs, steps=0, lr=lr), rng)


def score_at_home(
    settings: Settings, where: Where, silo: str, arrays: Arrays, statistics: Statistics | None = None
) -> tuple[dict[str, float], int, int]:
    """Score a finished model on one silo's test rows, for the silo alone: nothing of it travels.

    Returns
    -------
    scores : dict of str to float
    tested : int
        Rows scored; the silo never trained on them under these settings.
    rows : int
        All of the silo's rows.

    Raises
    ------
    DataError
        If the silo has no test rows, or the model lacks layers that stayed in the silos.
    """
    if settings.training.local_layers:
        raise DataError(
            f"The model of this run lacks the layers that stayed in {silo} (training.local_layers), and the run's "
            "folder does not hold them: read the scores of its rounds instead."
        )
    data = _prepare(settings, where, silo, statistics)
    if not len(data.test):
        raise DataError(f"{silo} has no row left that was kept for testing, so there is nothing to score the model on.")
    held_out = len(data.validation) if data.validation is not None else 0
    scores = _score(_task(settings, where), data.test, arrays)
    return scores, len(data.test), len(data.train) + len(data.test) + held_out


def _score(task: Task, rows: Rows, arrays: Arrays, device: str = "cpu") -> dict[str, float]:
    bench = workbench(task, device)
    bench.load(arrays)
    return bench.score(rows)


def _whole(task: Task, settings: Settings, model: Arrays, memory: Mapping[str, np.ndarray]) -> Arrays:
    try:
        return joined(task, settings, model, memory)
    except ValueError as error:
        raise WrongModel(str(error)) from error


def _task(settings: Settings, where: Where) -> Task:
    return task_of(settings) if isinstance(where, int) else task_of(settings, where.schema, where.plugins)


def _prepare(
    settings: Settings, where: Where, silo: str, statistics: Statistics | None, note: Note | None = None
) -> SiloData:
    if torch.get_num_threads() != settings.runtime.threads:
        torch.set_num_threads(settings.runtime.threads)
    loaded = load(settings, where, silo)
    if note is not None:
        note(loaded.sifted)
    return prepare(loaded, preprocessing_of(settings), statistics)
