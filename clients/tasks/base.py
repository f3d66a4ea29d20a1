"""What every task offers to training, to the server and to the comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

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
