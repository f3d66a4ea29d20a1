"""Which settings groups under secure aggregation cannot serve, and why: what protects less than it says is refused."""

from __future__ import annotations

from quire.conf.asked import LEAST_IN_GROUP, byzantine_among, fewest_in_sum
from quire.conf.numbers import colluders_of
from quire.conf.schema import FedNovaStrategy, NoPrivacy, SecureAggregation, Settings
from quire.errors import SettingsError


def check_groups(settings: Settings, secure: SecureAggregation) -> None:
    """Refuse settings under which groups of silos cannot be summed apart, or their combination holds against nobody.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    if secure.groups is None:
        if secure.byzantine is not None or secure.combine != "median":
            key = "combine" if secure.byzantine is None else "byzantine"
            raise SettingsError(
                f"aggregation.{key} is about groups, and aggregation=secure opens one sum of all: set "
                f"aggregation.groups as well, or leave aggregation.{key} out."
            )
        return
    groups = secure.groups
    where = f"aggregation.groups={groups}"
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            f"{where} opens a sum for each group, and under privacy={settings.privacy.name} each would have to carry "
            "the noise that one sum of all carries once, which drowns what is to be told apart: take privacy=none, or "
            "leave aggregation.groups out."
        )
    if isinstance(settings.strategy, FedNovaStrategy):
        raise SettingsError(
            f"strategy=fednova multiplies updates by the number of steps that silos state, and {where} bounds the "
            "influence on updates alone: take fedavg, fedprox or a server optimiser."
        )
    silos, asked = settings.partition.silos, settings.silos_asked
    if asked < silos:
        raise SettingsError(
            f"{where} asks all silos of each group in every round, and strategy.fraction="
            f"{settings.strategy.fraction:g} asks {asked} of {silos}: set strategy.fraction=1."
        )
    if secure.colluders is None:
        raise SettingsError(
            f"{where} counts in each group who may side with the server, and nobody but you can say how many that are: "
            "set aggregation.colluders, where 0 has every silo trust all others of its group not to."
        )
    byzantine = byzantine_among(groups, secure.byzantine)
    if groups < 2 * byzantine + 1:
        raise SettingsError(
            f"{where} is too few for aggregation.byzantine={byzantine}: each bad silo may spoil a group, and more "
            f"groups have to be good than bad, which takes {2 * byzantine + 1}."
        )
    _large_enough(settings, secure, groups)


def _large_enough(settings: Settings, secure: SecureAggregation, groups: int) -> None:
    """Refuse groups of which no sum could be opened."""
    silos, colluders = settings.partition.silos, colluders_of(secure, settings.partition.silos)
    size, minimum = silos // groups, settings.strategy.min_silos
    least = fewest_in_sum(size, colluders, minimum, grouped=True)
    if size < least:
        why = f"with aggregation.colluders={colluders} in each" if colluders else "for a sum to hide any one of them"
        if minimum == least > LEAST_IN_GROUP:
            why = f"with strategy.min_silos={minimum}, which is counted in each"
        raise SettingsError(
            f"aggregation.groups={groups} leaves {size} of {silos} silos in the smallest group, and it takes {least} "
            f"{why}: take fewer groups or more silos."
        )
