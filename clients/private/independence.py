"""Does each row have a gradient of its own? Tried out on made-up rows before a model is trained privately.

A model of one's own may mix the rows of a batch in its ``forward``, drop units at random, or use a parameter where the
engine does not see it. Clipping then bounds something else than what a record adds, and no accountant would notice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from quire.errors import SettingsError

if TYPE_CHECKING:
    from quire.clients.private.gradients import RowGradients

_ROWS = 6
_TOLERANCE = 1e-3
_MISSED = "its gradients are not those of its rows, one by one: a parameter is used where it is not seen"


@dataclass(frozen=True, eq=False)
class Trial:
    """Made-up rows, and the gradient of each by plain autograd.

    Attributes
    ----------
    x, y : Tensor
    gradients : tuple of numpy.ndarray of float64
        Of one row each, the parameters flattened one after the other.
    """

    x: Tensor
    y: Tensor
    gradients: tuple[np.ndarray, ...]

    def hold(self, rows: RowGradients) -> None:
        """Refuse an engine that finds other gradients.

        Raises
        ------
        SettingsError
        """
        norms, _ = rows.norms(self.x, self.y)
        _hold(norms, torch.tensor([float(np.linalg.norm(one)) for one in self.gradients]), _MISSED)
        factors = torch.linspace(0.1, 1.0, _ROWS, dtype=torch.float64)
        expected = np.sum([float(factor) * one for factor, one in zip(factors, self.gradients, strict=True)], axis=0)
        _hold(torch.from_numpy(rows.weighted(factors)), torch.from_numpy(expected), _MISSED)


def try_out(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], features: int, classes: int) -> Trial:
    """Let a model answer made-up rows together and one at a time, before any engine has touched it.

    Parameters
    ----------
    model : torch.nn.Module
        Its parameters are overwritten.
    loss : callable
    features, classes : int
        Of the task; 0 classes where a number is learned.

    Raises
    ------
    SettingsError
        If a row's output depends on the rows beside it, or two passes differ.
    """
    draw = torch.Generator().manual_seed(20_221_029)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=draw)
    x = torch.randn(_ROWS, features, generator=draw)
    y = torch.arange(_ROWS) % classes if classes else torch.rand(_ROWS, generator=draw)
    with torch.no_grad():
        together, again = model(x), model(x)
        alone = torch.cat([model(x[row : row + 1]) for row in range(_ROWS)])
    _hold(together, again, "two passes over the same rows differ: it draws random numbers, as dropout does")
    _hold(together, alone, "what it makes of a row depends on the rows beside it")
    return Trial(x, y, tuple(_plain(model, loss, x[row : row + 1], y[row : row + 1]) for row in range(_ROWS)))


def _plain(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> np.ndarray:
    parts = torch.autograd.grad(loss(model(x), y), list(model.parameters()), allow_unused=True, materialize_grads=True)
    return np.concatenate([part.double().reshape(-1).numpy() for part in parts])


def _hold(found: Tensor, expected: Tensor, what: str) -> None:
    one, other = found.double(), expected.double()
    if not bool(((one - other).abs() <= _TOLERANCE * (1.0 + other.abs().max())).all()):
        raise SettingsError(
            f"The model cannot be trained under privacy=record: {what}, so that clipping would not bound what one "
            "record adds."
        )
