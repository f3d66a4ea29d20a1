"""Canaries through the code that makes private runs private, each with the score that an observer would give it.

Every canary is in with probability 1/2, by a fair coin of its own, and is scored from what was released alone. The
paths call what a run calls (``clients.private``, ``strategies.private``, ``privacy.dp.release``) and do nothing of it
themselves: what is broken there is broken here.

Canaries may be spread over several independent releases. Together these are one mechanism that is as private for each
coin as any of them, so a theorem about one release with many coins holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.entropy import Seeded
from quire.clients.private.plan import Plan
from quire.clients.private.sgd import PrivateBench
from quire.clients.private.work import clipped_update, private_update
from quire.clients.tasks import Task
from quire.clients.tasks.regression import Regression
from quire.clients.training import Workbench
from quire.conf.schema import RecordPrivacy, Settings, SgdTraining
from quire.privacy.csprng import Csprng
from quire.privacy.dp.release import add_noise, release_of
from quire.privacy.randomness import derive_seed, key, stream
from quire.strategies.private import NoisySum
from quire.strategies.rounds import Cohort, Update

#: How far a canary that is made to measure lies beyond the clip, so that clipping that is gone shows.
STRENGTH = 10.0
#: Canaries in one release of the paths that keep a whole row, or update, for each of them.
GROUP = 512

#: Length of a canary's row: the bias gets a thousandth of its gradient.
ROW = 1024.0
#: Rows of the silo's own that are in every release of its own model.
BACKGROUND = 8

_CANDIDATES = 4  # rows out of which the one with the longest gradient becomes the canary


@dataclass(frozen=True, eq=False)
class Canaries:
    """What an audit looks at.

    Attributes
    ----------
    scores : numpy.ndarray of float64, shape (m,)
        From releases only, in units of the clip (of one release); higher where the canary was more likely in.
    included : numpy.ndarray of bool, shape (m,)
        The coins.
    strength : float
        Length of a canary's gradient, or update, before clipping, over the clip; below 1 it is not the worst case.
    """

    scores: NDArray[np.float64]
    included: NDArray[np.bool_]
    strength: float


def through_sum(plan: Plan, dimension: int, canaries: int, seed: int) -> Canaries:
    """Add the plan's noise to sums of Dirac canaries, ``clip`` at a secret coordinate each.

    Parameters
    ----------
    plan : Plan
        Clip, noise, and ``steps`` releases of the same sum.
    dimension : int
        Of the sum; more coordinates are added where there are fewer than canaries.
    canaries : int
    seed : int
    """
    source, coins, places, total = diracs(plan.clip, dimension, canaries, seed)
    release = release_of(len(total), plan.clip, plan.noise_multiplier, "discrete" if plan.discrete else "gaussian")
    scores = np.zeros(canaries)
    for _ in range(plan.steps):
        scores += add_noise(total, release, source)[places]
    return Canaries(scores / plan.clip, coins, 1.0)


def through_rows(plan: Plan, method: str, canaries: int, seed: int) -> Canaries:
    """Train a linear model by private steps on rows whose gradients are Dirac canaries, ten times the clip.

    Parameters
    ----------
    plan : Plan
        Clip, noise, sampling rate and steps: all canaries of a group are the rows of one silo.
    method : str
        ``auto``, ``hooks`` or ``ghost``.
    canaries : int
    seed : int
    """
    source, coins = sources(seed, "rows", canaries)
    training, plan = _unit_steps(plan), replace(plan, batch=1)
    scores = []
    for number, group in enumerate(groups(coins)):
        task = Linear("canaries", len(group), "linear", (), -1.0, 1.0)
        bench = PrivateBench(Workbench(task), method)
        start = {"0.weight": np.zeros((1, len(group)), np.float32), "0.bias": np.zeros(1, np.float32)}
        bench.bench.load(start)
        x = (ROW * np.eye(len(group), dtype=np.float32))[group]
        pulls = np.full(len(x), plan.clip * STRENGTH / ROW, dtype=np.float32)
        bench.train(Rows(x, pulls), plan, training, source.child("group", number))
        scores.append(-bench.bench.difference(start)["0.weight"][0].astype(np.float64))
    return Canaries(np.concatenate(scores), coins, STRENGTH)


def through_model(settings: Settings, task: Task, rows: Rows, plan: Plan, trials: int, seed: int) -> Canaries:
    """Take private steps of the run's own model on a few of the silo's rows, with a canary among them or without.

    The canary is a row of the silo's, scaled and labelled so that its gradient is long. Every trial begins anew from
    the run's first model and throws one coin; its score is the update along the canary's gradient.

    Parameters
    ----------
    settings : Settings
        With ``privacy=record``.
    task : Task
    rows : Rows
        The silo's training rows.
    plan : Plan
        For one step.
    trials : int
    seed : int
    """
    if not isinstance(settings.privacy, RecordPrivacy):
        raise TypeError("single rows are canaries of the record unit only")
    source, coins = sources(seed, "model", trials)
    model = task.initial_arrays(stream(settings.seed, "model"))
    among, background, gradient = one_canary(task, model, rows, STRENGTH * plan.clip)
    length = float(np.linalg.norm(gradient))
    bench, training = PrivateBench(Workbench(task), settings.privacy.gradients), _unit_steps(plan)
    scores = np.empty(trials)
    for trial, inside in enumerate(coins):
        bench.bench.load(model)
        bench.train(among if inside else background, replace(plan, batch=1), training, source.child("trial", trial))
        scores[trial] = -(flat(bench.bench.difference(model)) @ gradient) / length
    return Canaries(scores, coins, length / plan.clip)


def through_silos(plan: Plan, rounds: int, canaries: int, seed: int) -> Canaries:
    """Let silos clip updates that are Dirac canaries, ten times the clip, and a server add them up with its noise.

    Parameters
    ----------
    plan : Plan
        Clip and noise of the silo unit.
    rounds : int
        Releases of the same sums.
    canaries : int
        Each is a whole silo.
    seed : int
    """
    _, coins = sources(seed, "silos", canaries)
    scores = []
    for number, group in enumerate(groups(coins)):
        server = NoisySum(plan.clip, plan.noise_multiplier, None, derive_seed(seed, "audit", "server", number))
        sent = {"bystander": np.zeros(len(group), np.float32)}
        for place in np.flatnonzero(group):
            update = np.zeros(len(group), np.float32)
            update[place] = STRENGTH * plan.clip
            sent[f"canary-{place}"] = clipped_update({"update": update}, plan.clip)[0]["update"]
        updates = _taken(server, [Update(silo, {"update": array}, 1.0) for silo, array in sent.items()])
        released = np.zeros(len(group))
        for round_number in range(1, rounds + 1):
            cohort = Cohort(round_number, tuple(f"canary-{place}" for place in range(len(group))))
            released += server.mean(updates, cohort)["update"] * len(group)
        scores.append(released / plan.clip)
    return Canaries(np.concatenate(scores), coins, STRENGTH)


def through_update(settings: Settings, task: Task, rows: Rows, plan: Plan, trials: int, seed: int) -> Canaries:
    """Train the run's own model at one silo, and add its clipped update to the server's noisy sum, or leave it out.

    Parameters
    ----------
    settings : Settings
        With ``privacy=silo``.
    task : Task
    rows : Rows
        The silo's training rows.
    plan : Plan
        For one round.
    trials : int
        Each throws one coin and makes one noisy sum.
    seed : int
    """
    _, coins = sources(seed, "update", trials)
    model = task.initial_arrays(stream(settings.seed, "model"))
    sent, shown = private_update(settings, task, rows, replace(plan, weight=1.0), Seeded(seed), "canary", model, 1)
    update = flat(sent)
    length = float(np.linalg.norm(update)) or 1.0
    none = {name: np.zeros_like(part) for name, part in sent.items()}
    server_seed, scores = derive_seed(seed, "audit", "server"), np.empty(trials)
    for trial, inside in enumerate(coins):
        server = NoisySum(plan.clip, plan.noise_multiplier, None, derive_seed(server_seed, "trial", trial))
        silos = [Update("bystander", none, 1.0), Update("canary", sent if inside else none, 1.0)]
        released = server.mean(_taken(server, silos), Cohort(1, ("canary",)))
        scores[trial] = flat(released) @ update / length / plan.clip
    return Canaries(scores, coins, shown["signal-norm"] / plan.clip)


@dataclass(frozen=True)
class Linear(Regression):
    """A linear model whose gradient is the row times its label, wherever the model stands."""

    def loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs.squeeze(1) * y).mean()


def sources(seed: int, path: str, canaries: int) -> tuple[Csprng, NDArray[np.bool_]]:
    """Open the random numbers of one path, and throw its coins."""
    source = Csprng(key(seed, "audit", path))
    return source.child("noise"), source.bernoulli(0.5, canaries)


def diracs(
    clip: float, dimension: int, canaries: int, seed: int
) -> tuple[Csprng, NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
    """Put ``clip`` at a secret coordinate for each canary whose coin says so.

    Returns
    -------
    source : Csprng
        For what is released.
    coins : numpy.ndarray of bool, shape (canaries,)
    places : numpy.ndarray of int, shape (canaries,)
        Of the canaries, in or not.
    total : numpy.ndarray of float64
        As long as the dimension; longer where that is less than one coordinate for each canary.
    """
    source, coins = sources(seed, "sum", canaries)
    dimension = max(dimension, canaries)
    places = np.argsort(source.uint64(dimension), kind="stable")[:canaries]
    total = np.zeros(dimension)
    total[places] = clip * coins
    return source, coins, places, total


def one_canary(task: Task, model: Arrays, rows: Rows, enough: float) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """Return a few of a silo's rows with a canary among them and without, and its gradient; see :func:`longest`."""
    canary, gradient = longest(task, model, rows, enough)
    background = rows.take(np.arange(1, min(len(rows), 1 + BACKGROUND)))
    among = Rows(np.concatenate([canary.x, background.x]), np.concatenate([canary.y, background.y]))
    return among, background, gradient


