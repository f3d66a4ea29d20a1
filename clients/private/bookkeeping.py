"""Clipped gradients at nearly the price of plain ones: one pass forward, one back, and a product for each layer.

The pass forward keeps what goes into every layer that has parameters, the pass back goes to what came out of them and
no further: no gradient of a parameter is formed. Both together give each row's norm, and once norms are known, the
clipped sum is one weighted product for each layer: ghost clipping with book-keeping (Bu et al. 2022, arXiv 2210.00038,
sections 3 and 4). Products and sums are taken in float64, from the same numbers as the norms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from quire.clients.private.layer_rules import NoRule, Part, has_rule, part_of

Loss = Callable[[Tensor, Tensor], Tensor]


class _Seen(NamedTuple):
    """A layer's use: what went in, in which state, and the place in the graph where its output came out."""

    given: Tensor
    version: int
    out: GradientEdge


def keeps_books(model: nn.Module) -> bool:
    """Tell whether every parameter belongs to one layer for which there is a rule."""
    own = [parameter for layer in model.modules() for parameter in layer.parameters(recurse=False)]
    layers = [layer for layer in model.modules() if list(layer.parameters(recurse=False))]
    return bool(own) and len(own) == len({id(one) for one in own}) and all(map(has_rule, layers))


class BookKept:
    """The gradients of a block of rows, as what went into each layer and how the loss moves with what came out.

    Parameters
    ----------
    model : torch.nn.Module
        For which :func:`keeps_books` holds. It gets a hook on every layer with parameters, until :meth:`close`.
    loss : callable
        From outputs and labels to the mean loss of a batch.

    Attributes
    ----------
    cells : int
        Numbers of gradients that the last block kept for each of its rows.
    held : int
        Numbers that went into layers or came back to them, for each row.

    Raises
    ------
    NoRule
        By :meth:`norms`, if a layer is not used just once, on rows.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model, self._loss = model, loss
        # A layer that is frozen as a whole has no part in any norm, however it is used.
        self._layers = [
            layer for layer in model.modules() if any(own.requires_grad for own in layer.parameters(recurse=False))
        ]
        # Where each layer's weight and bias lie in the flat sum.
        self._spans: list[dict[str, tuple[slice, torch.Size]]] = [{} for _ in self._layers]
        self._size = 0
        for parameter in model.parameters():
            for layer, spans in zip(self._layers, self._spans, strict=True):
                for name, own in layer.named_parameters(recurse=False):
                    if own is parameter:
                        spans[name] = (slice(self._size, self._size + own.numel()), own.shape)
            self._size += parameter.numel()
        self._seen: dict[nn.Module, _Seen] = {}
        self._listening, self.cells, self.held = False, 0, 0
        self._parts: list[tuple[int, Part]] = []
        self._handles = [layer.register_forward_hook(self._listen) for layer in self._layers]
        self._frozen = any(not parameter.requires_grad for parameter in model.parameters())

    def close(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    def _listen(self, layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if not self._listening:
            return
        if layer in self._seen:
            raise NoRule("a layer is used more than once")
        if len(given) != 1:
            raise NoRule("a layer is called with something else than one tensor")
        if out.requires_grad:
            # The edge, not the tensor: a function that works in place would put its own result there.
            self._seen[layer] = _Seen(given[0].detach(), given[0]._version, get_gradient_edge(out))

    def norms(self, x: Tensor, y: Tensor, parameters: Mapping[str, Tensor] | None = None) -> tuple[Tensor, float]:
        """Return the norms of the rows' gradients in float64, and the summed loss.

        Parameters
        ----------
        x, y : Tensor
            Rows and their labels; at least one.
        parameters : mapping of str to Tensor, optional
            To be used in place of the model's own, by name.
        """
        self._parts = []  # before a pass that needs the room
        seen, loss = self._forward(x, y, parameters)
        outputs = [one.out for _, one in seen]
        pulls: tuple[Tensor | None, ...] = torch.autograd.grad(loss, outputs, allow_unused=True)
        squares, held = torch.zeros(len(y), dtype=torch.float64), 0
        for (place, one), pull in zip(seen, pulls, strict=True):
            if pull is None:  # what came out has no say in the loss
                continue
            if len(one.given) != len(y) or len(pull) != len(y):
                raise NoRule("a layer sees something else than rows")
            if one.given._version != one.version:
                raise NoRule("what went into a layer was changed in place")
            part = part_of(self._layers[place], one.given, pull)
            squares += part.squares()
            self._parts.append((place, part))
            held += one.given.numel() + pull.numel()
        self.cells, self.held = sum(part.cells for _, part in self._parts), held // len(y)
        return squares.sqrt_(), float(loss.detach())

    def weighted(self, factors: Tensor) -> np.ndarray:
        """Return the sum of the rows' gradients times their factors, float64; zero for a frozen parameter."""
        written = sum(span.stop - span.start for place, _ in self._parts for span, _ in self._spans[place].values())
        begin = torch.zeros if self._frozen or written < self._size else torch.empty
        total = begin(self._size, dtype=torch.float64)
        for place, part in self._parts:
            layer, asked = self._layers[place], {}
            for name, (span, shape) in self._spans[place].items():
                if getattr(layer, name).requires_grad:
                    asked[name] = total[span].view(shape)
            part.write(factors, asked.get("weight"), asked.get("bias"))
        return total.cpu().numpy()

    def _forward(
        self, x: Tensor, y: Tensor, parameters: Mapping[str, Tensor] | None
    ) -> tuple[list[tuple[int, _Seen]], Tensor]:
        self._seen, self._listening = {}, True
        try:
            if parameters is None:
                outputs = self._model(x)
            else:
                taken = {name: one.detach().requires_grad_() for name, one in parameters.items()}
                outputs = torch.func.functional_call(self._model, taken, (x,))
            loss = self._loss(outputs, y) * len(y)
            seen = [(place, self._seen[one]) for place, one in enumerate(self._layers) if one in self._seen]
        finally:
            self._listening, self._seen = False, {}
        if len(seen) < len(self._layers):
            raise NoRule("a layer is not used")
        return seen, loss


