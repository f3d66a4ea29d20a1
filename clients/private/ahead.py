"""A simulated silo's private training, done ahead together with that of others; see :mod:`quire.clients.ahead`.

Nothing is spared but the passes through the model. The silo's app makes its own plan, is refused or let in as ever, and
opens its own source of batches and noise. Only if that source is the one that was drawn from ahead, not drawn from yet,
does the app get what was worked out; its source then stands where the other one stands, so that nothing that was drawn
is ever drawn again. Asked for anything else it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quire.clients.ahead import same
from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.private.plan import Plan
from quire.clients.private.sgd import PrivateBench, Steps
from quire.clients.private.stacked import PrivateOutcome, PrivateSilo, train_stacked_privately
from quire.clients.tasks.base import Task
from quire.clients.training import Workbench
from quire.conf.schema import SgdTraining
from quire.privacy.csprng import Csprng


class PrivateAhead(PrivateBench):
    """A private workbench whose training is done.

    Parameters
    ----------
    task : Task
    method : str
        Of the settings; see :class:`quire.clients.private.gradients.ClippedGradients`.
    model : mapping of str to numpy.ndarray
        What was trained.
    training : SgdTraining
    mu : float
    silo : PrivateSilo
    outcome : PrivateOutcome
    """

    def __init__(
        self,
        task: Task,
        method: str,
        model: Mapping[str, np.ndarray],
        training: SgdTraining,
        mu: float,
        silo: PrivateSilo,
        outcome: PrivateOutcome,
    ) -> None:
        self.task, self.method = task, method
        self.bench = _Moved(task, model, outcome.update)
        self._model, self._training, self._mu, self._silo, self._outcome = model, training, mu, silo, outcome

    def train(self, rows: Rows, plan: Plan, training: SgdTraining, source: Csprng, mu: float = 0.0) -> Steps:
        """Return what training came to, if it is the training that was done ahead; else train now."""
        bench = self.bench
        if (
            isinstance(bench, _Moved)
            and not bench.done
            and rows is self._silo.rows
            and (plan, training, mu) == (self._silo.plan, self._training, self._mu)
            and same(bench.loaded, self._model)
            and source.take_over(self._silo.source)
        ):
            bench.done = True
            return self._outcome.steps
        if isinstance(bench, _Moved):
            stands = bench.arrays()
            self.bench = Workbench(self.task)
            PrivateBench.__init__(self, self.bench, self.method)  # tries the model out, and writes to it
            self.bench.load(stands)
        return PrivateBench.train(self, rows, plan, training, source, mu)


class _Moved(Workbench):
    """A workbench that stands where it was loaded, and once training is done, where that led."""

    def __init__(self, task: Task, model: Mapping[str, np.ndarray], update: Arrays) -> None:
        self.task, self._start, self._update = task, model, update
        self.loaded: Mapping[str, np.ndarray] = {}
        self.done = False

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take parameters in."""
        self.loaded, self.done = arrays, False

    def arrays(self) -> Arrays:
        """Return the parameters."""
        return {name: part + self._update[name] if self.done else part.copy() for name, part in self.loaded.items()}

    def difference(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return model minus ``arrays``."""
        if self.done and same(arrays, self._start):
            return self._update
        return {name: part - arrays[name] for name, part in self.arrays().items()}


def train_privately_ahead(
    task: Task,
    method: str,
    model: Mapping[str, np.ndarray],
    training: SgdTraining,
    mu: float,
    silos: Sequence[PrivateSilo],
) -> list[PrivateAhead]:
    """Train several silos together; see :func:`quire.clients.private.stacked.train_stacked_privately`."""
    outcomes = train_stacked_privately(task, model, silos, training, mu)
    return [
        PrivateAhead(task, method, model, training, mu, silo, outcome)
        for silo, outcome in zip(silos, outcomes, strict=True)
    ]
