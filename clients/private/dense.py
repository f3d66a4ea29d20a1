"""Clipped gradients of dense layers, without any row's gradient: one pass, and two products for each layer.

A row's gradient in a dense layer is the outer product of what came out wrong, g, and what went in, a. So its norm is
|g| * sqrt(|a|^2 + 1) (the 1 for the bias), and the weighted sum of all rows' gradients is one product of matrices
(Bu et al. 2022, arXiv 2210.00038, section 3). Both are taken in float64, from the same g and a.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from quire.errors import SettingsError

Loss = Callable[[Tensor, Tensor], Tensor]


def is_dense(model: nn.Module) -> bool:
    """Tell whether all parameters are weights and biases of dense layers, none shared between two."""
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
    own = [parameter for layer in layers for parameter in layer.parameters()]
    return (
        bool(own)
        and {id(one) for one in own} == {id(one) for one in model.parameters()}
        and len(own) == len({id(one) for one in own})
    )


class DenseGradients:
    """The rows' gradients as pairs of what went into each dense layer, and how the loss moves with what came out.

    Parameters
    ----------
    model : torch.nn.Module
        For which :func:`is_dense` holds.
    loss : callable
        From outputs and labels to the mean loss of a batch.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model, self._loss = model, loss
        self._layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
        self._order = [
            (place, kind)
            for parameter in model.parameters()
            for place, layer in enumerate(self._layers)
            for kind, own in layer.named_parameters()
            if own is parameter
        ]
        self._seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._listening = False
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for layer in self._layers:
            layer.register_forward_hook(self._listen)

    def _listen(self, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if not self._listening:
            return
        if layer in self._seen or given[0].dim() != 2:
            raise SettingsError(
                "The model uses a dense layer more than once, or on more than rows of features: take "
                "privacy.gradients=hooks."
            )
        self._seen[layer] = (given[0].detach(), out)

    def norms(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """Return the norms of the rows' gradients in float64, and the summed loss."""
        self._seen, self._listening = {}, True
        try:
            loss = self._loss(self._model(x), y) * len(y)
        finally:
            self._listening = False
        if len(self._seen) != len(self._layers):
            raise SettingsError("The model has a dense layer that it does not use: it has no gradient of a row.")
        given = [self._seen[layer][0] for layer in self._layers]
        pulls = torch.autograd.grad(loss, [self._seen[layer][1] for layer in self._layers])
        self._seen = {}
        self._pairs = [(one.double(), pull.double()) for one, pull in zip(given, pulls, strict=True)]
        squares = torch.zeros(len(y), dtype=torch.float64)
        for layer, (one, pull) in zip(self._layers, self._pairs, strict=True):
            squares += pull.square().sum(1) * (one.square().sum(1) + float(layer.bias is not None))
        return squares.sqrt(), float(loss.detach())

    def weighted(self, factors: Tensor) -> np.ndarray:
        """Return the sum of the rows' gradients times their factors."""
        parts = []
        for place, kind in self._order:
            given, pull = self._pairs[place]
            scaled = pull * factors[:, None]
            parts.append((scaled.T @ given if kind == "weight" else scaled.sum(0)).reshape(-1).numpy())
        return np.concatenate(parts)
