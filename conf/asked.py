"""What follows from settings alone, as composed or as a run folder has them: how many silos a round asks, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The most groups that settings can ask for.
MOST_GROUPS = 600
#: The fewest silos of a group: of a sum over two, either would know the other's update.
LEAST_IN_GROUP = 3


def silos_asked(fraction: float, silos: int, least: int) -> int:
    """Return how many silos are asked to train in a round, if all are there.

    Parameters
    ----------
    fraction : float
        ``strategy.fraction``, in (0, 1].
    silos : int
        Of the run.
    least : int
        ``strategy.min_silos``.
    """
    return min(silos, max(least, int(fraction * silos + 1e-9)))


def fewest_in_sum(members: int, colluders: int, min_silos: int, grouped: bool = False) -> int:
    """Return the fewest silos whose sum secure aggregation opens.

    As :func:`quire.privacy.secagg.params.thresholds` has it, which a room of settings cannot import.

    Parameters
    ----------
    members : int
        Of the roster, or of the group, whoever is asked.
    colluders : int
        Of them, how many may side with a lying server.
    min_silos : int
        ``strategy.min_silos``.
    grouped : bool
        Whether ``members`` are those of one group of several.
    """
    least = max((members + colluders) // 2 + 1, colluders + 2, min_silos)
    return max(least, LEAST_IN_GROUP) if grouped else least


def is_short_cut(settings: Mapping[str, Any]) -> bool:
    """Tell whether a simulation sums in clear what the protocol would mask: there is then no secure aggregation.

    Parameters
    ----------
    settings : mapping
        As for :func:`is_chained`.
    """
    aggregation = settings.get("aggregation")
    return isinstance(aggregation, Mapping) and aggregation.get("simulate", "protocol") != "protocol"


def attack_on(settings: Mapping[str, Any]) -> str:
    """Return which attack a simulation carried out against itself; empty where none, or where nobody can tell.

    Parameters
    ----------
    settings : mapping
        As for :func:`is_chained`.
    """
    attack = settings.get("attack")
    name = attack.get("name", "none") if isinstance(attack, Mapping) else "none"
    return "" if name == "none" else str(name)


def groups_in(settings: Mapping[str, Any]) -> int:
    """Return in how many groups silos are summed under masks; 0 where there is one sum of all, or none.

    Parameters
    ----------
    settings : mapping
        As for :func:`is_chained`.
    """
    aggregation = settings.get("aggregation")
    groups = aggregation.get("groups") if isinstance(aggregation, Mapping) else None
    return groups if type(groups) is int and 1 < groups <= MOST_GROUPS else 0


def byzantine_among(groups: int, stated: int | None) -> int:
    """Return how many silos may send anything: as stated, or as many as leave most groups good; 0 without groups."""
    return 0 if groups < 1 else (groups - 1) // 2 if stated is None else stated


def byzantine_in(settings: Mapping[str, Any]) -> int:
    """Return how many silos may send anything without a majority of those groups being bad; 0 without groups.

    Parameters
    ----------
    settings : mapping
        As for :func:`is_chained`.
    """
    groups = groups_in(settings)
    aggregation = settings.get("aggregation")
    stated = aggregation.get("byzantine") if isinstance(aggregation, Mapping) else None
    return byzantine_among(groups, stated if type(stated) is int else None)


def is_chained(settings: Mapping[str, Any]) -> bool:
    """Tell whether silos recompute every model: under masks, where every round asks all and each silo sees every sum.

    With groups they do not: each would have to be shown the sums of all groups, which are over fewer silos.

    Parameters
    ----------
    settings : mapping
        The composed tree, as :meth:`quire.conf.schema.Settings.as_dict` returns it or ``settings.yaml`` has it. One
        that is damaged makes no chain.
    """
    groups = [settings.get(name) for name in ("aggregation", "strategy", "partition")]
    aggregation, strategy, partition = (group if isinstance(group, Mapping) else {} for group in groups)
    fraction, least, silos = strategy.get("fraction"), strategy.get("min_silos"), partition.get("silos")
    if aggregation.get("name") != "secure" or groups_in(settings) or type(least) is not int or type(silos) is not int:
        return False
    if not isinstance(fraction, int | float) or not (0.0 < fraction <= 1.0 and 0 < silos < 2**31):
        return False
    return silos_asked(fraction, silos, least) == silos
