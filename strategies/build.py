"""From settings to a strategy: a closed registry, found by name and never by import path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.conf.attack_schema import WatchSuspicion
from quire.conf.schema import NoCompression, NoPrivacy, RobustAggregation, Settings, SiloPrivacy
from quire.errors import SettingsError
from quire.privacy.dp.adaptive import split
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.release import silo_noise
from quire.strategies.adaptive import AdaptiveSum
from quire.strategies.aggregators import PlainMean
from quire.strategies.chosen import algorithm_of
from quire.strategies.exchange import Deadlines
from quire.strategies.fedavg import FedAvg
from quire.strategies.fednova import FedNova
from quire.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from quire.strategies.fedprox import FedProx
from quire.strategies.private import NoisySum
from quire.strategies.qfedavg import QFedAvg
from quire.strategies.robust.build import robust_aggregator
from quire.strategies.scaffold import Scaffold
from quire.strategies.strategy import FederatedStrategy
from quire.strategies.suspicion.build import under_suspicion
from quire.strategies.watch import watched

_STRATEGIES: dict[str, Callable[..., FederatedStrategy]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedavgm": FedAvgM,
    "fedadagrad": FedAdagrad,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "qfedavg": QFedAvg,
}
# Settings that every strategy has; what is left of an option's settings are parameters of its own class.
_COMMON = {
    "fraction": "fraction_train",
    "fraction_evaluate": "fraction_evaluate",
    "evaluate_every": "evaluate_every",
    "min_silos": "min_silos",
}
_OF_THE_RUN = ("name", "rounds", "deadline", "deadlines")


def build_strategy(settings: Settings, simulated: bool = True) -> FederatedStrategy:
    """Return the strategy that the settings name, with their parameters.

    Parameters
    ----------
    settings : Settings
    simulated : bool
        Whether the silos are simulated. Otherwise noise comes from the operating system, and under privacy nobody is
        asked to score the model.

    Raises
    ------
    SettingsError
        If no noise keeps to the privacy that the settings ask for.
    """
    chosen = dict(vars(settings.strategy))
    options: dict[str, Any] = {_COMMON.get(key, key): value for key, value in chosen.items() if key not in _OF_THE_RUN}
    private = not isinstance(settings.privacy, NoPrivacy) and not settings.selftest
    options |= {"private": private, "simulated": simulated}
    if isinstance(settings.privacy, SiloPrivacy):
        options["aggregator"] = _noisy_sum(settings, settings.privacy, settings.seed if simulated else None)
    if isinstance(settings.aggregation, RobustAggregation):
        options["aggregator"] = robust_aggregator(settings.aggregation)
    if isinstance(settings.suspicion, WatchSuspicion):
        options["aggregator"] = under_suspicion(
            settings.suspicion, settings.strategy.min_silos, options.get("aggregator") or PlainMean()
        )
    strategy = _STRATEGIES[settings.strategy.name](seed=settings.seed, **options)
    strategy.deadlines = Deadlines.of(settings.strategy)
    strategy.algorithm = watched(algorithm_of(settings.strategy))  # the one that silos step by as well
    return strategy


def silos_remember(settings: Settings) -> str | None:
    """Return the setting by which silos keep something from round to round that later rounds need; None without one.

    Parameters
    ----------
    settings : Settings
    """
    if algorithm_of(settings.strategy).silos_remember:
        return f"strategy={settings.strategy.name}"
    if settings.training.local_layers:
        return "training.local_layers"
    if not isinstance(settings.compression, NoCompression):
        return f"compression={settings.compression.name}"
    return None


def _noisy_sum(settings: Settings, privacy: SiloPrivacy, seed: int | None) -> NoisySum | AdaptiveSum:
    cap = privacy.cap if privacy.weights == "capped" else None
    try:
        noise = silo_noise(privacy.epsilon, privacy.delta, settings.strategy.rounds)
        if privacy.clipping == "fixed":
            return NoisySum(privacy.clip, noise, cap, seed)
        split(noise, settings.silos_asked)  # once the silos are there, each round does so again
    except PrivacyError as error:
        raise SettingsError(str(error)) from error
    return AdaptiveSum(privacy.clip, noise, privacy.quantile, cap, seed)
