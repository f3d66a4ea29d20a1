"""A step of SGD for dense models, its gradient written out: what autograd keeps books for is known beforehand here.

A small model's step is mostly that book-keeping. Written out, each layer's gradient goes straight into its weights, as
one product that is added to them, and is never formed by itself. It is the step of
:class:`quire.clients.training.Sgd`, but for the order of sums of floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quire.clients.slopes import slopes
from quire.clients.tasks.base import Task
from quire.conf.schema import SgdTraining


@dataclass(frozen=True)
class Moved:
    """Some parameters and what moves them besides their gradient.

    Attributes
    ----------
    own : Tensor
        Moved in place.
    start : Tensor or None
        Where FedProx pulls them; None just where ``mu`` is 0.
    fixed : Tensor or None
        Added to the gradient in every step (SCAFFOLD).
    fast : Tensor or None
        Their velocity, from zero on; None without momentum.
    """

    own: Tensor
    start: Tensor | None = None
    fixed: Tensor | None = None
    fast: Tensor | None = None

    def step(self, plan: SgdTraining, mu: float, pull: Tensor, given: Tensor | None = None) -> None:
        """Take a step of SGD.

        Parameters
        ----------
        plan : SgdTraining
        mu : float
            Weight of FedProx's proximal term.
        pull, given : Tensor
            The gradient is pull^T given, for each model of a stack; without ``given`` it is ``pull`` itself.
        """
        if self.fast is not None:
            _added(self.fast, plan.momentum, 1.0, pull, given)
            if mu or plan.weight_decay:
                self.fast.add_(self.own, alpha=mu + plan.weight_decay)
            if self.start is not None:
                self.fast.sub_(self.start, alpha=mu)
            if self.fixed is not None:
                self.fast.add_(self.fixed)
            self.own.sub_(self.fast, alpha=plan.lr)
            return
        _added(self.own, 1.0 - plan.lr * (mu + plan.weight_decay), -plan.lr, pull, given)
        if self.start is not None:
            self.own.add_(self.start, alpha=plan.lr * mu)
        if self.fixed is not None:
            self.own.sub_(self.fixed, alpha=plan.lr)


def _added(own: Tensor, keep: float, alpha: float, pull: Tensor, given: Tensor | None) -> None:
    if given is None:
        if keep != 1.0:
            own.mul_(keep)
        own.add_(pull, alpha=alpha)
    elif own.dim() == 3:
        own.baddbmm_(pull.transpose(1, 2), given, beta=keep, alpha=alpha)
    else:
        own.addmm_(pull.t(), given, beta=keep, alpha=alpha)


class DenseSgd:
    """SGD on weights and biases by turns, with ReLU between layers.

    Parameters
    ----------
    task : Task
        For which :func:`quire.clients.slopes.is_dense` holds.
    parameters : sequence of Tensor
        The model's own, in its order, cut off from autograd. They are moved in place.
    plan : SgdTraining
    mu : float
        Weight of FedProx's proximal term around where the parameters stand now.
    corrections : sequence of Tensor
        One for each parameter, added to its gradient in every step (SCAFFOLD); or none.
    """

    def __init__(
        self,
        task: Task,
        parameters: Sequence[Tensor],
        plan: SgdTraining,
        mu: float,
        corrections: Sequence[Tensor],
    ) -> None:
        self._task, self._plan, self._mu = task, plan, mu
        moved = [
            Moved(
                own,
                own.clone() if mu else None,
                corrections[place] if corrections else None,
                torch.zeros_like(own) if plan.momentum else None,
            )
            for place, own in enumerate(parameters)
        ]
        self._layers = list(zip(moved[::2], moved[1::2], strict=True))

    def step(self, x: Tensor, y: Tensor) -> float:
        """Take a step on a batch of at least one row, and return its mean loss as it was before."""
        given, out = [], x
        for place, (weight, bias) in enumerate(self._layers):
            if place:
                out = out.relu_()
            given.append(out)
            out = torch.addmm(bias.own, out, weight.own.t())
        losses, pull = slopes(self._task, out, y)
        pull /= len(y)
        for place in range(len(self._layers) - 1, -1, -1):
            weight, bias = self._layers[place]
            before = torch.mm(pull, weight.own) if place else pull
            weight.step(self._plan, self._mu, pull, given[place])
            bias.step(self._plan, self._mu, pull.sum(0))
            if place:
                pull = torch.ops.aten.threshold_backward(before, given[place], 0)
        return float(losses.mean())