def factors_of(norms: Tensor, clip: float | Tensor) -> Tensor:
    """Return what rows are multiplied by so that none is longer than the clip, float64."""
    return torch.clamp(clip / norms.clamp(min=1e-300), max=1.0)


def clipped_sum(
    model: nn.Module, loss: Loss, parameters: Mapping[str, Tensor] | None, x: Tensor, y: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Return the sum of the rows' clipped gradients; nothing is kept from one call to the next.

    Parameters
    ----------
    model : torch.nn.Module
        For which :func:`keeps_books` holds. It is left as it was.
    loss : callable
        From outputs and labels to the mean loss of a batch.
    parameters : mapping of str to Tensor or None
        By the names of the model's own, which they replace; None for the model's own.
    x, y : Tensor
        Rows and labels; without rows the sum is zero.
    clip : float
        L2 norm, above 0.

    Returns
    -------
    total : Tensor of float64, shape (parameters,)
        The parameters flattened, in the model's order.
    norms : Tensor of float64, shape (rows,)
        Before clipping. A row whose norm is not finite adds zero.

    Raises
    ------
    NoRule
        If a layer is not used just once, on rows.
    """
    books = BookKept(model, loss)
    try:
        if len(y) == 0:
            size = sum(parameter.numel() for parameter in model.parameters())
            return torch.zeros(size, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        norms, _ = books.norms(x, y, parameters)
        finite = torch.isfinite(norms)
        if not bool(finite.all()):  # anew without them: nothing times NaN is NaN
            return clipped_sum(model, loss, parameters, x[finite], y[finite], clip)[0], norms
        return torch.from_numpy(books.weighted(factors_of(norms, clip))), norms
    finally:
        books.close()
