"""A simulated silo's training, done ahead together with that of others: what its app finds in the workbench's place.

The app itself is not changed and none of its checks are skipped. It loads its rows, opens its generator and asks its
workbench to train, as ever; a :class:`DoneAhead` answers from what :mod:`quire.clients.stacked` worked out, if it is
asked for exactly that: the same rows, model, plan and place in the random stream. Asked for anything else it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.stacked import Outcome, train_stacked
from quire.clients.tasks.base import Task
from quire.clients.training import Workbench
from quire.conf.schema import SgdTraining


@dataclass(frozen=True, eq=False)
class Asked:
    """What a silo is about to ask its workbench for.

    Attributes
    ----------
    rows : Rows
        The very object that the silo will train on.
    rng : numpy.random.Generator
        Where its own will stand.
    correction : mapping of str to numpy.ndarray or None
        SCAFFOLD's.
    """

    rows: Rows
    rng: np.random.Generator
    correction: Mapping[str, np.ndarray] | None = None
    state: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", dict(self.rng.bit_generator.state))


class DoneAhead(Workbench):
    """A workbench whose training is done.

    Parameters
    ----------
    task : Task
    model : mapping of str to numpy.ndarray
        What was trained.
    plan : SgdTraining
    mu : float
    asked : Asked
    outcome : Outcome
    """

    def __init__(
        self, task: Task, model: Mapping[str, np.ndarray], plan: SgdTraining, mu: float, asked: Asked, outcome: Outcome
    ) -> None:
        self.task = task
        self._start, self._plan, self._mu, self._asked, self._outcome = model, plan, mu, asked, outcome
        self._loaded: Mapping[str, np.ndarray] = {}
        self._real: Workbench | None = None
        self._done = False

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take parameters in; see :meth:`quire.clients.training.Workbench.load`."""
        self._loaded, self._done, self._real = arrays, False, None
        if not same(arrays, self._start):
            self._turn_back()

    def train(
        self,
        rows: Rows,
        plan: SgdTraining,
        rng: np.random.Generator,
        mu: float = 0.0,
        correction: Mapping[str, np.ndarray] | None = None,
    ) -> float:
        """Return what training came to, if it is the training that was done ahead; else train now."""
        asked = self._asked
        foreseen = (
            self._real is None
            and not self._done
            and rows is asked.rows
            and (plan, mu) == (self._plan, self._mu)
            and rng.bit_generator.state == asked.state
            and same(correction or {}, asked.correction or {})
        )
        if not foreseen:
            return self._turn_back().train(rows, plan, rng, mu, correction)
        self._done = True
        rng.bit_generator.state = asked.rng.bit_generator.state  # what was drawn ahead is drawn
        return self._outcome.loss

    def difference(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return model minus ``arrays``."""
        if self._real is None and self._done and same(arrays, self._start):
            return self._outcome.update
        return self._turn_back().difference(arrays)

    def logits(self, rows: Rows) -> np.ndarray:
        """Return the outputs of the model that was loaded, or trained; what is done ahead stays done."""
        return (self._real or self._fresh()).logits(rows)

    def _turn_back(self) -> Workbench:
        """Go on with a real workbench."""
        if self._real is None:
            self._real = self._fresh()
        return self._real

    def _fresh(self) -> Workbench:
        """Return a new workbench, which stands where this one does."""
        bench, moved = Workbench(self.task), self._outcome.update if self._done else {}
        bench.load({name: part + moved[name] if moved else part for name, part in self._loaded.items()})
        return bench


def train_ahead(
    task: Task, model: Mapping[str, np.ndarray], plan: SgdTraining, mu: float, silos: Sequence[Asked]
) -> list[DoneAhead]:
    """Train several silos together; see :func:`quire.clients.stacked.train_stacked`."""
    pairs = [(asked.rows, asked.rng) for asked in silos]
    given = [asked.correction for asked in silos]
    corrections = [one for one in given if one is not None]
    outcomes = train_stacked(task, model, pairs, plan, mu, corrections or None)
    return [DoneAhead(task, model, plan, mu, asked, outcome) for asked, outcome in zip(silos, outcomes, strict=True)]


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Tell whether arrays are bit for bit the same; at no cost where they lie in the same memory.

    Parameters
    ----------
    one, other : mapping of str to numpy.ndarray
    """
    if list(one) != list(other):
        return False
    return all(
        part.dtype == other[name].dtype
        and part.shape == other[name].shape
        and (part.ctypes.data == other[name].ctypes.data or part.tobytes() == other[name].tobytes())
        for name, part in one.items()
    )
