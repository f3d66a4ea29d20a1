"""A silo's update under differential privacy. Imports torch, so imported where training happens."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from quire.clients.arrays import Arrays
from quire.clients.contract import WITHIN
from quire.clients.data.silo import Rows
from quire.clients.device import device_of
from quire.clients.entropy import Entropy
from quire.clients.local import Trained, train_locally
from quire.clients.private.distributed import batch_sum, clipped_vector
from quire.clients.private.plan import Plan, SharedPlan, is_adaptive
from quire.clients.private.sgd import PrivateBench
from quire.clients.simulation import done_ahead
from quire.clients.tasks import Task
from quire.clients.training import Workbench, workbench
from quire.conf.schema import FedProxStrategy, RecordDistributedPrivacy, RecordPrivacy, Settings
from quire.privacy.csprng import Csprng
from quire.privacy.dp.adaptive import centred_bit
from quire.privacy.dp.rounding import clip_to

#: What a simulated silo shows of a round, by the names that the journal gives it.
Shown = dict[str, float]


def private_update(
    settings: Settings,
    task: Task,
    rows: Rows,
    plan: Plan,
    entropy: Entropy,
    silo: str,
    model: Arrays,
    round_number: int,
) -> tuple[Arrays, Shown]:
    """Train under the plan.

    Parameters
    ----------
    settings : Settings
        With ``privacy=record`` or ``privacy=silo``.
    task : Task
    rows : Rows
        The silo's training rows; their number enters nowhere.
    plan : Plan
    entropy : Entropy
        Where batches and noise come from.
    silo : str
    model : dict of str to numpy.ndarray
        The global model.
    round_number : int

    Returns
    -------
    update : dict of str to numpy.ndarray
        What leaves, in the model's dtypes; where the clip is adaptive, with the bit beside it.
    shown : dict of str to float
        What the round looked like from the inside; only a simulated silo may send it.
    """
    if isinstance(settings.privacy, RecordPrivacy):
        bench = _bench(task, settings.privacy.gradients, device_of(settings))
        bench.bench.load(model)
        mu = settings.strategy.mu if isinstance(settings.strategy, FedProxStrategy) else 0.0
        source = Csprng(entropy.key("private", round_number, silo))
        try:
            steps = bench.train(rows, plan, settings.training, source, mu)
        except BaseException:
            _private_bench.cache_clear()  # what layers have kept of a half-made step must not meet the next round's
            raise
        shown = {
            "train-loss": steps.loss,
            "signal-norm": steps.signal,
            "noise-norm": steps.noise,
            "clipped-share": steps.clipped / max(steps.rows, 1),
            "broken-gradients": float(steps.broken),
        }
        return bench.bench.difference(model), shown
    trained = _trained(settings, task, rows, entropy.generator("batches", round_number, silo), model)
    update, norm = clipped_update(trained.update, plan.clip, plan.weight)
    if is_adaptive(settings.privacy):
        update[WITHIN] = np.array(centred_bit(norm, plan.clip))
    return update, {"train-loss": trained.loss, "signal-norm": norm, "clipped-share": float(norm > plan.clip)}


def shared_vector(
    settings: Settings,
    task: Task,
    rows: Rows,
    plan: SharedPlan,
    entropy: Entropy,
    silo: str,
    model: Arrays,
    attempt: tuple[int, int],
) -> tuple[np.ndarray, Shown]:
    """Work out what a silo adds to a sum under distributed noise: clipped, and without any noise yet.

    Parameters
    ----------
    settings : Settings
        With ``privacy=record_distributed`` or ``silo_distributed``.
    task, rows, plan, entropy, silo, model
        As for :func:`private_update`.
    attempt : tuple of (int, int)
        The round, and which attempt of it: each draws its batch anew.

    Returns
    -------
    vector : numpy.ndarray of float64
        In the order of the model's arrays.
    shown : dict of str to float
        As for :func:`private_update`.
    """
    noise = plan.noise
    # Of the noise on the whole sum, by the number of its terms: beside it a silo's own norm is its part of the signal.
    spread = noise.noise() * noise.denominator / noise.parties * math.sqrt(sum(part.size for part in model.values()))
    if isinstance(settings.privacy, RecordDistributedPrivacy):
        source = Csprng(entropy.key("batch", *attempt, silo))
        found = batch_sum(task, settings.privacy.gradients, model, rows, plan.rate, plan.clip, source)
        return found.total, {
            "train-loss": found.loss,
            "signal-norm": found.signal,
            "noise-norm": spread,
            "clipped-share": found.clipped / max(found.rows, 1),
            "broken-gradients": float(found.broken),
        }
    trained = _trained(settings, task, rows, entropy.generator("batches", *attempt, silo), model)
    vector, norm = clipped_vector(trained.update, tuple(model), plan.clip)
    shown = {"train-loss": trained.loss, "signal-norm": min(norm, plan.clip), "noise-norm": spread}
    return vector, {**shown, "clipped-share": float(norm > plan.clip)}


def _trained(settings: Settings, task: Task, rows: Rows, batches: np.random.Generator, model: Arrays) -> Trained:
    """Train; without a row the update is zero, and goes through the same clipping and noise as any other."""
    bench = workbench(task, device_of(settings))
    if len(rows):
        return train_locally(bench, rows, settings, batches, model, {}, {})
    bench.load(model)  # arrays that are no model of the task are refused as ever
    return Trained(bench.difference(model), 0, 0.0)


def clipped_update(update: Arrays, clip: float, weight: float = 1.0) -> tuple[Arrays, float]:
    """Clip a whole update to an L2 norm of at most ``clip``, all arrays together, and weight it.

    Parameters
    ----------
    update : dict of str to numpy.ndarray
        One that is not finite becomes zero.
    clip : float
    weight : float
        Public, in (0, 1].

    Returns
    -------
    clipped : dict of str to numpy.ndarray
        In the same dtypes.
    norm : float
        What the norm was before; NaN or infinite if the update was not finite.
    """
    flat = np.concatenate([part.reshape(-1).astype(np.float64) for part in update.values()])
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(flat))
    short, _ = clip_to(flat, clip)
    short *= weight
    parts, start = {}, 0
    for name, part in update.items():
        parts[name] = short[start : start + part.size].reshape(part.shape).astype(part.dtype)
        start += part.size
    return parts, norm


def _bench(task: Task, method: str, device: str) -> PrivateBench:
    """Return this process's; in a simulation, the one on which the work was done ahead."""
    ahead = done_ahead()
    if isinstance(ahead, PrivateBench) and (ahead.task, ahead.method) == (task, method):
        return ahead
    return _private_bench(task, method, device)


@lru_cache(maxsize=8)
def _private_bench(task: Task, method: str, device: str) -> PrivateBench:
    if device == "cpu":
        return PrivateBench(Workbench(task), method)
    from quire.clients.device import torch_device
    from quire.clients.on_device import DevicePrivateBench

    return DevicePrivateBench(task, method, torch_device(device))
