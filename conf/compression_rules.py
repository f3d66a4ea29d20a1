"""Which settings compression cannot serve, and why."""

from __future__ import annotations

from quire.conf.compression_schema import NoCompression
from quire.conf.schema import FedNovaStrategy, NoPrivacy, ScaffoldStrategy, SecureAggregation, Settings
from quire.errors import SettingsError


def check_compression(settings: Settings) -> None:
    """Refuse settings that compression cannot serve.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    chosen = settings.compression
    if isinstance(chosen, NoCompression):
        return
    if isinstance(settings.aggregation, SecureAggregation):
        raise SettingsError(
            f"compression={chosen.name} leaves out or rounds what each silo finds small, and under aggregation=secure "
            "all silos add up the same coordinates, as whole numbers already: take compression=none."
        )
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            f"compression={chosen.name} keeps back what it does not send and adds it to the next update, which the "
            f"clipping of privacy={settings.privacy.name} does not account for: take compression=none."
        )
    if isinstance(settings.strategy, ScaffoldStrategy | FedNovaStrategy):
        raise SettingsError(
            f"strategy={settings.strategy.name} sends more than an update, and compression={chosen.name} is for "
            "updates: take fedavg, fedprox or a server optimiser."
        )
