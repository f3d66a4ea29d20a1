"""From settings to a strategy: a closed registry, found by name and never by import path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.conf.schema import Settings
from quire.strategies.fedavg import FedAvg
from quire.strategies.fednova import FedNova
from quire.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from quire.strategies.fedprox import FedProx
from quire.strategies.scaffold import Scaffold
from quire.strategies.strategy import FederatedStrategy

_STRATEGIES: dict[str, Callable[..., FederatedStrategy]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fednova": FedNova,
    "scaffold": Scaffold,
}
# Settings that every strategy has; what is left of an option's settings are parameters of its own class.
_COMMON = {
    "fraction": "fraction_train",
    "fraction_evaluate": "fraction_evaluate",
    "evaluate_every": "evaluate_every",
    "min_silos": "min_silos",
}
_OF_THE_RUN = ("name", "rounds", "deadline")


def build_strategy(settings: Settings) -> FederatedStrategy:
    """Return the strategy that the settings name, with their parameters."""
    chosen = dict(vars(settings.strategy))
    options: dict[str, Any] = {_COMMON.get(key, key): value for key, value in chosen.items() if key not in _OF_THE_RUN}
    return _STRATEGIES[settings.strategy.name](seed=settings.seed, **options)
