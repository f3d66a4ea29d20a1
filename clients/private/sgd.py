"""DP-SGD inside a silo (Abadi et al. 2016, arXiv 1607.00133, algorithm 1), several noisy steps for each round.

In every step each row is in the batch with probability q, independently; its gradient is clipped; noise is added to
the *sum*, and the sum is divided by the public expected size of a batch, never by the one that came out. What then
moves the model is post-processing: momentum, weight decay, and FedProx's pull towards the global model. That pull is
added after the noise: clipped with the gradient, or taken through a per-sample engine, it would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quire.clients.data.silo import Rows
from quire.clients.private.gradients import ClippedGradients
from quire.clients.private.plan import Plan
from quire.clients.training import Sgd, Workbench
from quire.conf.schema import SgdTraining
from quire.privacy.csprng import Csprng
from quire.privacy.dp.lattice import Release
from quire.privacy.dp.release import add_noise, release_of


@dataclass(frozen=True)
class Steps:
    """What a round of noisy steps looked like from the inside. It never leaves a silo that is not simulated.

    Attributes
    ----------
    rows : int
        Rows drawn, over all steps.
    clipped, broken : int
        Of those, how many gradients were longer than the clip, and how many not finite (they added zero).
    loss : float
        Mean training loss over the rows drawn; 0 if none were.
    signal, noise : float
        Root mean square, over the steps, of the L2 norms of the clipped sum and of the noise.
    """

    rows: int
    clipped: int
    broken: int
    loss: float
    signal: float
    noise: float


@dataclass
class Tally:
    """What a round of noisy steps has added up to so far, in the terms of :class:`Steps`.

    Attributes
    ----------
    rows, clipped, broken : int
    loss : float
        Sum over the rows drawn.
    signal, noise : float
        Sums of squared norms over the steps.
    """

    rows: int = 0
    clipped: int = 0
    broken: int = 0
    loss: float = 0.0
    signal: float = 0.0
    noise: float = 0.0

    def add(self, rows: int, clipped: int, broken: int, loss: float) -> None:
        """Count the rows of a step."""
        self.rows += rows
        self.clipped += clipped
        self.broken += broken
        self.loss += loss

    def steps(self, taken: int) -> Steps:
        """Return what it comes to over so many steps, at least one."""
        loss = self.loss / max(self.rows - self.broken, 1)
        signal, noise = (float(np.sqrt(part / taken)) for part in (self.signal, self.noise))
        return Steps(self.rows, self.clipped, self.broken, loss, signal, noise)


def release_under(plan: Plan, size: int) -> Release | None:
    """Return what each step of a plan releases of a model of so many parameters.

    None without noise (epsilon=inf): gradients are clipped all the same, and the ledger is charged everything.
    """
    if not plan.noise_multiplier:
        return None
    return release_of(size, plan.clip, plan.noise_multiplier, "discrete" if plan.discrete else "gaussian")


def noisy_mean(
    total: NDArray[np.float64], plan: Plan, release: Release | None, source: Csprng, tally: Tally
) -> NDArray[np.float64]:
    """Return the sum of a step's clipped gradients with noise, by the public expected size of a batch.

    Parameters
    ----------
    total : numpy.ndarray of float64, shape (parameters,)
    plan : Plan
    release : Release or None
        As :func:`release_under` returns it.
    source : Csprng
        Of the noise.
    tally : Tally
        Told the norms of the sum and of the noise.
    """
    released = total
    tally.signal += float(total @ total)
    if release is not None:
        released = add_noise(total, release, source)
        added = released - total
        tally.noise += float(added @ added)
    return released / plan.batch


class PrivateBench:
    """A workbench whose gradients are clipped row by row.

    Parameters
    ----------
    bench : Workbench
        For this use alone: its model gets Opacus' hooks.
    method : str
        ``auto``, ``rows``, ``hooks`` or ``ghost``; see :class:`quire.clients.private.gradients.ClippedGradients`.
    """

    def __init__(self, bench: Workbench, method: str) -> None:
        task = bench.task
        self.bench, self.task, self.method = bench, task, method
        self._gradients = ClippedGradients(bench.model, task.loss, task.features, task.classes, method)

    def train(self, rows: Rows, plan: Plan, training: SgdTraining, source: Csprng, mu: float = 0.0) -> Steps:
        """Take the plan's steps on some rows, from the parameters that the bench holds.

        Parameters
        ----------
        rows : Rows
            Their number enters nowhere.
        plan : Plan
            Sampling rate, steps, clip, noise.
        training : SgdTraining
            Learning rate, momentum, weight decay.
        source : Csprng
            Of batches and noise: from the operating system's entropy, or in a simulation from its seed.
        mu : float
            Weight of FedProx's proximal term, added after the noise.
        """
        x, y = self.bench.tensors(rows)
        optimizer = Sgd(self.bench.parameters, training, mu, [])
        release = release_under(plan, sum(parameter.numel() for parameter in self.bench.parameters))
        tally = Tally()
        for _ in range(plan.steps):
            batch = torch.from_numpy(source.poisson_sample(len(rows), plan.rate)).to(x.device)
            part = self._gradients.sum(x.index_select(0, batch), y.index_select(0, batch), plan.clip)
            tally.add(len(batch), part.clipped, part.broken, part.loss)
            optimizer.step(self._shaped(noisy_mean(part.total, plan, release, source, tally)))
        return tally.steps(plan.steps)

    def _shaped(self, flat: np.ndarray) -> tuple[torch.Tensor, ...]:
        whole = torch.from_numpy(flat).float().to(self.bench.parameters[0].device)
        pieces = torch.split(whole, [parameter.numel() for parameter in self.bench.parameters])
        return tuple(piece.view_as(parameter) for piece, parameter in zip(pieces, self.bench.parameters, strict=True))
