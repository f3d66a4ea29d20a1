"""Algorithms: what silos are told, and how the mean update moves the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quire.clients.contract import PROXIMAL_MU
from quire.strategies.rounds import Arrays, RoundState


@dataclass(frozen=True)
class Averaging:
    """Federated averaging: the model moves by ``server_lr`` times the mean update.

    With ``server_lr=1`` this is the average of the silos' models (McMahan et al. 2017, arXiv 1602.05629,
    algorithm 1); other values are the server step of Reddi et al. 2021 (arXiv 2003.00295, algorithm 1, SGD).
    """

    server_lr: float = 1.0

    def client_config(self) -> Mapping[str, float | int]:
        """FedAvg tells silos nothing beside model and round."""
        return {}

    def step(self, state: RoundState, mean: Arrays) -> RoundState:
        """Return the model moved by the mean update: summed in float64, rounded once to the model's dtype."""
        model = {
            name: (array.astype(np.float64) + self.server_lr * mean[name]).astype(array.dtype)
            for name, array in state.model.items()
        }
        return RoundState(state.round + 1, model, state.memory)


@dataclass(frozen=True)
class Proximal(Averaging):
    """FedProx: averaging of updates that each silo keeps near the global model by mu/2 * |w - w_global|^2.

    Li et al. 2020, arXiv 1812.06127, algorithm 2. Partial work of stragglers is not asked for.
    """

    mu: float = 0.0

    def client_config(self) -> Mapping[str, float | int]:
        """Tell ``proximal-mu``, the key that Flower's own FedProx uses."""
        return {PROXIMAL_MU: self.mu}
