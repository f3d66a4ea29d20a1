"""What every task offers to training, to the server and to the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from quire.clients.tasks.schema import Schema
from quire.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Task(Protocol):
    """What is learned: model, loss, metrics. Equal tasks compare equal and hash equal."""

    @property
    def name(self) -> str:
        """The task's name in the settings."""

    @property
    def features(self) -> int:
        """Features of a row."""

    @property
    def classes(self) -> int:
        """Number of classes; 0 where a number is learned."""

    def __hash__(self) -> int:
        """Equal tasks share one model in a process."""

    def build_model(self) -> nn.Module:
        """Build the model, its parameters not yet set."""

    def initial_arrays(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the first global model, with the names and shapes of the model's ``state_dict``."""

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""

    def metrics(self, outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Score a model's outputs on some rows; always with ``loss``."""

    def guess(self, train_y: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Score the best constant answer to the training rows: what a model that learned nothing would reach."""


@dataclass(frozen=True)
class TaskPlugin:
    """A task of one's own: what a plug-in in the group ``quire.tasks`` leads to.

    Attributes
    ----------
    name : str
        Also the name of the entry point.
    make : callable
        From the agreed form of the rows and the widths in ``task.hidden`` to a :class:`Task`. It is called anew for
        each message, which is why equal tasks have to be equal; a frozen dataclass is.
    """

    name: str
    make: Callable[[Schema, tuple[int, ...]], Task]

    def task(self, schema: Schema, hidden: tuple[int, ...]) -> Task:
        """Make the task.

        Raises
        ------
        DataError
            If it cannot be made, or what is made lacks a part of a task.
        """
        try:
            task = self.make(schema, hidden)
            hash(task)
        except Exception as error:
            raise DataError(f"The plug-in '{self.name}' cannot make its task ({type(error).__name__}).") from error
        lacking = [part for part in _PARTS if not hasattr(task, part)]
        if lacking:
            raise DataError(f"The plug-in '{self.name}' makes something that is not a task: it has no '{lacking[0]}'.")
        return task


_PARTS = ("name", "features", "classes", "build_model", "initial_arrays", "loss", "metrics", "guess")
