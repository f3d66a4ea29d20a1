"""What a silo adds to a sum under distributed noise: clipped, and without any noise yet.

Record unit: one step of DP-FedSGD. The batch is a Poisson sample at the public rate, from the silo's own coin; every
row's gradient is clipped; what leaves this module is their *sum* in float64, neither noisy nor divided, for
:func:`quire.privacy.dp.shares.words`. Silo unit: the silo trains as always, and its whole update is clipped.

Both are flat vectors in the order of the model's arrays as they travel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.private.gradients import ClippedGradients
from quire.clients.tasks import Task
from quire.clients.training import Workbench
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.rounding import clip_to


@dataclass(frozen=True, eq=False)
class BatchSum:
    """What one batch gives; nothing but ``total``, with noise, leaves a silo that is not simulated.

    Attributes
    ----------
    total : numpy.ndarray of float64, shape (parameters,)
        Sum of the clipped gradients.
    rows : int
        Rows drawn.
    clipped, broken : int
        Of those, how many gradients were longer than the clip, and how many not finite (they added zero).
    loss : float
        Mean training loss over the rows drawn; 0 if none were.
    """

    total: np.ndarray
    rows: int
    clipped: int
    broken: int
    loss: float

    @property
    def signal(self) -> float:
        """L2 norm of the sum."""
        return float(np.linalg.norm(self.total))


class GradientBench:
    """A workbench for one step: clipped gradients of a batch, added up.

    Parameters
    ----------
    bench : Workbench
        For this use alone: its model may get Opacus' hooks.
    method : str
        ``auto``, ``rows``, ``hooks`` or ``ghost``; see :class:`quire.clients.private.gradients.ClippedGradients`.
        ``auto`` is ``rows`` here, for the server that chooses the model is not trusted.

    Raises
    ------
    SettingsError
        If the model mixes rows, or has arrays without a gradient of their own: they would get noise and nothing else.
    """

    def __init__(self, bench: Workbench, method: str = "auto") -> None:
        self.bench = bench
        found = {name: parameter.numel() for name, parameter in bench.model.named_parameters()}
        others = sorted(set(bench.arrays()) - set(found))
        if others:
            raise SettingsError(
                f"The model has arrays without a gradient of their own ({', '.join(others[:3])}): under distributed "
                "noise they would get noise and nothing else; make them constants of the code."
            )
        how, task = "rows" if method == "auto" else method, bench.task
        self._gradients = ClippedGradients(bench.model, task.loss, task.features, task.classes, how)
        ends = np.cumsum(list(found.values()))
        self._places = {name: slice(int(end) - found[name], int(end)) for name, end in zip(found, ends, strict=True)}

    def sum(self, model: Arrays, rows: Rows, rate: float, clip: float, source: Csprng) -> BatchSum:
        """Draw a batch and add up its clipped gradients at a model.

        Parameters
        ----------
        model : dict of str to numpy.ndarray
            The global model; its order is that of the sum.
        rows : Rows
            Their number enters nowhere.
        rate : float
            Probability of a row to be in the batch, in (0, 1].
        clip : float
            L2 norm, above 0.
        source : Csprng
            Of this attempt alone: one that is repeated draws its batch anew.

        Raises
        ------
        WrongModel
            If the arrays are not those of the task's model.
        """
        self.bench.load(model)
        batch = torch.from_numpy(source.poisson_sample(len(rows), rate))
        x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
        part = self._gradients.sum(x.index_select(0, batch), y.index_select(0, batch), clip)
        total = np.concatenate([part.total[self._places[name]] for name in model])
        return BatchSum(total, len(batch), part.clipped, part.broken, part.loss / max(len(batch) - part.broken, 1))


def batch_sum(task: Task, method: str, model: Arrays, rows: Rows, rate: float, clip: float, source: Csprng) -> BatchSum:
    """Return the sum of a batch's clipped gradients, on a bench that this process keeps for the task."""
    bench = _gradient_bench(task, method)
    try:
        return bench.sum(model, rows, rate, clip, source)
    except BaseException:
        _gradient_bench.cache_clear()  # what layers have kept of a half-made pass must not meet the next round's
        raise


def clipped_vector(update: Mapping[str, np.ndarray], names: Sequence[str], clip: float) -> tuple[np.ndarray, float]:
    """Flatten a silo's update and clip it as one.

    Parameters
    ----------
    update : mapping of str to numpy.ndarray
    names : sequence of str
        The model's arrays, in the order of the vector.
    clip : float
        L2 norm, above 0.

    Returns
    -------
    vector : numpy.ndarray of float64
        Zero if the update was not finite. The check in integers comes with the encoding.
    norm : float
        What the norm was before; NaN or infinite if the update was not finite.
    """
    flat = np.concatenate([np.ravel(update[name]).astype(np.float64) for name in names])
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(flat))
    return clip_to(flat, clip)[0], norm


def shaped(vector: np.ndarray, model: Mapping[str, np.ndarray]) -> Arrays:
    """Return a flat vector as arrays with the model's names, shapes and order, in float64."""
    parts: Arrays = {}
    at = 0
    for name, array in model.items():
        size = math.prod(array.shape)
        parts[name] = vector[at : at + size].reshape(array.shape)
        at += size
    return parts


@lru_cache(maxsize=8)
def _gradient_bench(task: Task, method: str) -> GradientBench:
    return GradientBench(Workbench(task), method)
