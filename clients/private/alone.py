"""Gradients of rows that are each passed through the model alone: ``privacy.gradients=rows``.

In a pass over many rows the last bits of what comes out for one of them depend on how many there are and where it
stands: the kernels of linear algebra treat the rows that are left over beside a full tile otherwise. A server that
chooses the model can make one of those bits decide the sign of an output, so that with one record more or less the
gradients of *others* come out differently, and their sum moves by several clips. Here every row is copied to the same
place in memory and passed through the same kernels at the same shape, on one thread: what it adds is a function of the
row and the model. Rows meet in float64 sums alone, whose rounding is accounted for (``SLACK`` in
:mod:`quire.privacy.dp.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def is_chain(model: nn.Module, features: int) -> bool:
    """Tell whether a model is dense layers, one after the other, with nothing but functions between them.

    Parameters
    ----------
    model : torch.nn.Module
    features : int
        Of a row.
    """
    if type(model) is not nn.Sequential or not is_dense(model):
        return False
    layers = [layer for layer in model if type(layer) is nn.Linear]
    others = [layer for layer in model if type(layer) is not nn.Linear]
    # A layer in two places has an input in each; is_dense has seen to weights that two layers share.
    if len({id(layer) for layer in layers}) < len(layers) or any(list(layer.parameters()) for layer in others):
        return False
    with torch.no_grad():
        seen = torch.zeros(1, features)
        for layer in model:
            if type(layer) is nn.Linear and seen.shape != (1, layer.in_features):
                return False
            seen = layer(seen)
    return True


class _Alone:
    """Passes one row after the other through one place.

    Parameters
    ----------
    loss : callable
        From outputs and labels to the mean loss of a batch, here of one row.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._x, self._y = torch.empty(0), torch.empty(0)

    def norms(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """Return the norms of the rows' gradients in float64, each taken alone, and the summed loss."""
        if (self._x.shape[1:], self._x.dtype, self._y.dtype) != (x.shape[1:], x.dtype, y.dtype):
            self._x, self._y = torch.empty_like(x[:1]), torch.empty_like(y[:1])
        norms, total = np.zeros(len(y)), 0.0
        self._begin(len(y))
        with _one_thread():
            for row, (one, label) in enumerate(zip(torch.split(x, 1), torch.split(y, 1), strict=True)):
                self._x.copy_(one)
                self._y.copy_(label)
                norms[row], loss = self._pass(row)
                total += loss
        return torch.from_numpy(norms), total

    def _begin(self, rows: int) -> None:
        """Make room for so many rows."""
        raise NotImplementedError

    def _pass(self, row: int) -> tuple[float, float]:
        """Keep what is needed of the row that lies there; return its norm and loss."""
        raise NotImplementedError


class ChainAlone(_Alone):
    """Rows alone through dense layers: of each layer what went in, and how the loss moves with what came out.

    Parameters
    ----------
    model : torch.nn.Module
        For which :func:`is_chain` holds.
    loss : callable
    """

    def __init__(self, model: nn.Sequential, loss: Loss) -> None:
        super().__init__(loss)
        self._chain = list(model)
        layers = [layer for layer in self._chain if type(layer) is nn.Linear]
        sizes = [(layer.in_features, layer.out_features) for layer in layers]
        self._biased = [layer.bias is not None for layer in layers]
        self._alone = [(_room(given), _room(pull)) for given, pull in sizes]
        self._pairs = [(_room(0, given), _room(0, pull)) for given, pull in sizes]
        self._rows = 0

    def _begin(self, rows: int) -> None:
        self._rows = rows
        if len(self._pairs[0][0]) < rows:
            self._pairs = [(_room(rows, given.shape[1]), _room(rows, pull.shape[1])) for given, pull in self._pairs]

    def _pass(self, row: int) -> tuple[float, float]:
        given: list[Tensor] = []
        out: list[Tensor] = []
        seen = self._x
        for layer in self._chain:
            if type(layer) is nn.Linear:
                given.append(seen)
                bias = None if layer.bias is None else layer.bias.detach()
                seen = nn.functional.linear(seen, layer.weight.detach(), bias)
                if not out:
                    seen.requires_grad_()  # nothing before it has a gradient that is asked for
                out.append(seen)
            else:
                seen = layer(seen)
        loss = self._loss(seen, self._y)
        pulls = torch.autograd.grad(loss, out)
        square = 0.0
        for place, (one, pull) in enumerate(zip(given, pulls, strict=True)):
            went_in, came_out = self._alone[place]
            went_in.copy_(one.detach()[0])
            came_out.copy_(pull[0])
            square += float(came_out @ came_out) * (float(went_in @ went_in) + self._biased[place])
            self._pairs[place][0][row], self._pairs[place][1][row] = went_in, came_out
        return square**0.5, loss.item()

    def weighted(self, factors: Tensor) -> np.ndarray:
        """Return the sum of the rows' gradients times their factors, float64."""
        parts = []
        for (given, pull), biased in zip(self._pairs, self._biased, strict=True):
            scaled = pull[: self._rows] * factors[:, None]
            parts.append((scaled.T @ given[: self._rows]).reshape(-1))
            if biased:
                parts.append(scaled.sum(0))
        return torch.cat(parts).numpy()


class PlainAlone(_Alone):
    """Rows alone through any model, by plain autograd: each row's gradient is kept.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__(loss)
        self._model, self._parameters = model, list(model.parameters())
        self._alone = _room(sum(parameter.numel() for parameter in self._parameters))
        self._kept = _room(0, len(self._alone))
        self._rows = 0

    def _begin(self, rows: int) -> None:
        self._rows = rows
        if len(self._kept) < rows:
            self._kept = _room(rows, len(self._alone))

    def _pass(self, row: int) -> tuple[float, float]:
        loss = self._loss(self._model(self._x), self._y)
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        start = 0
        for part in found:
            if part is None:
                raise SettingsError("The model has a parameter that it does not use: it has no gradient of a row.")
            self._alone[start : start + part.numel()] = part.reshape(-1)
            start += part.numel()
        self._kept[row] = self._alone
        return float(self._alone @ self._alone) ** 0.5, loss.item()

    def weighted(self, factors: Tensor) -> np.ndarray:
        """Return the sum of the rows' gradients times their factors, float64."""
        return np.asarray((factors @ self._kept[: self._rows]).numpy())


def alone(model: nn.Module, loss: Loss, features: int) -> ChainAlone | PlainAlone:
    """Return what passes rows alone through a model, in the cheaper of two ways.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
    features : int
        Of a row.
    """
    if isinstance(model, nn.Sequential) and is_chain(model, features):
        return ChainAlone(model, loss)
    return PlainAlone(model, loss)


def _room(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let no sum be split among threads, of which there may be more or fewer the next time."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
