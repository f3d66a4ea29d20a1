"""The sum of the rows' clipped gradients: from what the layers saw, kept row by row, or of rows passed alone.

Every way a row's part of the sum is bounded by its own norm, taken in float64 from *the very numbers that are summed*:
a server that chooses the model can make one and the same gradient come out differently in two passes, or underflow
where its square is taken in float32. A row whose gradient is not finite adds nothing and is counted.

That rows which are passed together have no say in one another's gradients holds up to the rounding of float32 passes,
which such a server can make the most of; only rows passed alone are free of it, see :mod:`quire.clients.private.alone`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from quire.clients.private.alone import ChainAlone, alone
from quire.clients.private.bookkeeping import BookKept, factors_of, keeps_books
from quire.clients.private.independence import Trial, try_out
from quire.clients.private.layer_rules import NoRule
from quire.errors import SettingsError

Loss = Callable[[Tensor, Tensor], Tensor]

_CELLS = 2_000_000  # numbers in a block of gradients kept row by row: they fit a cache, which is twice as fast
_HELD = 16_000_000  # numbers between the layers in a block
_BLOCK = 256  # rows


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


class RowGradients(Protocol):
    """The gradients of a block of rows, in whatever form they are kept."""

    def norms(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """Return the norm of each row's gradient, float64 of shape (n,), and the summed loss; keep what is needed."""

    def weighted(self, factors: Tensor) -> np.ndarray:
        """Return the sum of the rows' gradients times their factors, float64, of the block that norms were taken of."""