def groups(coins: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Share canaries out over independent releases."""
    yield from np.array_split(coins, -(-len(coins) // GROUP))


def _unit_steps(plan: Plan) -> SgdTraining:
    """Return steps that turn released sums into an update in units of the clip; what else moves a model is left out."""
    return SgdTraining("sgd", 1, plan.steps, 1, 1.0 / plan.clip, 0.0, 0.0, (), 0, None)


def _taken(server: NoisySum, updates: list[Update]) -> list[Update]:
    """Return the updates that the server takes, as it does in a round."""
    return [update for update in updates if server.objection(update.arrays) is None]


def flat(arrays: Arrays) -> NDArray[np.float64]:
    """Return arrays as one vector."""
    return np.concatenate([part.reshape(-1).astype(np.float64) for part in arrays.values()])


def longest(task: Task, model: Arrays, rows: Rows, enough: float) -> tuple[Rows, NDArray[np.float64]]:
    """Return a row whose gradient is long, and the gradient, flattened.

    Rows and labels of the silo, multiplied by growing powers of ten until the gradient is long enough; a model that
    normalises its inputs may not have any that long.
    """
    bench = Workbench(task)  # of its own: no hooks
    bench.load(model)
    labels = np.unique(rows.y)[:10]
    best, longest = rows.take(np.arange(1)), np.zeros(sum(part.size for part in model.values()))
    for scale in 10.0 ** np.arange(7):
        for row in rows.x[:_CANDIDATES]:
            for label in labels:
                one = Rows((row * scale).astype(row.dtype)[None], np.array([label], dtype=rows.y.dtype))
                loss = task.loss(bench.model(torch.from_numpy(one.x)), torch.from_numpy(one.y))
                parts = torch.autograd.grad(loss, bench.parameters)
                gradient = np.concatenate([part.double().numpy().ravel() for part in parts])
                if np.isfinite(gradient).all() and np.linalg.norm(gradient) > np.linalg.norm(longest):
                    best, longest = one, gradient
        if np.linalg.norm(longest) >= enough:
            break
    return best, longest
