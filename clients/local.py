"""The silo's part of each strategy: what it adds to plain SGD, and what it sends beside its update."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from quire.clients.arrays import Arrays
from quire.clients.contract import CONTROL, FAIR, STEPS
from quire.clients.data.silo import Rows
from quire.clients.training import Workbench, steps
from quire.conf.schema import (
    FedNovaStrategy,
    FedProxStrategy,
    QFedAvgStrategy,
    ScaffoldStrategy,
    Settings,
    SgdTraining,
)

#: A loss counts as this at least, of which a negative power is still a number.
LEAST_LOSS = 1e-10


@dataclass(frozen=True, eq=False)
class Trained:
    """What local training leaves.

    Attributes
    ----------
    update : dict of str to numpy.ndarray
        New model minus the global one in the model's dtype, and what the strategy sends beside it.
    rows : int
        Training rows used.
    loss : float
        Mean training loss.
    memory : dict of str to numpy.ndarray
        What the silo keeps for its next round; it stays in the silo.
    """

    update: Arrays
    rows: int
    loss: float
    memory: Arrays = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether all of it can be used."""
        parts = (*self.update.values(), *self.memory.values())
        return bool(np.isfinite(self.loss)) and all(np.isfinite(part).all() for part in parts)


def train_locally(
    bench: Workbench,
    rows: Rows,
    settings: Settings,
    rng: np.random.Generator,
    model: Arrays,
    told: Arrays,
    memory: Arrays,
    local: Collection[str] = (),
) -> Trained:
    """Train as the strategy asks.

    Parameters
    ----------
    bench : Workbench
    rows : Rows
        The silo's training rows.
    settings : Settings
    rng : numpy.random.Generator
        Shuffles the rows.
    model : dict of str to numpy.ndarray
        The global model, with the layers of the silo's own.
    told : dict of str to numpy.ndarray
        What the server sent along with it.
    memory : dict of str to numpy.ndarray
        What the silo kept from its last round; empty before its first.
    local : collection of str
        Parameters that stay in the silo: they are trained with the others, and are its memory.

    Raises
    ------
    KeyError
        If the server did not send what the strategy needs.
    ValueError
        If a loss is negative, of which q-FedAvg can take no power.
    """
    plan, strategy = settings.training, settings.strategy
    bench.load(model)
    if isinstance(strategy, ScaffoldStrategy):
        return _controlled(bench, rows, plan, rng, model, told, memory)
    before = bench.score(rows)["loss"] if isinstance(strategy, QFedAvgStrategy) else 0.0
    mu = strategy.mu if isinstance(strategy, FedProxStrategy) else 0.0
    loss = bench.train(rows, plan, rng, mu)
    update = {name: part for name, part in bench.difference(model).items() if name not in local}
    own = {name: part for name, part in bench.arrays().items() if name in local} if local else {}
    if isinstance(strategy, QFedAvgStrategy):
        update = reweighted(update, before, strategy.q, strategy.lipschitz or 1.0 / plan.lr)
    if isinstance(strategy, FedNovaStrategy):
        length = course_length(steps(plan, len(rows)), plan.momentum)
        update = {name: (part / length).astype(part.dtype) for name, part in update.items()}
        update[STEPS] = np.array(length)
    return Trained(update, len(rows), loss, own)


def reweighted(update: Arrays, loss: float, q: float, lipschitz: float) -> Arrays:
    """Return what a silo sends under q-FedAvg (Li et al. 2020, arXiv 1905.10497, algorithm 2, divided by L).

    Parameters
    ----------
    update : dict of str to numpy.ndarray
        New model minus the global one.
    loss : float
        F, of the global model on the silo's training rows.
    q, lipschitz : float

    Returns
    -------
    dict of str to numpy.ndarray
        F^q times the update in its dtype, and under ``fair/divisor`` F^q + q F^(q-1) L |update|^2, float64.

    Raises
    ------
    ValueError
        If the loss is negative.
    """
    if loss < 0.0:
        raise ValueError("q-FedAvg takes a power of the loss, and this task's loss is negative")
    loss = max(loss, LEAST_LOSS)
    power = loss**q
    square = sum(float((part.astype(np.float64) ** 2).sum()) for part in update.values())
    told = {name: (power * part).astype(part.dtype) for name, part in update.items()}
    return {**told, FAIR: np.array(power + q * loss ** (q - 1.0) * lipschitz * square)}


def course_length(steps: int, momentum: float) -> float:
    """Return |a_i|, how far a course of SGD steps goes in units of the learning rate and a constant gradient.

    The number of steps without momentum; with momentum rho, (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho)
    (Wang et al. 2020, arXiv 2007.07481, section 4).
    """
    return (steps - momentum * (1.0 - momentum**steps) / (1.0 - momentum)) / (1.0 - momentum)


def _controlled(
    bench: Workbench,
    rows: Rows,
    plan: SgdTraining,
    rng: np.random.Generator,
    model: Arrays,
    told: Arrays,
    memory: Arrays,
) -> Trained:
    """SCAFFOLD, option II: c_i' = c_i - c + (model - new model) / (K lr)."""
    server = {name: told[name] for name in model}
    own = {name: memory.get(name, np.zeros_like(array)) for name, array in model.items()}
    loss = bench.train(rows, plan, rng, correction={name: server[name] - own[name] for name in model})
    update = bench.difference(model)
    scale = 1.0 / (steps(plan, len(rows)) * plan.lr)
    change = {name: (-server[name] - scale * update[name]).astype(update[name].dtype) for name in model}
    new = {name: own[name] + change[name] for name in model}
    return Trained({**update, **{CONTROL + name: part for name, part in change.items()}}, len(rows), loss, new)
