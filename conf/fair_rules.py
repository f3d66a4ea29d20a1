"""Which settings q-FedAvg, layers that stay local, and tuning cannot serve, and why."""

from __future__ import annotations

from quire.conf.compression_schema import NoCompression
from quire.conf.schema import (
    FlowerRuntime,
    NoPrivacy,
    PlainAggregation,
    QFedAvgStrategy,
    RobustAggregation,
    ScaffoldStrategy,
    Settings,
)
from quire.errors import SettingsError

#: Models of ours that are one layer, of which none is left to share once one stays.
_ONE_LAYER = ("logistic", "linear")


def check_fair(settings: Settings) -> None:
    """Refuse settings that fairness and personalisation cannot serve.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    if isinstance(settings.strategy, QFedAvgStrategy):
        _reweighting_is_plain(settings)
    if settings.training.local_layers:
        _layers_can_stay(settings)
    if settings.training.tuning_lr is not None and not settings.training.tuning_epochs:
        raise SettingsError(
            f"training.tuning_lr={settings.training.tuning_lr:g} is for tuning, and training.tuning_epochs=0 has none: "
            "set the epochs as well."
        )
    if settings.training.tuning_epochs and settings.strategy.fraction_evaluate == 0.0:
        raise SettingsError(
            f"training.tuning_epochs={settings.training.tuning_epochs} tunes a copy of the model that is scored, and "
            "strategy.fraction_evaluate=0 has nobody score: set one of them."
        )


def _reweighting_is_plain(settings: Settings) -> None:
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            "strategy=qfedavg multiplies updates by a power of the silo's own loss and sends what to divide by, which "
            f"privacy={settings.privacy.name} does not account for: take fedavg, fedprox or a server optimiser."
        )
    if not isinstance(settings.compression, NoCompression):
        raise SettingsError(
            f"strategy=qfedavg sends more than an update, and compression={settings.compression.name} is for updates: "
            "take compression=none, or fedavg."
        )
    if isinstance(settings.aggregation, RobustAggregation):
        raise SettingsError(
            f"strategy=qfedavg has silos say how much they count for, and aggregation={settings.aggregation.name} has "
            "all count alike: take aggregation=plain, or fedavg."
        )
    if not isinstance(settings.aggregation, PlainAggregation):
        raise SettingsError(
            "strategy=qfedavg sums updates that shrink with a power of the loss, and divisors without a public bound, "
            f"and aggregation={settings.aggregation.name} sums numbers of one public range and resolution, in which "
            "the first are lost and the second do not fit: take aggregation=plain, or fedavg."
        )


def _layers_can_stay(settings: Settings) -> None:
    words, model = settings.training.local_layers, settings.task.model
    where = f"training.local_layers={','.join(words)}"
    if len(set(words)) < len(words):
        raise SettingsError(f"{where} names a layer twice: name each once.")
    if model in _ONE_LAYER:
        raise SettingsError(
            f"{where} cannot stay in the silos with task.model={model}, which is one layer: take task.model=mlp or cnn."
        )
    if "norm" in words and model == "mlp":
        raise SettingsError(f"{where}: task.model=mlp has no normalisation layer; take head, or task.model=cnn.")
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            f"{where} trains layers that no noise is added to, and every record's later gradients pass through them, "
            f"so that the noise of privacy={settings.privacy.name} would not bound what one record does: leave them "
            "out, or take training.tuning_epochs, which nothing that is sent depends on."
        )
    if isinstance(settings.strategy, ScaffoldStrategy):
        raise SettingsError(
            f"{where} and strategy=scaffold both have silos remember something by the names of parameters: take "
            "fedavg, fedprox or a server optimiser."
        )
    if isinstance(settings.runtime, FlowerRuntime):
        raise SettingsError(
            f"{where} stays in the silos, and runtime=flower cannot be asked for it when the model is compared at the "
            "end: take runtime=inline or batched."
        )
