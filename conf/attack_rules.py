"""Which settings an attack, and the suspicion that looks for one, cannot go with, and why."""

from __future__ import annotations

from quire.conf.attack_schema import BackdoorAttack, LabelFlipAttack, QuarantineSuspicion
from quire.conf.schema import (
    Attack,
    FedNovaStrategy,
    InlineRuntime,
    NoCompression,
    NoPrivacy,
    NoSuspicion,
    PlainAggregation,
    QFedAvgStrategy,
    ScaffoldStrategy,
    Settings,
    SklearnData,
    SyntheticData,
    TopKCompression,
)
from quire.errors import SettingsError

#: With fewer silos than this in a round nothing is said about any: there is no telling who lies apart.
FEWEST_COMPARED = 5

#: Their silos send a control variate, a number of steps, or a divisor, along with the update.
_MORE_THAN_UPDATES = (ScaffoldStrategy, FedNovaStrategy, QFedAvgStrategy)


def colluders_of(fraction: float, silos: int) -> int:
    """Return how many of so many silos collude: the fraction, rounded down."""
    return int(fraction * silos + 1e-9)


def check_attack(settings: Settings) -> None:
    """Refuse settings under which an attack is not what it says, or nobody would carry it out.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    attack = settings.attack
    if not isinstance(attack, Attack):
        return
    where = f"attack={attack.name}"
    if not isinstance(settings.runtime, InlineRuntime):
        raise SettingsError(
            f"{where} is carried out by the in-process simulation alone, not by runtime={settings.runtime.name}: take "
            "runtime=inline or batched."
        )
    if not isinstance(settings.aggregation, PlainAggregation) or not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            f"{where} replaces updates that are sent in clear: take privacy=none, and aggregation=plain or a robust "
            "rule."
        )
    if isinstance(settings.strategy, _MORE_THAN_UPDATES):
        raise SettingsError(
            f"{where} says what becomes of updates, and strategy={settings.strategy.name} has silos send more than "
            "them: take fedavg, fedprox or a server optimiser."
        )
    if not isinstance(settings.compression, NoCompression):
        raise SettingsError(
            f"{where} replaces whole updates, and compression={settings.compression.name} sends parts of them: take "
            "compression=none."
        )
    if settings.training.local_layers:
        raise SettingsError(
            f"{where} is told by what the final model does on all test rows, and training.local_layers="
            f"{','.join(settings.training.local_layers)} leaves no one model to ask: leave the layers out."
        )
    if colluders_of(attack.fraction, settings.partition.silos) < 1:
        raise SettingsError(
            f"attack.fraction={attack.fraction:g} of partition.silos={settings.partition.silos} is not one silo: raise "
            "one of them."
        )
    if attack.start > settings.strategy.rounds:
        raise SettingsError(
            f"attack.start={attack.start} is after the last of strategy.rounds={settings.strategy.rounds}: lower it."
        )
    if isinstance(attack, LabelFlipAttack | BackdoorAttack):
        _rows_can_be_poisoned(settings, attack)


def _rows_can_be_poisoned(settings: Settings, attack: LabelFlipAttack | BackdoorAttack) -> None:
    data, where = settings.data, f"attack={attack.name}"
    if not isinstance(data, SklearnData | SyntheticData) or settings.task.name == "diabetes":
        raise SettingsError(
            f"{where} relabels the rows of simulated silos that tell classes apart, which task={settings.task.name} "
            "has not: take breast_cancer, digits or synthetic."
        )
    if isinstance(data, SklearnData) and data.preprocessing == "federated":
        raise SettingsError(
            f"{where} says nothing of what colluders add to data.preprocessing=federated: take public or per_silo."
        )
    if isinstance(attack, LabelFlipAttack):
        return
    shipped = {"digits": (10, 64), "breast_cancer": (2, 30)}
    classes, features = (data.classes, data.features) if isinstance(data, SyntheticData) else shipped[data.dataset]
    if attack.target >= classes:
        raise SettingsError(f"attack.target={attack.target} is no class: they are counted from 0 to {classes - 1}.")
    if attack.features >= features:
        raise SettingsError(
            f"attack.features={attack.features} leaves nothing of a row, which has {features} features: lower it."
        )


def check_suspicion(settings: Settings) -> None:
    """Refuse settings under which updates cannot be compared.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    suspicion = settings.suspicion
    if type(suspicion) is NoSuspicion:
        return
    where = f"suspicion={suspicion.name}"
    if not isinstance(settings.aggregation, PlainAggregation):
        raise SettingsError(
            f"{where} compares silos' updates, and aggregation=secure lets nobody see one: take suspicion=none, or "
            "aggregation=plain or a robust rule."
        )
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            f"{where} compares silos' updates, and privacy={settings.privacy.name} hides in noise what it looks for: "
            "take suspicion=none or privacy=none."
        )
    if isinstance(settings.strategy, _MORE_THAN_UPDATES):
        raise SettingsError(
            f"{where} scores updates, and strategy={settings.strategy.name} has silos send more than them: take "
            "fedavg, fedprox or a server optimiser."
        )
    if isinstance(settings.compression, TopKCompression):
        raise SettingsError(
            f"{where} compares updates number by number, and with compression=top_k each silo sends others: take "
            "suspicion=none, or compression=none or eight_bit."
        )
    if settings.silos_asked < FEWEST_COMPARED:
        raise SettingsError(
            f"{where} needs {FEWEST_COMPARED} silos a round to tell who lies apart, and {settings.silos_asked} are "
            "asked: raise partition.silos or strategy.fraction."
        )
    if isinstance(suspicion, QuarantineSuspicion) and suspicion.vote:
        _silos_can_vote(settings)


def _silos_can_vote(settings: Settings) -> None:
    if isinstance(settings.data, SyntheticData | SklearnData) and not settings.data.validation_fraction:
        raise SettingsError(
            "suspicion.vote=true has silos score models on rows that must not be those of the report: set "
            "data.validation_fraction, for example to 0.2."
        )