class ClippedGradients:
    """Clips gradients row by row and adds them up.

    Parameters
    ----------
    model : torch.nn.Module
        From now on for private training only (scoring without gradients is not touched). Its parameters are
        overwritten: they are loaded before each use.
    loss : callable
        From outputs and labels to the mean loss of a batch.
    features : int
        Features of a row.
    classes : int
        0 where a number is learned.
    method : str
        ``hooks``: gradients kept row by row (Goodfellow 2015, arXiv 1510.01799), by Opacus' ``GradSampleModule``.
        ``ghost``: their norms without them, from each layer's inputs and output gradients (Li et al. 2022, arXiv
        2110.05679, section 4), and the sum from the same (Bu et al. 2022, arXiv 2210.00038: book-keeping), for
        models of layers that :mod:`quire.clients.private.layer_rules` knows, each used once. ``auto``: ghost where the
        model allows it, and else hooks.
        ``rows``: every row passed alone, so that what it adds depends on no other; slower.

    Raises
    ------
    SettingsError
        If the model mixes the rows of a batch, draws random numbers, or uses a parameter that has no rule.
    """

    def __init__(self, model: nn.Module, loss: Loss, features: int, classes: int, method: str = "auto") -> None:
        _none_frozen(model)
        books = method in ("auto", "ghost") and keeps_books(model)
        if method == "ghost" and not books:
            raise SettingsError(
                "privacy.gradients=ghost has rules for dense layers, convolutions, GroupNorm, LayerNorm and "
                "embeddings, each with parameters of its own, and this model has others: take "
                "privacy.gradients=hooks."
            )
        self._size = sum(parameter.numel() for parameter in model.parameters())
        model.train()
        check_layers(model)
        trial = try_out(model, loss, features, classes)
        kept = _book_kept(model, loss, trial, must=method == "ghost") if books else None
        self.ghost = kept is not None
        self._rows: RowGradients
        if kept is not None:
            self._rows = kept
            self._block = max(1, min(_BLOCK, _CELLS // max(kept.cells, 1), _HELD // max(kept.held, 1)))
            return
        self._rows = alone(model, loss, features) if method == "rows" else KeptGradients(model, loss)
        small = isinstance(self._rows, ChainAlone)  # keeps no gradient of a row
        self._block = _BLOCK if small else max(1, min(_BLOCK, _CELLS // self._size))
        trial.hold(self._rows)

    def sum(self, x: Tensor, y: Tensor, clip: float) -> ClippedSum:
        """Return the sum of the rows' gradients, each clipped to an L2 norm of at most ``clip``.

        Parameters
        ----------
        x : Tensor of float32, shape (n, ...)
            Any number of rows; none gives zero.
        y : Tensor, shape (n,)
        clip : float
        """
        if len(y) <= self._block:
            return self._sum_block(x, y, clip)
        total, clipped, broken, loss = np.zeros(self._size), 0, 0, 0.0
        for start in range(0, len(y), self._block):
            part = self._sum_block(x[start : start + self._block], y[start : start + self._block], clip)
            total += part.total
            clipped, broken, loss = clipped + part.clipped, broken + part.broken, loss + part.loss
        return ClippedSum(total, clipped, broken, loss)

    def _sum_block(self, x: Tensor, y: Tensor, clip: float) -> ClippedSum:
        if len(y) == 0:
            return ClippedSum(np.zeros(self._size))
        try:
            norms, loss = self._rows.norms(x, y)
        except NoRule as error:
            raise SettingsError(
                f"The model does otherwise with these rows than it did when it was tried out ({error}): take "
                "privacy.gradients=hooks."
            ) from None
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            rest = self._sum_block(x[finite], y[finite], clip)  # anew: nothing times NaN is NaN
            return ClippedSum(rest.total, rest.clipped, rest.broken + int((~finite).sum()), rest.loss)
        return ClippedSum(self._rows.weighted(factors_of(norms, clip)), int((norms > clip).sum()), 0, loss)


class KeptGradients:
    """Each row's gradient, kept: what Opacus' hooks leave at the parameters.

    Parameters
    ----------
    model : torch.nn.Module
        Gets Opacus' hooks.
    loss : callable
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        from opacus.grad_sample import GradSampleModule

        # True and harmless: rows of data need no gradient themselves.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        self._loss = loss
        self._parameters = list(model.parameters())
        self._wrapped = GradSampleModule(model, loss_reduction="sum", strict=False)
        self._kept: list[Tensor] = []

    def norms(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """Return the norms of the rows' gradients, in float64 of the float32 numbers that are summed."""
        outputs = self._wrapped(x)
        loss = self._loss(outputs, y) * len(y)
        loss.backward()  # type: ignore[no-untyped-call]
        found = [getattr(parameter, "grad_sample", None) for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
        if any(not isinstance(part, Tensor) for part in found):
            raise SettingsError("The model has a parameter that no layer uses by itself: it has no gradient of a row.")
        self._kept = [part.detach() for part in found if isinstance(part, Tensor)]
        if any(len(part) != len(y) for part in self._kept):
            raise SettingsError("The model shows a layer something else than rows: it has no gradient of a row.")
        norms = torch.stack([part.double().flatten(1).norm(2, dim=1) for part in self._kept]).norm(2, dim=0)
        return norms, float(loss.detach())

    def weighted(self, factors: Tensor) -> np.ndarray:
        """Return the weighted sum of the kept gradients."""
        sums = [torch.tensordot(factors, part.double(), 1).reshape(-1) for part in self._kept]
        return np.concatenate([part.cpu().numpy() for part in sums])


def _book_kept(model: nn.Module, loss: Loss, trial: Trial, must: bool) -> BookKept | None:
    """Return what keeps books on a model, or None if it uses its layers in a way that there is no rule for."""
    kept = BookKept(model, loss)
    try:
        trial.hold(kept)
    except (NoRule, SettingsError) as error:
        kept.close()
        if must:
            raise SettingsError(
                f"privacy.gradients=ghost does not serve this model ({error}): take privacy.gradients=hooks."
            ) from None
        return None
    return kept


def _none_frozen(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise SettingsError(
                f"The model's parameter '{name}' is frozen: under privacy=record it would get noise and nothing else; "
                "make it a constant of the code."
            )


def check_layers(model: nn.Module) -> None:
    """Refuse a layer that has no gradient of a single record, with the usual way out.

    Raises
    ------
    SettingsError
    """
    if keeps_books(model) and not any(isinstance(layer, nn.modules.batchnorm._NormBase) for layer in model.modules()):
        return  # spares the import of Opacus
    from opacus.validators import ModuleValidator

    errors = ModuleValidator.validate(model, strict=False)
    if errors:
        raise SettingsError(
            f"The model cannot be trained under privacy=record: {_sentence(errors[0])}; a layer that mixes the rows of "
            "a batch, as BatchNorm does, has no gradient of a single record: GroupNorm is the usual way."
        )


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:1].lower() + text[1:].rstrip(".")
