"""Which settings robust aggregation cannot serve, and why: what protects less than its name says is refused."""

from __future__ import annotations

from quire.conf.robust_schema import FEWEST, MultiKrumAggregation
from quire.conf.schema import FedNovaStrategy, NoPrivacy, RobustAggregation, ScaffoldStrategy, Settings, SyntheticData
from quire.errors import SettingsError


def check_robust(settings: Settings) -> None:
    """Refuse settings that robust aggregation cannot serve.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    rule = settings.aggregation
    if not isinstance(rule, RobustAggregation):
        return
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            f"aggregation={rule.name} looks for updates that lie apart, and privacy={settings.privacy.name} hides "
            "that behind noise: take privacy=none, or aggregation=plain."
        )
    if isinstance(settings.strategy, ScaffoldStrategy | FedNovaStrategy):
        raise SettingsError(
            f"strategy={settings.strategy.name} averages more than updates, and aggregation={rule.name} bounds the "
            "influence on updates alone: take fedavg, fedprox or a server optimiser."
        )
    if not isinstance(settings.data, SyntheticData) and settings.data.preprocessing == "federated":
        raise SettingsError(
            "data.preprocessing=federated scales all rows by moments that silos state, and aggregation="
            f"{rule.name} bounds the influence on updates alone: take data.preprocessing=public or per_silo."
        )
    asked, byzantine = settings.silos_asked, getattr(rule, "byzantine", 0)
    fewest = FEWEST[rule.name](byzantine) if rule.name in FEWEST else 1
    if asked < fewest:
        raise SettingsError(
            f"aggregation={rule.name} with aggregation.byzantine={byzantine} takes at least {fewest} updates a round, "
            f"and {asked} silos are asked: raise partition.silos or strategy.fraction, or lower aggregation.byzantine."
        )
    if isinstance(rule, MultiKrumAggregation) and rule.kept is not None and rule.kept > asked - byzantine:
        raise SettingsError(
            f"aggregation.kept={rule.kept} is more than the {asked - byzantine} of {asked} updates that "
            f"aggregation.byzantine={byzantine} leaves to trust: lower one of them."
        )
