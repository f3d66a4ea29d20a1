"""Which settings secure aggregation cannot serve, and why."""

from __future__ import annotations

from quire.conf.asked import fewest_in_sum
from quire.conf.group_rules import check_groups
from quire.conf.numbers import colluders_of, max_rows_of, parties_of
from quire.conf.schema import (
    DistributedPrivacy,
    FedNovaStrategy,
    ScaffoldStrategy,
    SecureAggregation,
    Settings,
    SiloPrivacy,
    SyntheticData,
)
from quire.errors import SettingsError

#: Members of one session; what the parsers of the protocol allocate for.
MOST_SILOS = 2048


def check_secure(settings: Settings) -> None:
    """Refuse settings that secure aggregation cannot serve.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    secure = settings.aggregation
    if not isinstance(secure, SecureAggregation):
        if settings.output.transcripts:
            raise SettingsError(
                "output.transcripts=true keeps what secure aggregation received, and aggregation=plain has none of it: "
                "take aggregation=secure, or leave transcripts out."
            )
        return
    _fits_the_strategy(settings)
    _nothing_travels_in_clear(settings)
    _enough_silos(settings, secure)
    check_groups(settings, secure)
    _short_cut_stands_alone(settings, secure)
    _norm_is_bounded_once(settings, secure)
    if isinstance(settings.privacy, DistributedPrivacy):
        return  # its sums have no weights, and an encoding of their own; see privacy/dp/encoding.py
    max_rows_of(settings, secure)
    _numbers_fit(settings, secure)


def _fits_the_strategy(settings: Settings) -> None:
    if isinstance(settings.privacy, SiloPrivacy):
        raise SettingsError(
            "privacy=silo has a server that is trusted add the noise to updates that it sees, and aggregation=secure "
            "is for one that is not: take privacy=silo_distributed, privacy=record, or aggregation=plain."
        )
    if isinstance(settings.strategy, ScaffoldStrategy):
        raise SettingsError(
            "strategy=scaffold also averages control variates, which are gradients without a public bound, and "
            "aggregation=secure sums bounded numbers only: take fedavg, fedprox, fednova or a server optimiser."
        )


def _nothing_travels_in_clear(settings: Settings) -> None:
    how = "public" if isinstance(settings.data, SyntheticData) else settings.data.preprocessing
    if how == "federated":
        raise SettingsError(
            "data.preprocessing=federated sends the moments of each silo's features in clear, which aggregation=secure "
            "is there to avoid: take public or per_silo."
        )


def _enough_silos(settings: Settings, secure: SecureAggregation) -> None:
    silos, asked = settings.partition.silos, settings.silos_asked
    if silos > MOST_SILOS:
        raise SettingsError(f"aggregation=secure serves at most {MOST_SILOS} silos, and partition.silos={silos}.")
    if secure.groups is not None:
        return  # counted in each group: see conf/group_rules.py
    colluders = colluders_of(secure, silos)
    if silos - colluders < 2:
        raise SettingsError(
            f"aggregation.colluders={colluders} leaves fewer than two honest silos of {silos}, whose sum is then no "
            "secret: lower it, or take more silos."
        )
    least = fewest_in_sum(silos, colluders, settings.strategy.min_silos)
    if asked < least:
        raise SettingsError(
            f"aggregation=secure opens no sum of fewer than {least} of {silos} silos with aggregation.colluders="
            f"{colluders}, and a round asks {asked}: raise strategy.fraction, or lower aggregation.colluders."
        )


def _short_cut_stands_alone(settings: Settings, secure: SecureAggregation) -> None:
    """Refuse what would speak for the protocol of a run that has none of it."""
    if not secure.exact:
        return
    where = "aggregation.simulate=exact_sum sums in clear"
    if settings.output.transcripts:
        raise SettingsError(
            f"{where}, so that there are no messages of the protocol to keep: leave out output.transcripts, or take "
            "aggregation.simulate=protocol."
        )
    if settings.selftest:
        raise SettingsError(
            f"{where}, and privacy.selftest is to show that the noise is right under the masks: take "
            "aggregation.simulate=protocol."
        )
    if settings.charter is not None:
        raise SettingsError(
            f"{where}, which is no run that members of a charter have agreed to: leave out charter, or take "
            "aggregation.simulate=protocol."
        )


def _norm_is_bounded_once(settings: Settings, secure: SecureAggregation) -> None:
    """Refuse a bound on the norm that would not be the one that holds."""
    if secure.norm_bound is None:
        return
    if isinstance(settings.privacy, DistributedPrivacy):
        raise SettingsError(
            f"privacy={settings.privacy.name} clips what silos add to privacy.clip, and its sums are held against that:"
            " leave out aggregation.norm_bound."
        )
    if isinstance(settings.strategy, FedNovaStrategy):
        raise SettingsError(
            "strategy=fednova multiplies the mean of the updates by the number of steps that silos state, and "
            "aggregation.norm_bound bounds the updates alone: take fedavg, fedprox or a server optimiser, or leave it "
            "out."
        )


def _numbers_fit(settings: Settings, secure: SecureAggregation) -> None:
    asked = parties_of(settings, secure, settings.partition.silos)
    step = secure.bound / ((2**31 - 1) // asked)
    if secure.bits is None and step > secure.resolution:
        raise SettingsError(
            f"aggregation.resolution={secure.resolution:g} cannot be kept for {asked} silos and aggregation.bound="
            f"{secure.bound:g} within 32 bits, which give {step:.2g}: raise it, or lower the bound."
        )
    if secure.bits is not None and (2 ** (secure.bits - 1) - 1) // asked < 1:
        raise SettingsError(f"aggregation.bits={secure.bits} cannot hold the sum of {asked} silos: take more bits.")
