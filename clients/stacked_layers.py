"""Dense layers of several silos' models, stacked along a first axis; see :mod:`quire.clients.stacked`."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from quire.clients.data.silo import Rows
from quire.clients.dense import Moved
from quire.conf.schema import SgdTraining

_GRAMS: WeakKeyDictionary[Rows, Tensor] = WeakKeyDictionary()


class DenseLayers:
    """One dense layer of every silo: weights (silos, outputs, inputs) and biases (silos, 1, outputs)."""

    def __init__(
        self, weight: Tensor, bias: Tensor, silos: int, plan: SgdTraining, mu: float, fixed: list[tuple[Tensor, Tensor]]
    ) -> None:
        self._plan, self._mu = plan, mu
        self._start = (weight, bias[None])
        self.weight = weight.expand(silos, *weight.shape).clone()
        self.bias = bias.expand(silos, 1, len(bias)).clone()
        self._fixed = [torch.stack([pair[kind] for pair in fixed]) for kind in (0, 1)] if fixed else []
        if fixed:
            self._fixed[1] = self._fixed[1][:, None]
        self._fast = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)] if plan.momentum else []

    def forward(self, x: Tensor) -> Tensor:
        at = len(x)
        return torch.baddbmm(self.bias[:at], x, self.weight[:at].transpose(1, 2))

    def backward(self, pull: Tensor) -> Tensor:
        return torch.bmm(pull, self.weight[: len(pull)])

    def step(self, pull: Tensor, given: Tensor) -> None:
        """Move along minus the gradient pull^T given, as :class:`quire.clients.training.Sgd` does."""
        at = len(pull)
        for kind, own in enumerate((self.weight, self.bias)):
            start = self._start[kind] if self._mu else None
            fixed = self._fixed[kind][:at] if self._fixed else None
            fast = self._fast[kind][:at] if self._fast else None
            moved = Moved(own[:at], start, fixed, fast)
            if kind == 0:
                moved.step(self._plan, self._mu, pull, given)
            else:
                moved.step(self._plan, self._mu, pull.sum(1, keepdim=True))

    def updates(self) -> tuple[Tensor, Tensor]:
        return self.weight.sub_(self._start[0]), self.bias.sub_(self._start[1])[:, 0]


class SpannedLayers:
    """The first layer, its weights kept as a * W_0 + C^T X for the rows X of each silo."""

    def __init__(
        self, weight: Tensor, bias: Tensor, rows: Sequence[Rows], x: Sequence[Tensor], plan: SgdTraining, mu: float
    ) -> None:
        self._weight, self._plan, self._mu, self._x = weight, plan, mu, x
        self._bias = DenseLayers(weight[:, :0], bias, len(x), plan, mu, [])
        self._most = max(len(part) for part in x)
        given = torch.cat(list(x)) @ weight.T  # one product for all silos: they begin at the same weights
        self._given = given.new_zeros(len(x), self._most, len(weight))
        self._grams = given.new_zeros(len(x), self._most, self._most)
        at = 0
        for silo, (own, part) in enumerate(zip(rows, x, strict=True)):
            self._given[silo, : len(part)] = given[at : at + len(part)]
            self._grams[silo, : len(part), : len(part)] = _gram(own, part)
            at += len(part)
        self._c = given.new_zeros(len(x), self._most, len(weight))
        self._a = given.new_ones(len(x), 1, 1)
        self._fast = [torch.zeros_like(self._c), torch.zeros_like(self._a)] if plan.momentum else []

    def forward(self, places: Tensor) -> Tensor:
        at, width = places.shape
        flat = self._flat(places)
        given = self._given.flatten(0, 1).index_select(0, flat).view(at, width, -1)
        grams = self._grams.flatten(0, 1).index_select(0, flat).view(at, width, -1)
        if self._mu or self._plan.weight_decay:
            given.mul_(self._a[:at])
        return given.baddbmm_(grams, self._c[:at]).add_(self._bias.bias[:at])

    def step(self, pull: Tensor, places: Tensor) -> None:
        at, plan, flat = len(pull), self._plan, self._flat(places)
        c, a, pulled = self._c[:at], self._a[:at], self._mu + plan.weight_decay
        if self._fast:
            fast_c, fast_a = (part[:at].mul_(plan.momentum) for part in self._fast)
            fast_c.flatten(0, 1).index_add_(0, flat, pull.flatten(0, 1))
            if pulled:
                fast_c.add_(c, alpha=pulled)
                fast_a.add_(a, alpha=pulled).sub_(self._mu)
            c.sub_(fast_c, alpha=plan.lr)
            a.sub_(fast_a, alpha=plan.lr)
        else:
            if pulled:
                c.mul_(1.0 - plan.lr * pulled)
                a.mul_(1.0 - plan.lr * pulled).add_(plan.lr * self._mu)
            c.flatten(0, 1).index_add_(0, flat, pull.flatten(0, 1), alpha=-plan.lr)
        self._bias.step(pull, pull[..., :0])

    def updates(self) -> tuple[Tensor, Tensor]:
        found = self._weight.new_empty(len(self._x), *self._weight.shape)
        for silo, part in enumerate(self._x):
            torch.mm(self._c[silo, : len(part)].T, part, out=found[silo])
        if self._mu or self._plan.weight_decay:
            found.addcmul_(self._weight, self._a - 1.0)
        return found, self._bias.updates()[1]

    def _flat(self, places: Tensor) -> Tensor:
        return (places + self._most * torch.arange(len(places))[:, None]).reshape(-1)


def _gram(rows: Rows, x: Tensor) -> Tensor:
    """Return X X^T of a silo's rows, kept for as long as these are: it does not depend on the model."""
    found = _GRAMS.get(rows)
    if found is None:
        found = _GRAMS[rows] = x @ x.T
    return found
