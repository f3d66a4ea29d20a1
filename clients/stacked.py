"""Several silos' local training at once: models stacked, and one batched product for all of them.

Small models spend most of a step on the overhead of its operators, and not on arithmetic. Here the dense layers of
several silos' models lie stacked along a first axis, and each operator works on all of them. Batches are those that
each silo would draw by itself, from its own generator. Where silos have batches of different sizes the shorter ones are
padded; what a padded row adds is set to zero, exactly. A silo that has taken all its steps is left out of the rest.

The first layer, by far the widest, need not be moved in every step where a silo has few rows: each of its gradients is
a sum of the silo's own rows, so that the weights stay in W = a W_0 + C^T X for a number a and few coefficients C.
Products with the rows then need their Gram matrix X X^T only, which does not depend on the model.

What comes out is what :meth:`quire.clients.training.Workbench.train` gives, but for the order of sums of floating-point
numbers. Only a simulation can use it: nobody else holds the rows of several silos.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.slopes import slopes
from quire.clients.stacked_layers import DenseLayers, SpannedLayers
from quire.clients.tasks.base import Task
from quire.clients.training import steps
from quire.conf.schema import SgdTraining

#: Most parameters of a model for which stacking is a gain: with more, a step is arithmetic and not overhead.
MOST_PARAMETERS = 1_000_000
#: Most multiplications of one silo's step, forward, for the same reason.
MOST_WORK = 20_000_000
#: The same where gradients are clipped row by row: sums and noise are taken in double precision, silo by silo.
MOST_PRIVATE_PARAMETERS, MOST_PRIVATE_WORK = 250_000, 10_000_000


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one silo's training comes to.

    Attributes
    ----------
    update : dict of str to numpy.ndarray
        New model minus the old one, in the model's dtype.
    loss : float
        Mean training loss over all rows of all batches.
    """

    update: Arrays
    loss: float


def is_gain(task: Task, plan: SgdTraining, rows: int, private: bool = False) -> bool:
    """Tell whether stacking was measured to be a gain for such a model and batch.

    Parameters
    ----------
    task : Task
        For which :func:`quire.clients.slopes.is_dense` holds.
    plan : SgdTraining
    rows : int
        Of the largest silo.
    private : bool
        Whether gradients are clipped row by row.
    """
    parameters, work = (MOST_PRIVATE_PARAMETERS, MOST_PRIVATE_WORK) if private else (MOST_PARAMETERS, MOST_WORK)
    hidden: tuple[int, ...] = getattr(task, "hidden", ()) if getattr(task, "model", "") == "mlp" else ()
    widths = [task.features, *hidden, task.classes if task.classes > 2 else 1]
    size = sum((one + 1) * other for one, other in itertools.pairwise(widths))
    return size <= parameters and size * min(plan.batch_size, rows) <= work


