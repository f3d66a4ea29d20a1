"""What a silo does with its rows: local training, and scoring a model.

One :class:`Workbench` for each task is kept for the life of a process. Its model is built once; the parameters of
a message are copied into it. Nothing else survives from one message to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.dense import DenseSgd
from quire.clients.simulation import done_ahead
from quire.clients.slopes import is_dense
from quire.clients.tasks import Task
from quire.conf.schema import SgdTraining

_BLOCK = 2048


class WrongModel(ValueError):
    """Arrays that do not fit the task's model."""


class Workbench:
    """A model of one task, ready to take parameters in.

    Parameters
    ----------
    task : Task
        Says which model.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = task.build_model()
        self.parameters = list(self.model.parameters())
        # NumPy views of the model's own memory: writing to one writes to the model.
        self._views = {name: tensor.detach().numpy() for name, tensor in self.model.state_dict().items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy parameters into the model.

        Raises
        ------
        WrongModel
            If names, shapes or dtypes are not those of the model.
        """
        if set(arrays) != set(self._views):
            raise WrongModel("the arrays have other names than the model's parameters")
        for name, view in self._views.items():
            if arrays[name].shape != view.shape or arrays[name].dtype != view.dtype:
                raise WrongModel(f"'{name}' has another shape or dtype than the model's")
            np.copyto(view, arrays[name])

    def difference(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return model minus ``arrays``, in the model's dtype: a silo's update."""
        return {name: view - arrays[name] for name, view in self._views.items()}

    def arrays(self) -> Arrays:
        """Return a copy of the model's parameters."""
        return {name: view.copy() for name, view in self._views.items()}

    def train(
        self,
        rows: Rows,
        plan: SgdTraining,
        rng: np.random.Generator,
        mu: float = 0.0,
        correction: Mapping[str, np.ndarray] | None = None,
    ) -> float:
        """Train the model on some rows by mini-batch SGD.

        Parameters
        ----------
        rows : Rows
            At least one row. The last batch of an epoch may be smaller than the others.
        plan : SgdTraining
            Epochs or steps, batch size, learning rate, momentum, weight decay. With steps, epoch follows epoch until
            so many batches have been taken.
        rng : numpy.random.Generator
            Shuffles the rows anew in each epoch.
        mu : float
            Weight of FedProx's proximal term mu/2 * |w - w_0|^2, where w_0 is the model as it stands now
            (Li et al. 2020, arXiv 1812.06127, equation 2). 0 is plain SGD.
        correction : mapping of str to numpy.ndarray, optional
            Added to the gradient in every step, by parameter name (SCAFFOLD).

        Returns
        -------
        float
            Mean training loss over all rows of all batches, without the proximal term.

        Raises
        ------
        ValueError
            If there is no row.
        """
        corrections = (
            [torch.tensor(correction[name]) for name, _ in self.model.named_parameters()] if correction else []
        )
        step = (
            DenseSgd(self.task, [own.detach() for own in self.parameters], plan, mu, corrections).step
            if is_dense(self.task)
            else self._autograd(Sgd(self.parameters, plan, mu, corrections))
        )
        total, seen = 0.0, 0
        for batch_x, batch_y in _batches(*self.tensors(rows), plan, rng):
            total += step(batch_x, batch_y) * len(batch_y)
            seen += len(batch_y)
        return total / seen

    def _autograd(self, optimizer: Sgd) -> Callable[[torch.Tensor, torch.Tensor], float]:
        """Return what takes a step with gradients by autograd, and returns the batch's loss."""
        leaves = tuple(self.parameters)

        def step(x: torch.Tensor, y: torch.Tensor) -> float:
            loss = self.task.loss(self.model(x), y)
            optimizer.step(gradients_of(loss, leaves))
            return loss.item()

        return step

    def score(self, rows: Rows) -> dict[str, float]:
        """Score the model on some rows; see :meth:`quire.clients.tasks.base.Task.metrics`."""
        return self.task.metrics(self.logits(rows), rows.y)

    def logits(self, rows: Rows) -> np.ndarray:
        """Return the model's outputs on some rows, float32 of shape (n, outputs)."""
        x, _ = self.tensors(rows)
        with torch.inference_mode():  # in blocks: between the layers of a cnn an image is many times its size
            parts = [self.model(x[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK)]
            return np.asarray(torch.cat(parts).cpu().numpy())

    def tensors(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and labels where the model is."""
        return torch.from_numpy(rows.x), torch.from_numpy(rows.y)


def gradients_of(loss: torch.Tensor, leaves: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return what ``torch.autograd.grad(loss, leaves)`` returns, bit for bit, for a scalar loss.

    It calls the engine as that function does. What that function looks at before it, at every step, takes a sixth of
    the time of a small model's step.

    Raises
    ------
    RuntimeError
        If the loss does not depend on a leaf.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    return tuple(
        engine.run_backward((loss,), (torch.ones_like(loss),), False, False, leaves, False, accumulate_grad=False)
    )


def steps(plan: SgdTraining, rows: int) -> int:
    """Return the number of SGD steps that a plan takes over some rows in one round."""
    return plan.steps or plan.epochs * math.ceil(rows / plan.batch_size)


def _batches(
    x: torch.Tensor, y: torch.Tensor, plan: SgdTraining, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield features and labels of one batch after the other, in epochs that are each shuffled anew."""
    if not len(x):  # steps would be counted down by nothing, for ever
        raise ValueError("there is no row to train on")
    left = steps(plan, len(x))
    while left:
        order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        shuffled_x, shuffled_y = x.index_select(0, order), y.index_select(0, order)
        starts = range(0, len(x), plan.batch_size)[:left]
        for start in starts:
            yield shuffled_x[start : start + plan.batch_size], shuffled_y[start : start + plan.batch_size]
        left -= len(starts)


class Sgd:
    """SGD in the order of torch.optim.SGD: weight decay, then momentum, then the step; with what an algorithm adds."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], plan: SgdTraining, mu: float, corrections: list[torch.Tensor]
    ) -> None:
        self._parameters, self._plan, self._mu, self._corrections = parameters, plan, mu, corrections
        self._anchors = [parameter.detach().clone() for parameter in parameters] if mu else []
        self._velocity: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, gradients: tuple[torch.Tensor, ...]) -> None:
        plan, directions = self._plan, list(gradients)
        for place, parameter in enumerate(self._parameters):
            if self._mu:
                directions[place] = directions[place] + self._mu * (parameter - self._anchors[place])
            if self._corrections:
                directions[place] = directions[place] + self._corrections[place]
            if plan.weight_decay:
                directions[place] = directions[place] + plan.weight_decay * parameter
        if plan.momentum:
            last = self._velocity or [torch.zeros_like(direction) for direction in directions]
            directions = [plan.momentum * old + new for old, new in zip(last, directions, strict=True)]
            self._velocity = directions
        torch._foreach_sub_(self._parameters, directions, alpha=plan.lr)  # type: ignore[arg-type] # as torch.optim does


def workbench(task: Task, device: str = "cpu") -> Workbench:
    """Return this process's workbench for a task; in a simulation, the one on which the work was done ahead."""
    ahead = done_ahead()
    return ahead if isinstance(ahead, Workbench) and ahead.task == task else _workbench(task, device)


@lru_cache(maxsize=8)
def _workbench(task: Task, device: str) -> Workbench:
    if device == "cpu":
        return Workbench(task)
    from quire.clients.device import torch_device
    from quire.clients.on_device import DeviceBench

    return DeviceBench(task, torch_device(device))
