"""Algorithms: what silos are told, and how the mean update moves the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from quire.clients.contract import CONTROL, FAIR, FAIR_Q, PROXIMAL_MU, STEPS
from quire.strategies.rounds import Algorithm, Arrays, RoundState


def moved(model: Arrays, direction: Arrays, step: float) -> Arrays:
    """Return the model moved along a direction: summed in float64, rounded once to the model's dtype."""
    result = {}
    for name, array in model.items():
        new = array.astype(np.float64) + step * direction[name]
        if array.dtype.kind in "iu":  # a counter among a model's buffers
            limits = np.iinfo(array.dtype)
            new = np.clip(np.rint(new), limits.min, limits.max)
        with np.errstate(over="ignore"):  # the strategy looks for values that are not finite
            result[name] = new.astype(array.dtype)
    return result


@dataclass(frozen=True)
class Averaging(Algorithm):
    """Federated averaging: the model moves by ``server_lr`` times the mean update.

    With ``server_lr=1`` this is the average of the silos' models (McMahan et al. 2017, arXiv 1602.05629,
    algorithm 1); other values are the server step of Reddi et al. 2021 (arXiv 2003.00295, algorithm 1, SGD).
    """

    server_lr: float = 1.0

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Return the model moved by the mean update."""
        return RoundState(state.round + 1, moved(state.model, mean, self.server_lr), state.memory)


@dataclass(frozen=True)
class Proximal(Averaging):
    """FedProx: averaging of updates that each silo keeps near the global model by mu/2 * |w - w_global|^2.

    Li et al. 2020, arXiv 1812.06127, algorithm 2. Partial work of stragglers is not asked for.
    """

    mu: float = 0.0

    def client_config(self) -> Mapping[str, float | int]:
        """Tell ``proximal-mu``, the key that Flower's own FedProx uses."""
        return {PROXIMAL_MU: self.mu}


@dataclass(frozen=True)
class Normalised(Averaging):
    """FedNova: silos that take different numbers of steps pull towards the same objective.

    Wang et al. 2020, arXiv 2007.07481, equation 6. Each silo sends its update divided by the length |a_i| of its
    own course (its number of steps, for plain SGD), and that length; both are averaged by rows.
    """

    def reply_form(self, model: Arrays) -> Arrays:
        """The model's arrays, and the length of the course."""
        return {**model, STEPS: np.zeros((), np.float64)}

    def objection(self, update: Arrays) -> str | None:
        """A course has a positive length, and no silo takes a thousand million steps."""
        return None if 0.0 < float(update[STEPS]) <= 1e9 else "its number of steps cannot be"

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Return the model moved by the mean normalised update, as far as the mean course is long."""
        return RoundState(state.round + 1, moved(state.model, mean, self.server_lr * float(mean[STEPS])), state.memory)


@dataclass(frozen=True)
class Controlled(Averaging):
    """SCAFFOLD: control variates take the drift of unlike silos out of their updates.

    Karimireddy et al. 2020, arXiv 1910.06378, algorithm 1 with option II. The server's variate is sent along with
    the model; each silo corrects its gradients by it and by its own, and sends how its own has changed.
    """

    silos_remember: ClassVar[bool] = True
    uniform: ClassVar[bool] = True

    def told(self, state: RoundState) -> Arrays:
        """The server's control variate, in the model's dtype; zero before the first round."""
        return {
            name: state.memory[CONTROL + name].astype(array.dtype)
            if CONTROL + name in state.memory
            else np.zeros_like(array)
            for name, array in state.model.items()
        }

    def reply_form(self, model: Arrays) -> Arrays:
        """The model's arrays, and as many for the change of the silo's control variate."""
        return {**model, **{CONTROL + name: array for name, array in model.items()}}

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Return the model moved by the mean update, and the variate by the share of the silos that changed theirs."""
        memory = {
            CONTROL + name: state.memory.get(CONTROL + name, 0.0) + share * mean[CONTROL + name] for name in state.model
        }
        return RoundState(state.round + 1, moved(state.model, mean, self.server_lr), memory)


@dataclass(frozen=True)
class Reweighted(Averaging):
    """q-FedAvg: silos that the model serves badly pull harder, so that scores lie closer together.

    Li et al. 2020, arXiv 1905.10497, algorithm 2, with p_k the share of rows. A silo with loss F at the global model
    sends F^q times its update, and h = F^q + q F^(q-1) L |update|^2; the model moves by the sum of the first over the
    sum of the second. Both are the paper's divided by L, so that with q = 0 this is FedAvg.
    """

    q: float = 0.0

    def client_config(self) -> Mapping[str, float | int]:
        """Tell q."""
        return {FAIR_Q: self.q}

    def reply_form(self, model: Arrays) -> Arrays:
        """The model's arrays, and the divisor."""
        return {**model, FAIR: np.zeros((), np.float64)}

    def objection(self, update: Arrays) -> str | None:
        """A divisor is positive, and so large that a sum overflows is none."""
        return None if 0.0 < float(update[FAIR]) <= 1e100 else "its divisor cannot be"

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Return the model moved by the sum of the reweighted updates over that of the divisors."""
        return RoundState(state.round + 1, moved(state.model, mean, self.server_lr / float(mean[FAIR])), state.memory)
