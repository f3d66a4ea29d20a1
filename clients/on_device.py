"""A workbench whose model and rows lie on a device: moved there once, and moved back as what leaves.

Everything else is as on the CPU. Batches and noise are drawn on the CPU, from the same generators and in the same
order; rows are clipped on the device, and their sum comes back to get its noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows
from quire.clients.device import at_work
from quire.clients.private.plan import Plan
from quire.clients.private.sgd import PrivateBench, Steps
from quire.clients.tasks.base import Task
from quire.clients.training import Workbench
from quire.conf.schema import SgdTraining
from quire.privacy.csprng import Csprng


class DeviceBench(Workbench):
    """A model of one task on a device.

    Parameters
    ----------
    task : Task
    device : torch.device
    settled : bool
        Whether the model is moved there at once; else by :meth:`settle`.
    """

    def __init__(self, task: Task, device: torch.device, settled: bool = True) -> None:
        super().__init__(task)
        self.device = device
        self._moved: WeakKeyDictionary[Rows, tuple[Tensor, Tensor]] = WeakKeyDictionary()
        self._host: dict[str, Tensor] = {}  # of this bench, which NumPy sees
        self._here: dict[str, Tensor] = {}  # the model's own
        if settled:
            self.settle()

    def settle(self) -> None:
        """Move the model to the device; its arrays are copied to memory of this bench when they are asked for."""
        self._host = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self._views = {name: tensor.numpy() for name, tensor in self._host.items()}
        self.model.to(self.device)
        self.parameters = list(self.model.parameters())
        self._here = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy parameters into the model."""
        super().load(arrays)
        for name, tensor in self._here.items():
            tensor.copy_(self._host[name])

    def difference(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return model minus ``arrays``."""
        self._fetch()
        return super().difference(arrays)

    def arrays(self) -> Arrays:
        """Return a copy of the model's parameters."""
        self._fetch()
        return super().arrays()

    def tensors(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return features and labels on the device; moved there once, for as long as the rows are kept."""
        found = self._moved.get(rows)
        if found is None:
            x, y = super().tensors(rows)
            found = self._moved[rows] = x.to(self.device), y.to(self.device)
        return found

    def train(
        self,
        rows: Rows,
        plan: SgdTraining,
        rng: np.random.Generator,
        mu: float = 0.0,
        correction: Mapping[str, np.ndarray] | None = None,
    ) -> float:
        """Train the model; see :meth:`quire.clients.training.Workbench.train`."""
        with at_work(self.device):
            return super().train(rows, plan, rng, mu, correction)

    def logits(self, rows: Rows) -> np.ndarray:
        """Return the model's outputs on some rows."""
        with at_work(self.device):
            return super().logits(rows)

    def _fetch(self) -> None:
        for name, tensor in self._here.items():
            self._host[name].copy_(tensor)


class DevicePrivateBench(PrivateBench):
    """A workbench on a device whose gradients are clipped row by row there.

    Parameters
    ----------
    task : Task
    method : str
        See :class:`quire.clients.private.sgd.PrivateBench`; not ``rows``.
    device : torch.device
    """

    def __init__(self, task: Task, method: str, device: torch.device) -> None:
        bench = DeviceBench(task, device, settled=False)
        super().__init__(bench, method)  # tries the model out, on the CPU
        bench.settle()

    def train(self, rows: Rows, plan: Plan, training: SgdTraining, source: Csprng, mu: float = 0.0) -> Steps:
        """Take the plan's steps; see :meth:`quire.clients.private.sgd.PrivateBench.train`."""
        device: torch.device = self.bench.device  # type: ignore[attr-defined]
        with at_work(device):
            return super().train(rows, plan, training, source, mu)
