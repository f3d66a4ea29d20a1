"""Scoring several silos' rows at once: one pass of the model over all of them, as all are asked to score the same.

The rows of a silo's test set are often so few that a pass over them is mostly the overhead of its operators. What
:class:`ScoredAhead` keeps are the outputs; each silo's figures are worked out from its own, by its task, when its app
asks for them. Only a simulation can use it: nobody else holds the rows of several silos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from quire.clients.ahead import same
from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.slopes import is_ours
from quire.clients.tasks.base import Task
from quire.clients.training import Workbench, workbench
from quire.conf.schema import SgdTraining

#: Most rows that are passed at once.
MOST_ROWS = 2048
#: Most numbers of images that are passed at once: with more, what lies between the layers of a cnn leaves the cache.
MOST_PIXELS = 50_000


class ScoredAhead(Workbench):
    """A workbench which has a model's outputs on some rows already.

    Parameters
    ----------
    task : Task
    model : mapping of str to numpy.ndarray
        What was scored.
    rows : Rows
        The very object that the silo will score.
    outputs : numpy.ndarray, shape (n, outputs)
    """

    def __init__(self, task: Task, model: Mapping[str, np.ndarray], rows: Rows, outputs: np.ndarray) -> None:
        self.task = task
        self._model, self._rows, self._outputs = model, rows, outputs
        self._loaded: Mapping[str, np.ndarray] = {}
        self._trained: Workbench | None = None  # a silo may tune a copy of the model before it is let go

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take parameters in; see :meth:`quire.clients.training.Workbench.load`."""
        if not same(arrays, self._model):
            _real(self.task, arrays)  # refuses what is no model of the task
        self._loaded, self._trained = arrays, None

    def train(
        self,
        rows: Rows,
        plan: SgdTraining,
        rng: np.random.Generator,
        mu: float = 0.0,
        correction: Mapping[str, np.ndarray] | None = None,
    ) -> float:
        """Train the model; see :meth:`quire.clients.training.Workbench.train`. None of it was done ahead."""
        self._trained = self._bench()
        return self._trained.train(rows, plan, rng, mu, correction)

    def difference(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return model minus ``arrays``."""
        return self._bench().difference(arrays)

    def arrays(self) -> Arrays:
        """Return a copy of the model's parameters."""
        return self._bench().arrays()

    def logits(self, rows: Rows) -> np.ndarray:
        """Return the model's outputs, if these are the rows and the model that were foreseen; else work them out."""
        if self._trained is None and rows is self._rows and same(self._loaded, self._model):
            return self._outputs
        return self._bench().logits(rows)

    def _bench(self) -> Workbench:
        """Return a real workbench, which stands where this one does."""
        return self._trained if self._trained is not None else _real(self.task, self._loaded)


def is_scorable(task: Task, rows: int) -> bool:
    """Tell whether so many rows are worth passing together with those of other silos, and have no say in one another.

    Parameters
    ----------
    task : Task
    rows : int
        Of one silo.
    """
    return is_ours(task) and 0 < rows <= _most(task)


def score_together(task: Task, model: Mapping[str, np.ndarray], silos: Sequence[Rows]) -> list[ScoredAhead]:
    """Pass the rows of several silos through one model.

    Parameters
    ----------
    task : Task
    model : mapping of str to numpy.ndarray
    silos : sequence of Rows
        For each of which :func:`is_scorable` holds.

    Returns
    -------
    list of ScoredAhead
        In the order of the silos.

    Raises
    ------
    WrongModel
        If the arrays are no model of the task.
    """
    bench = workbench(task)
    bench.load(model)
    x, most = torch.cat([torch.from_numpy(rows.x) for rows in silos]), _most(task)
    with torch.inference_mode():
        outputs = torch.cat([bench.model(x[start : start + most]) for start in range(0, len(x), most)]).numpy()
    ends = np.cumsum([len(rows) for rows in silos])
    parts = np.split(outputs, ends[:-1])
    return [ScoredAhead(task, model, rows, part) for rows, part in zip(silos, parts, strict=True)]


def _most(task: Task) -> int:
    return max(1, MOST_PIXELS // task.features) if getattr(task, "model", "") == "cnn" else MOST_ROWS


def _real(task: Task, arrays: Mapping[str, np.ndarray]) -> Workbench:
    bench = Workbench(task)
    bench.load(arrays)
    return bench
