"""Server optimisers: the mean update taken as a gradient, and stepped along with memory.

Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295, algorithm 2; momentum as in Hsu et al. 2019,
arXiv 1909.06335, section 4.3. All moments are kept in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from quire.strategies.algorithms import moved
from quire.strategies.rounds import Algorithm, Arrays, RoundState


@dataclass(frozen=True)
class Momentum(Algorithm):
    """FedAvgM: v <- beta v + mean, model <- model + server_lr v."""

    server_lr: float = 1.0
    beta: float = 0.9
    moments: ClassVar[tuple[str, ...]] = ("v",)

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Return the model moved along the running sum of mean updates."""
        velocity = {
            name: self.beta * state.memory[f"v/{name}"] + update if f"v/{name}" in state.memory else update
            for name, update in mean.items()
        }
        return _remembering(state, moved(state.model, velocity, self.server_lr), v=velocity)


@dataclass(frozen=True)
class Adaptive(Algorithm):
    """What FedAdagrad, FedAdam and FedYogi share: model <- model + server_lr m / (sqrt(v) + tau).

    Attributes
    ----------
    server_lr : float
        Step of the server.
    beta_1, beta_2 : float
        How slowly the first and the second moment forget.
    tau : float
        Degree of adaptivity: large means that all coordinates move alike.
    initial_v : float or None
        Second moment before the first round; None is tau squared, the least that the paper allows.
    """

    server_lr: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    initial_v: float | None = None
    moments: ClassVar[tuple[str, ...]] = ("m", "v")

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Return the model moved by the mean update, each coordinate scaled by its own second moment."""
        start = self.tau**2 if self.initial_v is None else self.initial_v
        first, second, moves = {}, {}, {}
        for name, update in mean.items():
            m = state.memory.get(f"m/{name}", np.zeros_like(update))
            v = state.memory.get(f"v/{name}", np.full_like(update, start))
            first[name] = self.beta_1 * m + (1.0 - self.beta_1) * update
            second[name] = self.second_moment(v, update * update)
            moves[name] = first[name] / (np.sqrt(second[name]) + self.tau)
        return _remembering(state, moved(state.model, moves, self.server_lr), m=first, v=second)

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """Return the next second moment from the last one and the squared mean update."""
        raise NotImplementedError


@dataclass(frozen=True)
class Adagrad(Adaptive):
    """FedAdagrad: v <- v + mean^2."""

    beta_1: float = 0.0

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """Sum the squares of all rounds."""
        return np.asarray(v + square)


@dataclass(frozen=True)
class Adam(Adaptive):
    """FedAdam: v <- beta_2 v + (1 - beta_2) mean^2. No bias correction, as in the paper."""

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """Average the squares, forgetting old rounds."""
        return np.asarray(self.beta_2 * v + (1.0 - self.beta_2) * square)


@dataclass(frozen=True)
class Yogi(Adaptive):
    """FedYogi: v <- v - (1 - beta_2) mean^2 sign(v - mean^2)."""

    def second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        """Move towards the square by a step that depends on the square alone."""
        return np.asarray(v - (1.0 - self.beta_2) * square * np.sign(v - square))


def _remembering(state: RoundState, model: Arrays, **memory: Arrays) -> RoundState:
    """Return the next state, its memory under prefixed names."""
    kept = {f"{prefix}/{name}": array for prefix, arrays in memory.items() for name, array in arrays.items()}
    return RoundState(state.round + 1, model, kept)
