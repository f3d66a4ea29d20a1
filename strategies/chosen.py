"""Which algorithm the settings choose: the one place that server and silos have it from.

Pure, as :mod:`quire.strategies.rounds` is: a silo that recomputes the next model from a published sum builds its
algorithm here, from settings that it has composed itself, and steps as the server does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quire.conf.schema import FedAvgStrategy
from quire.strategies.algorithms import Averaging, Controlled, Normalised, Proximal, Reweighted
from quire.strategies.rounds import Algorithm
from quire.strategies.server_optimizers import Adagrad, Adam, Momentum, Yogi

# By the strategy's name: the algorithm, and which of its parameters the settings have under which name.
_STEP = {"server_lr": "server_lr"}
_ADAPTIVE = {**_STEP, "tau": "tau"}
_MOMENTS = {**_ADAPTIVE, "beta_1": "beta_1", "beta_2": "beta_2"}
_ALGORITHMS: Mapping[str, tuple[Callable[..., Algorithm], Mapping[str, str]]] = {
    "fedavg": (Averaging, _STEP),
    "fedprox": (Proximal, {**_STEP, "mu": "mu"}),
    "fedavgm": (Momentum, {**_STEP, "beta": "momentum"}),
    "fedadagrad": (Adagrad, _ADAPTIVE),
    "fedadam": (Adam, _MOMENTS),
    "fedyogi": (Yogi, _MOMENTS),
    "fednova": (Normalised, _STEP),
    "scaffold": (Controlled, _STEP),
    "qfedavg": (Reweighted, {**_STEP, "q": "q"}),
}


def algorithm_of(strategy: FedAvgStrategy) -> Algorithm:
    """Return the algorithm of a run, with its parameters.

    Parameters
    ----------
    strategy : FedAvgStrategy
        The strategy's settings.
    """
    kind, parameters = _ALGORITHMS[strategy.name]
    chosen: dict[str, Any] = {mine: getattr(strategy, theirs) for mine, theirs in parameters.items()}
    return kind(**chosen)
