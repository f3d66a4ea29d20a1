"""The sum of the rows' clipped gradients, by Opacus: from gradients kept row by row, or by ghost clipping.

Sums run in float64 over blocks of rows. A row whose gradient is not finite adds nothing and is counted: no value of
a record may spread over the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from quire.errors import SettingsError

Loss = Callable[[Tensor, Tensor], Tensor]

_GHOST_BLOCK = 64  # rows
_HOOKS_CELLS = 32_000_000  # numbers in a block of gradients kept row by row
_HOOKS_BLOCK = 256  # rows
#: Ghost clipping adds a block's gradients in float32. Over 64 rows that errs by at most 64 * 2^-24 of the sum of their
#: norms, twice for two neighbouring batches: 2 * 64^2 * 2^-24 < 2^-10 clips. It clips to so much less.
GHOST_SLACK = 2.0**-10


@dataclass(frozen=True, eq=False)
class ClippedSum:
    """What one batch gives.

    Attributes
    ----------
    total : numpy.ndarray of float64, shape (parameters,)
        Sum of the clipped gradients, the model's parameters flattened one after the other.
    clipped : int
        Rows whose gradient was longer than the clip.
    broken : int
        Rows whose gradient was not finite. They add zero.
    loss : float
        Summed loss of the other rows. Never leaves a silo under differential privacy.
    """

    total: np.ndarray
    clipped: int = 0
    broken: int = 0
    loss: float = 0.0


class ClippedGradients:
    """Clips gradients row by row and adds them up.

    Parameters
    ----------
    model : torch.nn.Module
        Gets Opacus' hooks: from now on it is for private training only (scoring without gradients is not touched).
    loss : callable
        From outputs and labels to the mean loss of a batch. The loss of a row must depend on that row alone.
    method : str
        ``hooks``: per-sample gradients (Goodfellow 2015, arXiv 1510.01799; Opacus' ``GradSampleModule``), ``ghost``:
        their norms without them (Li et al. 2022, arXiv 2110.05679, section 4), ``auto``: ghost clipping where Opacus
        has a norm for every layer.

    Raises
    ------
    SettingsError
        If there is a layer that mixes the rows of a batch, or ``ghost`` has no rule for a layer.
    """

    def __init__(self, model: nn.Module, loss: Loss, method: str = "auto") -> None:
        from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
        from opacus.validators import ModuleValidator

        errors = ModuleValidator.validate(model, strict=False)
        if errors:
            raise SettingsError(
                f"The model cannot be trained under privacy=record: {_sentence(errors[0])}; a layer that mixes the "
                "rows of a batch, as BatchNorm does, has no gradient of a single record: GroupNorm is the usual way."
            )
        unruled = [
            type(layer).__name__
            for layer in model.modules()
            if any(True for _ in layer.parameters(recurse=False))
            and type(layer) not in GradSampleModuleFastGradientClipping.NORM_SAMPLERS
        ]
        if method == "ghost" and unruled:
            raise SettingsError(
                f"privacy.gradients=ghost has no rule for the layer {unruled[0]}: take privacy.gradients=hooks."
            )
        self.ghost = method == "ghost" or (method == "auto" and not unruled)
        self._model, self._loss = model, loss
        self._parameters = list(model.parameters())
        self._size = sum(parameter.numel() for parameter in self._parameters)
        model.train()
        # True and harmless: rows of data need no gradient themselves.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        self._wrapped = (
            GradSampleModuleFastGradientClipping(model, loss_reduction="sum", strict=False)
            if self.ghost
            else GradSampleModule(model, loss_reduction="sum", strict=False)
        )
        self._block = _GHOST_BLOCK if self.ghost else max(1, min(_HOOKS_BLOCK, _HOOKS_CELLS // self._size))

    def sum(self, x: Tensor, y: Tensor, clip: float) -> ClippedSum:
        """Return the sum of the rows' gradients, each clipped to an L2 norm of at most ``clip``.

        Parameters
        ----------
        x : Tensor of float32, shape (n, ...)
            Any number of rows; none gives zero.
        y : Tensor, shape (n,)
        clip : float
        """
        total, clipped, broken, loss = np.zeros(self._size), 0, 0, 0.0
        for start in range(0, len(y), self._block):
            part = self._sum_block(x[start : start + self._block], y[start : start + self._block], clip)
            total += part.total
            clipped, broken, loss = clipped + part.clipped, broken + part.broken, loss + part.loss
        return ClippedSum(total, clipped, broken, loss)

    def _sum_block(self, x: Tensor, y: Tensor, clip: float) -> ClippedSum:
        if len(y) == 0:
            return ClippedSum(np.zeros(self._size))
        outputs, pulls, loss = self._forward(x, y)
        norms, kept = self._norms(outputs, pulls)
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            rest = self._sum_block(x[finite], y[finite], clip)  # anew: nothing times NaN is NaN
            return ClippedSum(rest.total, rest.clipped, rest.broken + int((~finite).sum()), rest.loss)
        clipped = int((norms > clip).sum())
        if self.ghost:
            factors = torch.clamp(clip * (1.0 - GHOST_SLACK) / norms.clamp(min=1e-300), max=1.0)
            total = self._weighted(x, y, factors)
        else:
            factors = torch.clamp(clip / norms.clamp(min=1e-300), max=1.0)
            total = np.concatenate(
                [torch.tensordot(factors, gradient.double(), 1).reshape(-1).numpy() for gradient in kept]
            )
        return ClippedSum(total, clipped, 0, loss)

    def _forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return the outputs, the gradient of the summed loss by them, and the summed loss."""
        outputs = self._wrapped(x)
        loss = self._loss(outputs, y) * len(y)
        (pulls,) = torch.autograd.grad(loss, outputs, retain_graph=True)
        return outputs, pulls, float(loss.detach())

    def _norms(self, outputs: Tensor, pulls: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the norm of each row's gradient in float64, and the gradients where they are kept."""
        outputs.backward(pulls)  # type: ignore[no-untyped-call]
        kept: list[Tensor] = []
        if self.ghost:
            parts = [parameter._norm_sample.double() for parameter in self._parameters]  # type: ignore[attr-defined]
            norms = torch.stack(parts).norm(2, dim=0)
        else:
            kept = [parameter.grad_sample for parameter in self._parameters]  # type: ignore[attr-defined]
            norms = torch.stack([part.double().flatten(1).norm(2, dim=1) for part in kept]).norm(2, dim=0)
        for parameter in self._parameters:
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
        return norms, kept

    def _weighted(self, x: Tensor, y: Tensor, factors: Tensor) -> np.ndarray:
        """Return the sum of the rows' gradients times their factors, by one more pass over the block."""
        self._wrapped.disable_hooks()
        try:
            outputs, pulls, _ = self._forward(x, y)
            weights = factors.to(pulls.dtype).reshape(-1, *[1] * (pulls.dim() - 1))
            gradients = torch.autograd.grad(outputs, self._parameters, pulls * weights)
        finally:
            self._wrapped.enable_hooks()
        return np.concatenate([gradient.double().reshape(-1).numpy() for gradient in gradients])


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:1].lower() + text[1:].rstrip(".")
