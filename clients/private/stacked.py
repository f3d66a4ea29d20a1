"""Several silos' DP-SGD at once: their models stacked, clipped row by row, each silo's noise from its own source.

What :class:`quire.clients.private.sgd.PrivateBench` does for one silo is done here for several, in the same steps: each
silo draws its batch from its own source, every row's gradient is clipped by its own norm, the silo's own sum gets noise
from the silo's own source, and is divided by the silo's public batch. Only the passes through the model are shared:
dense layers lie stacked along a first axis. A row's part of a dense layer has |g|^2 (|a|^2 + 1) as its squared norm,
with a what went in and g how the loss moves with what came out (Goodfellow 2015, arXiv 1510.01799), so that no row's
gradient is formed (Bu et al. 2022, arXiv 2210.00038). Norms and sums are taken in float64 from the same numbers.

Batches by Poisson sampling differ in size; shorter ones are padded, and what is padded adds exactly zero. A row whose
gradient is not finite adds nothing and is counted. Only a simulation can use this: nobody else holds the rows, and the
seeds, of several silos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.private.bookkeeping import factors_of
from quire.clients.private.plan import Plan
from quire.clients.private.sgd import Steps, Tally, noisy_mean, release_under
from quire.clients.slopes import slopes
from quire.clients.tasks.base import Task
from quire.clients.training import Sgd
from quire.conf.schema import SgdTraining
from quire.privacy.csprng import Csprng

# Weights of one silo above which the sum is taken silo by silo: in float64 those of all would leave the cache.
_WIDE = 16_384


@dataclass(eq=False)
class PrivateSilo:
    """A silo's part in the common work.

    Attributes
    ----------
    rows : Rows
        At least one.
    plan : Plan
        The silo's own.
    source : Csprng
        The silo's own, of batches and noise; drawn from in the order in which the silo would by itself.
    tally : Tally
        What its steps have added up to.
    """

    rows: Rows
    plan: Plan
    source: Csprng
    tally: Tally = field(default_factory=Tally, init=False)

    def steps(self) -> Steps:
        """Return what the round looked like, as :meth:`quire.clients.private.sgd.PrivateBench.train` does."""
        return self.tally.steps(self.plan.steps)


@dataclass(frozen=True, eq=False)
class PrivateOutcome:
    """What one silo's training comes to.

    Attributes
    ----------
    update : dict of str to numpy.ndarray
        New model minus the old one, in the model's dtype.
    steps : Steps
    """

    update: Arrays
    steps: Steps


def train_stacked_privately(
    task: Task, model: Mapping[str, np.ndarray], silos: Sequence[PrivateSilo], training: SgdTraining, mu: float = 0.0
) -> list[PrivateOutcome]:
    """Train one model on each of several silos' rows under its own plan.

    Parameters
    ----------
    task : Task
        For which :func:`quire.clients.slopes.is_dense` holds.
    model : mapping of str to numpy.ndarray
        Where all of them begin: weights and biases by turns, float32 or float64.
    silos : sequence of PrivateSilo
    training : SgdTraining
        Learning rate, momentum, weight decay.
    mu : float
        Weight of FedProx's proximal term, added after the noise.

    Returns
    -------
    list of PrivateOutcome
        In the order of the silos.

    Raises
    ------
    ValueError
        If a silo has no row.
    """
    if any(not len(silo.rows) for silo in silos):
        raise ValueError("there is no row to train on")
    # Those that take the most steps first: who is still at work is then always a slice.
    order = sorted(range(len(silos)), key=lambda place: -silos[place].plan.steps)
    with torch.no_grad():
        stack = _PrivateStack(task, model, [silos[place] for place in order], training, mu)
        for step in range(max(silo.plan.steps for silo in silos)):
            stack.step(sum(silo.plan.steps > step for silo in silos))
        updates = stack.updates()
    outcomes = {place: PrivateOutcome(updates[at], silos[place].steps()) for at, place in enumerate(order)}
    return [outcomes[place] for place in range(len(silos))]


class _PrivateStack:
    """All silos' models, where they stand: parameters (silos, all of them), and layers as views of these."""

    def __init__(
        self,
        task: Task,
        model: Mapping[str, np.ndarray],
        silos: Sequence[PrivateSilo],
        training: SgdTraining,
        mu: float,
    ) -> None:
        self._task, self._model, self._silos = task, model, silos
        start = torch.from_numpy(np.concatenate([part.reshape(-1) for part in model.values()]))
        self._flat = start.expand(len(silos), -1).clone()
        self._spans: list[tuple[slice, slice]] = []
        self._weights: list[Tensor] = []
        self._biases: list[Tensor] = []
        names, at = list(model), 0
        for name in names[::2]:
            out, wide = model[name].shape
            middle, end = at + out * wide, at + out * wide + out
            self._spans.append((slice(at, middle), slice(middle, end)))
            self._weights.append(self._flat[:, at:middle].view(len(silos), out, wide))
            self._biases.append(self._flat[:, None, middle:end])
            at = end
        self._optimizers = [Sgd([own], training, mu, []) for own in self._flat]
        self._x = torch.cat([torch.from_numpy(silo.rows.x) for silo in silos])
        self._y = torch.cat([torch.from_numpy(silo.rows.y) for silo in silos])
        lengths = [torch.linalg.vecdot(x, x) for x in torch.split(self._x.double(), 4096)]
        self._squares = torch.cat(lengths)  # of the rows, which are what goes into the first layer in every step
        self._starts = np.cumsum([0, *(len(silo.rows) for silo in silos[:-1])])
        self._clips = torch.tensor([[silo.plan.clip] for silo in silos], dtype=torch.float64)
        self._releases = [release_under(silo.plan, at) for silo in silos]

    def step(self, at: int) -> None:
        """Take one step of the first silos, so many of them."""
        batches = [silo.source.poisson_sample(len(silo.rows), silo.plan.rate) for silo in self._silos[:at]]
        totals = self._sums(batches)
        for place, (silo, release) in enumerate(zip(self._silos[:at], self._releases, strict=False)):
            mean = noisy_mean(totals[place].numpy(), silo.plan, release, silo.source, silo.tally)
            self._optimizers[place].step((torch.from_numpy(mean).float(),))

    def updates(self) -> list[Arrays]:
        """Return how far each silo's model has moved."""
        found = []
        for own in self._flat.numpy():
            parts, at = {}, 0
            for name, part in self._model.items():
                parts[name] = own[at : at + part.size].reshape(part.shape) - part
                at += part.size
            found.append(parts)
        return found

    def _sums(self, batches: Sequence[np.ndarray]) -> Tensor:
        """Return each silo's sum of clipped gradients, float64 of shape (silos, parameters)."""
        at, width = len(batches), max(map(len, batches))
        if not width:
            return torch.zeros(at, self._flat.shape[1], dtype=torch.float64)
        places, beside = np.empty((at, width), dtype=np.int64), np.ones((at, width), dtype=bool)
        for silo, batch in enumerate(batches):
            places[silo, len(batch) :] = self._starts[silo]
            places[silo, : len(batch)] = batch + self._starts[silo]
            beside[silo, : len(batch)] = False
        flat, padding = torch.from_numpy(places.reshape(-1)), torch.from_numpy(beside)
        given, pulls, losses = self._passed(flat, padding)
        squares = self._squares.index_select(0, flat).view(at, width)
        norms2 = torch.linalg.vecdot(pulls[0], pulls[0]).mul_(squares.add_(1.0))
        for own, pull in zip(given[1:], pulls[1:], strict=True):
            norms2 += torch.linalg.vecdot(pull, pull).mul_(torch.linalg.vecdot(own, own).add_(1.0))
        norms = norms2.sqrt_()
        good = torch.isfinite(norms)
        if not bool(good.all()):  # nothing times NaN is NaN
            given = [own.where(good[..., None], 0.0) for own in given]
            pulls = [pull.where(good[..., None], 0.0) for pull in pulls]
            losses = losses.where(good, 0.0)
            norms = norms.where(good, 0.0)
            bad = (~(good | padding)).sum(1).tolist()
        else:
            bad = [0] * at
        clips = self._clips[:at]
        factors = factors_of(norms, clips)
        over = ((norms > clips) & ~padding).sum(1).tolist()
        loss = losses.double().sum(1).tolist()
        for place, (own_silo, batch) in enumerate(zip(self._silos[:at], batches, strict=True)):
            own_silo.tally.add(len(batch), over[place], bad[place], loss[place])
        totals = torch.empty(at, self._flat.shape[1], dtype=torch.float64)
        for (weights, biases), own, pull in zip(self._spans, given, pulls, strict=True):
            scaled = pull.mul_(factors[..., None])
            torch.sum(scaled, 1, out=totals[:, biases])
            into = totals[:, weights].view(at, pull.shape[2], own.shape[2])
            if into[0].numel() <= _WIDE:
                into.copy_(torch.bmm(scaled.transpose(1, 2), own.double()))
                continue
            for silo in range(at):
                torch.mm(scaled[silo].T, own[silo].double(), out=into[silo])
        return totals

    def _passed(self, flat: Tensor, padding: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Pass rows there and back: what went into each layer, how the loss moves with what came out, and the losses.

        What went into layers but the first, and how the loss moves, are float64 as the norms and sums are.
        """
        at, width = padding.shape
        out = self._x.index_select(0, flat).view(at, width, -1)
        given: list[Tensor] = []
        for place, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            out = out.relu_() if place else out
            given.append(out)
            out = torch.baddbmm(bias[:at], out, weight[:at].transpose(1, 2))
        losses, pull = slopes(self._task, out, self._y.index_select(0, flat).view(at, width))
        losses.masked_fill_(padding, 0.0)
        pull.masked_fill_(padding[..., None], 0.0)
        pulls = [pull.double()]
        for own, weight in zip(reversed(given[1:]), reversed(self._weights[1:]), strict=True):
            pull = torch.ops.aten.threshold_backward(torch.bmm(pull, weight[:at]), own, 0)
            pulls.append(pull.double())
        return [given[0], *(own.double() for own in given[1:])], pulls[::-1], losses
