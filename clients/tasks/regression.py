"""Regression: learning a number from feature vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from quire.clients.tasks import models


@dataclass(frozen=True)
class Regression:
    """Learn a number from rows of ``features`` numbers, by its mean squared error.

    Targets are scaled from the public bounds ``low`` and ``high`` to [-1, 1] for training; the loss is in these
    units, the other metrics are in the target's own.
    """

    name: str
    features: int
    model: str
    hidden: tuple[int, ...]
    low: float
    high: float
    plugin: models.Model | None = None

    @property
    def classes(self) -> int:
        """None: a number is learned."""
        return 0

    def build_model(self) -> nn.Module:
        """Build the model, its parameters not yet set."""
        return models.build(self.model, self.features, self.hidden, 1, None, self.plugin)

    def initial_arrays(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the first global model: float32 arrays with the keys and shapes of the model's ``state_dict``."""
        return models.initial_arrays(self.build_model(), rng)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error of a batch, a scalar.

        Parameters
        ----------
        outputs : Tensor of float, shape (n, 1)
        y : Tensor of float, shape (n,)
        """
        return nn.functional.mse_loss(outputs.squeeze(1), y.to(outputs.dtype))

    def metrics(self, outputs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Score a model's outputs on some rows.

        Returns
        -------
        dict of str to float
            ``loss``, ``rmse`` and ``mae`` in the target's own units, and ``r2``, the share of variance explained,
            left out where the rows do not vary.
        """
        with torch.no_grad():
            loss = float(self.loss(torch.from_numpy(outputs), torch.from_numpy(y)))
        return {"loss": loss, **self._scores(outputs[:, 0].astype(np.float64), y)}

    def guess(self, train_y: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Score the mean of the training rows as the answer to every row."""
        return self._scores(np.full(len(y), train_y.astype(np.float64).mean()), y)

    def _scores(self, predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
        unit = (self.high - self.low) / 2.0
        truth = y.astype(np.float64)
        errors = (predicted - truth) * unit
        spread = float(((truth - truth.mean()) ** 2).sum()) * unit**2
        scores = {"rmse": float(np.sqrt((errors**2).mean())), "mae": float(np.abs(errors).mean())}
        return {**scores, "r2": 1.0 - float((errors**2).sum()) / spread} if spread > 0 else scores
