"""Classification of feature vectors and images: model, loss, metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from quire.clients.tasks import models


@dataclass(frozen=True)
class Classification:
    """Tell rows of ``features`` numbers apart into ``classes`` classes.

    Two classes are told apart by one logit (logistic regression and its deeper kin), more by one logit each. The rows
    of images are flattened; ``image`` gives their channels, height and width.
    """

    name: str
    features: int
    classes: int
    model: str
    hidden: tuple[int, ...]
    image: models.ImageForm | None = None
    plugin: models.Model | None = None

    def build_model(self) -> nn.Module:
        """Build the model, its parameters not yet set."""
        outputs = 1 if self.classes == 2 else self.classes
        return models.build(self.model, self.features, self.hidden, outputs, self.image, self.plugin)

    def initial_arrays(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw the first global model.

        Returns
        -------
        dict of str to numpy.ndarray of float32
            Keys and shapes of the model's ``state_dict``.
        """
        return models.initial_arrays(self.build_model(), rng)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch, a scalar.

        Parameters
        ----------
        logits : Tensor of float, shape (n, 1) for two classes, else (n, classes)
        y : Tensor of int64, shape (n,)
        """
        if self.classes == 2:
            return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), y.to(logits.dtype))
        return nn.functional.cross_entropy(logits, y)

    def predict(self, logits: np.ndarray) -> np.ndarray:
        """Return the likeliest class of each row, int64 of shape (n,)."""
        if self.classes == 2:
            return (logits[:, 0] > 0).astype(np.int64)
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def metrics(self, logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Score a model's logits on some rows.

        Returns
        -------
        dict of str to float
            ``loss``, ``accuracy``, ``balanced_accuracy`` (mean recall over the classes that occur), and for two
            classes ``auc``, left out where only one class occurs and it is not defined.
        """
        with torch.no_grad():
            loss = float(self.loss(torch.from_numpy(logits), torch.from_numpy(y)))
        return {"loss": loss, **label_metrics(self.predict(logits), y), **self._auc(logits, y)}

    def guess(self, train_y: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Score the most frequent class of the training rows as the answer to every row."""
        return label_metrics(np.full_like(y, int(np.bincount(train_y).argmax())), y)

    def _auc(self, logits: np.ndarray, y: np.ndarray) -> dict[str, float]:
        if self.classes != 2 or len(np.unique(y)) < 2:
            return {}
        from sklearn.metrics import roc_auc_score

        return {"auc": float(roc_auc_score(y, logits[:, 0]))}


def label_metrics(predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return ``accuracy`` and ``balanced_accuracy`` of predicted labels.

    Parameters
    ----------
    predicted, y : numpy.ndarray of int64, shape (n,)
    """
    hits = predicted == y
    rows = np.bincount(y)
    found = np.bincount(y, weights=hits)  # whole numbers, exactly
    return {"accuracy": float(hits.mean()), "balanced_accuracy": float(np.mean(found[rows > 0] / rows[rows > 0]))}
