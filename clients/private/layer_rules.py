"""What each kind of layer adds to a row's gradient, from what went into it and how the loss moves with what came out.

A layer's part of a row's gradient is never formed where that can be avoided (Bu et al. 2022, arXiv 2210.00038). A
dense layer on rows of features has |g|^2 (|a|^2 + 1) as its squared norm, with a what went in, g how the loss moves
with what came out, and 1 for the bias. Where a weight is used at T places of a row (convolutions, sequences) either the
T x T inner products of places give the norm (the ghost norm of Li et al. 2022, arXiv 2110.05679), or the row's gradient
is kept: whichever takes fewer operations (mixed ghost clipping, Bu et al. 2022, arXiv 2205.10683). Normalisations and
embeddings have gradients of few numbers, which are kept.

Norms are taken in float64 from the very numbers that are summed, so that no row adds more than the clip.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

#: A ghost norm is a difference of large numbers where the places of a row cancel. So much of their sum without signs,
#: squared, is added to it: it is never too small, and where places do not cancel it moves by less than 1e-9.
_CANCELLATION = 2.0**-48


class NoRule(Exception):
    """A layer is used in a way that has no rule here; the text says which."""


class Part(Protocol):
    """One layer's part of the gradients of a block of rows."""

    #: Numbers kept for each row, beside what went in and came out.
    cells: int

    def squares(self) -> Tensor:
        """Return the squared norm of each row's part, float64 of shape (rows,)."""

    def write(self, factors: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        """Write the sum of the rows' parts times their factors into float64 arrays; None for one without gradient."""


def part_of(layer: nn.Module, given: Tensor, pull: Tensor) -> Part:
    """Return the layer's part of the gradients.

    Parameters
    ----------
    layer : torch.nn.Module
        For which :func:`has_rule` holds.
    given : Tensor
        What went in, rows first.
    pull : Tensor
        The gradient of the *summed* loss by what came out, rows first.

    Raises
    ------
    NoRule
        If the shapes are not those of rows.
    """
    weight, bias = _asked(layer)
    if isinstance(layer, nn.Linear):
        if given.dim() == 2:
            return Dense(given, pull, weight, bias)
        if given.dim() < 2:
            raise NoRule("a dense layer sees something else than rows")
        one, other = given.flatten(1, -2), pull.flatten(1, -2)
        if weight and ghostly(one.shape[1], one.shape[2], other.shape[2]):
            return Places(one, other, bias)
        kept = {"weight": torch.bmm(other.transpose(1, 2), one)} if weight else {}
        return Kept(kept | ({"bias": other.sum(1)} if bias else {}))
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if given.dim() != layer.weight.dim():
            raise NoRule("a convolution sees something else than rows")
        return _convolved(layer, given, pull, weight, bias)
    if isinstance(layer, nn.GroupNorm):
        normal = nn.functional.group_norm(given, layer.num_groups, None, None, layer.eps)
        by_channel = (*given.shape[:2], -1)  # one place each where channels are all that a row has
        return _scaled(normal.reshape(by_channel), pull.reshape(by_channel), 2, weight, bias)
    if isinstance(layer, nn.LayerNorm):
        shape = layer.normalized_shape
        normal = nn.functional.layer_norm(given, shape, None, None, layer.eps)
        places = given.dim() - len(shape)
        if places < 1:
            raise NoRule("a normalisation spans the rows")
        rows, size = len(given), math.prod(shape)
        return _scaled(normal.reshape(rows, -1, size), pull.reshape(rows, -1, size), 1, weight, bias)
    if isinstance(layer, nn.Embedding):
        return Looked(given, pull, layer.padding_idx)
    raise NoRule(f"there is no rule for {type(layer).__name__}")


def has_rule(layer: nn.Module) -> bool:
    """Tell whether a layer's parameters are served; subclasses may do something else and are not."""
    kind = type(layer)
    if not {name for name, _ in layer.named_parameters(recurse=False)} <= {"weight", "bias"}:
        return False  # a weight made of other parameters, as weight_norm leaves it
    if kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return layer.padding_mode == "zeros"
    if kind is nn.Embedding:
        return not (layer.max_norm or layer.scale_grad_by_freq or layer.sparse)
    return kind in (nn.Linear, nn.GroupNorm, nn.LayerNorm)


def _asked(layer: nn.Module) -> tuple[bool, bool]:
    found = [getattr(layer, name, None) for name in ("weight", "bias")]
    weight, bias = (isinstance(one, Tensor) and one.requires_grad for one in found)
    return weight, bias


class Dense:
    """A dense layer on rows of features.

    Parameters
    ----------
    given : Tensor, shape (rows, in)
    pull : Tensor, shape (rows, out)
    weight, bias : bool
        Whether their gradients are asked for.
    """

    cells = 0

    def __init__(self, given: Tensor, pull: Tensor, weight: bool, bias: bool) -> None:
        self._given, self._pull, self._weight, self._bias = given.double(), pull.double(), weight, bias

    def squares(self) -> Tensor:
        """See :class:`Part`."""
        pulls: Tensor = torch.linalg.vecdot(self._pull, self._pull)
        if self._weight:
            pulls *= torch.linalg.vecdot(self._given, self._given).add_(float(self._bias))
        return pulls

    def write(self, factors: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        """See :class:`Part`."""
        scaled = self._pull * factors[:, None]
        if weight is not None:
            torch.mm(scaled.T, self._given, out=weight)
        if bias is not None:
            torch.sum(scaled, 0, out=bias)


class Places:
    """A weight that is used at several places of a row, its norms taken between places.

    Parameters
    ----------
    given : Tensor, shape (rows, places, in)
    pull : Tensor, shape (rows, places, out)
    bias : bool
        Whether its gradient is asked for.
    """

    cells = 0

    def __init__(self, given: Tensor, pull: Tensor, bias: bool) -> None:
        self._given, self._pull, self._bias = given.double(), pull.double(), bias

    def squares(self) -> Tensor:
        """See :class:`Part`."""
        inner = torch.bmm(self._given, self._given.transpose(1, 2))
        if self._bias:
            inner += 1.0
        outer = torch.bmm(self._pull, self._pull.transpose(1, 2))
        lengths = (inner.diagonal(dim1=1, dim2=2) * outer.diagonal(dim1=1, dim2=2)).sqrt().sum(1)
        return (inner * outer).sum((1, 2)).clamp_(min=0.0) + _CANCELLATION * lengths.square()

    def write(self, factors: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        """See :class:`Part`."""
        scaled = (self._pull * factors[:, None, None]).flatten(0, 1)
        if weight is not None:
            weight.copy_((scaled.T @ self._given.flatten(0, 1)).view_as(weight))
        if bias is not None:
            torch.sum(scaled, 0, out=bias)


class Kept:
    """The rows' gradients, kept.

    Parameters
    ----------
    kept : dict of str to Tensor
        Of ``weight`` and ``bias``, rows first.
    """

    def __init__(self, kept: dict[str, Tensor]) -> None:
        self._kept = {name: part.flatten(1).double() for name, part in kept.items()}
        self.cells = sum(part.shape[1] for part in self._kept.values())

    def squares(self) -> Tensor:
        """See :class:`Part`."""
        found = [torch.linalg.vecdot(part, part) for part in self._kept.values()]
        return torch.stack(found).sum(0)

    def write(self, factors: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        """See :class:`Part`."""
        for place, name in ((weight, "weight"), (bias, "bias")):
            if place is not None:
                torch.mv(self._kept[name].T, factors, out=place.view(-1))


class Looked:
    """An embedding: a row's gradient lies at the entries that it looked up, once for each.

    Parameters
    ----------
    given : Tensor of int, shape (rows, ...)
    pull : Tensor, shape (rows, ..., width)
    padding : int or None
        The entry that has no gradient.
    """

    def __init__(self, given: Tensor, pull: Tensor, padding: int | None) -> None:
        rows, width = len(given), pull.shape[-1]
        entries, pulls = given.reshape(rows, -1), pull.reshape(-1, width).double()
        self._rows, self.cells = rows, entries.shape[1] * width
        if padding is not None:
            pulls = pulls * (entries.reshape(-1) != padding)[:, None]
        owner = torch.arange(rows).repeat_interleave(entries.shape[1])
        pairs, back = torch.unique(torch.stack([owner, entries.reshape(-1).long()]), dim=1, return_inverse=True)
        self._owner, self._entry = pairs
        self._sums = torch.zeros(pairs.shape[1], width, dtype=torch.float64).index_add_(0, back, pulls)

    def squares(self) -> Tensor:
        """See :class:`Part`."""
        found = torch.zeros(self._rows, dtype=torch.float64)
        return found.index_add_(0, self._owner, torch.linalg.vecdot(self._sums, self._sums))

    def write(self, factors: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        """See :class:`Part`."""
        if weight is not None:
            weight.zero_().index_add_(0, self._entry, self._sums * factors[self._owner, None])


def ghostly(places: int, wide: int, out: int) -> bool:
    """Tell whether the inner products of places take fewer operations than keeping a row's gradient.

    They are taken in float64, which takes twice the time.
    """
    return 2 * places * (wide + out) < wide * out


def _convolved(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, given: Tensor, pull: Tensor, weight: bool, bias: bool) -> Part:
    given, padding = _padded(layer, given)
    rows, out = pull.shape[:2]
    kept: dict[str, Tensor] = {}
    if weight:
        kernel, places = layer.weight[0].numel(), math.prod(pull.shape[2:])
        if layer.groups == 1 and isinstance(layer, nn.Conv2d) and ghostly(places, kernel, out):
            seen = nn.functional.unfold(given, layer.kernel_size, layer.dilation, tuple(padding), layer.stride)
            return Places(seen.transpose(1, 2), pull.flatten(2).transpose(1, 2), bias)
        # One convolution of all rows as so many groups: the gradient of its weight is that of every row's own.
        kept["weight"] = torch.ops.aten.convolution_backward(
            pull.reshape(1, rows * out, *pull.shape[2:]),
            given.reshape(1, rows * given.shape[1], *given.shape[2:]),
            pull.new_zeros(1).expand(rows * out, *layer.weight.shape[1:]),
            None,
            layer.stride,
            padding,
            layer.dilation,
            False,
            [0] * len(padding),
            rows * layer.groups,
            [False, True, False],
        )[1].reshape(rows, -1)
    if bias:
        kept["bias"] = pull.flatten(2).sum(2)
    return Kept(kept)


def _padded(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, given: Tensor) -> tuple[Tensor, list[int]]:
    """Return what a convolution works on, and the zeros that it is still to add on each side."""
    if not isinstance(layer.padding, str):
        return given, list(layer.padding)
    if layer.padding == "same":
        whole = [reach * (size - 1) for reach, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        # Where a kernel has no middle, the odd zero comes behind.
        given = nn.functional.pad(given, [zeros for one in reversed(whole) for zeros in (one // 2, one - one // 2)])
    return given, [0] * len(layer.kernel_size)


def _scaled(normal: Tensor, pull: Tensor, over: int, weight: bool, bias: bool) -> Part:
    kept = {}
    if weight:
        kept["weight"] = (pull * normal).sum(over)
    if bias:
        kept["bias"] = pull.sum(over)
    return Kept(kept)