def train_stacked(
    task: Task,
    model: Mapping[str, np.ndarray],
    silos: Sequence[tuple[Rows, np.random.Generator]],
    plan: SgdTraining,
    mu: float = 0.0,
    corrections: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> list[Outcome]:
    """Train one model on each of several silos' rows; see :meth:`quire.clients.training.Workbench.train`.

    Parameters
    ----------
    task : Task
        For which :func:`quire.clients.slopes.is_dense` holds.
    model : mapping of str to numpy.ndarray
        Where all of them begin: weights and biases by turns, float32 or float64.
    silos : sequence of (Rows, numpy.random.Generator)
        At least one row each.
    plan : SgdTraining
    mu : float
        Of FedProx.
    corrections : sequence of mapping of str to numpy.ndarray, optional
        One for each silo (SCAFFOLD).

    Returns
    -------
    list of Outcome
        In the order of the silos.

    Raises
    ------
    ValueError
        If a silo has no row.
    """
    if any(not len(rows) for rows, _ in silos):
        raise ValueError("there is no row to train on")
    # Those that take the most steps first: who is still at work is then always a slice.
    order = sorted(range(len(silos)), key=lambda place: -steps(plan, len(silos[place][0])))
    chosen = [silos[place] for place in order]
    fixed = [corrections[place] for place in order] if corrections is not None else None
    with torch.no_grad():
        stack = _Stack(task, model, [rows for rows, _ in chosen], plan, mu, fixed)
        stack.run(_Batches(chosen, plan))
        outcomes = stack.outcomes()
    back = sorted(range(len(order)), key=order.__getitem__)
    return [outcomes[place] for place in back]


class _Batches:
    """Which rows are in each silo's batches: places (silos, steps, width), padded by 0, and their true lengths."""

    def __init__(self, silos: Sequence[tuple[Rows, np.random.Generator]], plan: SgdTraining) -> None:
        counts = [len(rows) for rows, _ in silos]
        self.steps = [steps(plan, count) for count in counts]
        width = min(plan.batch_size, max(counts))
        places = np.zeros((len(silos), max(self.steps), width), dtype=np.int64)
        lengths = np.zeros((len(silos), max(self.steps)), dtype=np.int64)
        for silo, (rows, rng) in enumerate(silos):
            taken, count = 0, len(rows)
            size = min(plan.batch_size, count)
            whole = -(-count // size)
            while taken < self.steps[silo]:
                part = np.zeros(whole * size, dtype=np.int64)
                part[:count] = rng.permutation(count)
                now = min(whole, self.steps[silo] - taken)
                places[silo, taken : taken + now, :size] = part.reshape(whole, size)[:now]
                lengths[silo, taken : taken + now] = size
                if now == whole:
                    lengths[silo, taken + whole - 1] = count - (whole - 1) * size
                taken += now
        self.places, self.lengths = torch.from_numpy(places), torch.from_numpy(lengths)
        self.ragged = bool((lengths.min(axis=0) < width).any())
        self.seen = lengths.sum(axis=1)


class _Stack:
    """All silos' models, where they stand."""

    def __init__(
        self,
        task: Task,
        model: Mapping[str, np.ndarray],
        rows: Sequence[Rows],
        plan: SgdTraining,
        mu: float,
        corrections: Sequence[Mapping[str, np.ndarray]] | None,
    ) -> None:
        self._task, self._names = task, tuple(model)
        start = [torch.tensor(part) for part in model.values()]
        pairs = list(zip(start[::2], start[1::2], strict=True))
        x = [torch.from_numpy(own.x) for own in rows]
        self._y = torch.cat([torch.from_numpy(own.y) for own in rows])
        starts = np.cumsum([0, *(len(own) for own in rows[:-1])])
        self._starts = torch.from_numpy(starts)[:, None]
        fixed = [
            [(torch.tensor(one[name]), torch.tensor(one[bias])) for one in corrections or ()]
            for name, bias in zip(self._names[::2], self._names[1::2], strict=True)
        ]
        most = max(len(own) for own in rows)
        # The rows' span is wider than the layer where there are many rows, and SCAFFOLD's corrections lie outside it.
        self._spanned = corrections is None and 2 * most <= task.features
        self._x = x[0] if self._spanned else torch.cat(x)
        first: SpannedLayers | DenseLayers = (
            SpannedLayers(*pairs[0], rows, x, plan, mu)
            if self._spanned
            else DenseLayers(*pairs[0], len(rows), plan, mu, fixed[0])
        )
        self._first = first
        self._rest = [
            DenseLayers(*pair, len(rows), plan, mu, own) for pair, own in zip(pairs[1:], fixed[1:], strict=True)
        ]
        self._total, self._seen = torch.zeros(len(rows), dtype=torch.float64), np.ones(len(rows))

    def run(self, batches: _Batches) -> None:
        """Take all steps of all silos."""
        self._seen = batches.seen
        for step in range(max(batches.steps)):
            at = sum(own > step for own in batches.steps)
            lengths = batches.lengths[:at, step]
            width = int(lengths.max()) if batches.ragged else batches.places.shape[2]
            places = batches.places[:at, step, :width]
            padding = torch.arange(width) >= lengths[:, None] if batches.ragged else None
            self._step(places, lengths, padding)

    def _step(self, places: Tensor, lengths: Tensor, padding: Tensor | None) -> None:
        at, width = places.shape
        flat = (places + self._starts[:at]).reshape(-1)
        if isinstance(self._first, SpannedLayers):
            given = places
            out = self._first.forward(places)
        else:
            given = self._x.index_select(0, flat).view(at, width, -1)
            out = self._first.forward(given)
        seen = []
        for layer in self._rest:
            out = out.relu_()
            seen.append(out)
            out = layer.forward(out)
        losses, pull = slopes(self._task, out, self._y.index_select(0, flat).view(at, width))
        pull.div_(lengths[:, None, None])
        if padding is not None:
            losses.masked_fill_(padding, 0.0)
            pull.masked_fill_(padding[..., None], 0.0)
        self._total[:at] += losses.sum(1)
        for layer, given_here in zip(reversed(self._rest), reversed(seen), strict=True):
            before = torch.ops.aten.threshold_backward(layer.backward(pull), given_here, 0)
            layer.step(pull, given_here)
            pull = before
        self._first.step(pull, given)

    def outcomes(self) -> list[Outcome]:
        """Return what came of each silo."""
        parts = [part for layer in (self._first, *self._rest) for part in layer.updates()]
        arrays = [part.numpy() for part in parts]
        losses = self._total.numpy() / self._seen
        return [
            Outcome(dict(zip(self._names, (part[silo] for part in arrays), strict=True)), float(losses[silo]))
            for silo in range(len(losses))
        ]
