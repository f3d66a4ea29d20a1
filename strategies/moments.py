"""The one extra exchange of ``data.preprocessing=federated``: moments of the features, before the first round."""

from __future__ import annotations

import logging

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from quire.clients import contract
from quire.clients.tasks.moments import MEAN, SCALE, Statistics, combine
from quire.errors import RunFailed
from quire.strategies.cohort import Roster
from quire.strategies.enrolment import read_moments
from quire.strategies.exchange import exchange

LOG = logging.getLogger("quire.strategies")


def agree_on_statistics(
    grid: Grid, roster: Roster, features: int, minimum: int, timeout: float
) -> tuple[Statistics, Roster]:
    """Ask every silo for its moments and combine them, in roster order and float64.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    roster : Roster
    features : int
        Numeric features of a row.
    minimum : int
        Fewest silos that must answer.
    timeout : float
        Seconds to wait for the answers.

    Returns
    -------
    statistics : Statistics
    roster : Roster
        Those that gave usable moments: a silo whose rows are not in the statistics does not train with them.

    Raises
    ------
    RunFailed
        If fewer than ``minimum`` did.
    """
    messages = [Message(RecordDict(), node, contract.MOMENTS, ttl=timeout, group_id="0") for node in roster.silos]
    replies = exchange(grid, messages, timeout)
    parts, failed = read_moments(messages, replies, roster.silos, features, roster.code_hash)
    if len(parts) < minimum:
        raise RunFailed(
            f"{len(parts)} of {len(roster.silos)} silos gave the moments of their features, {minimum} are needed: "
            + "; ".join(f"{failure.silo}: {failure.words}" for failure in failed[:5])
            + "."
        )
    for failure in failed:
        LOG.warning("%s is left out: %s", failure.silo, failure.words)
    silos = {node: name for node, name in roster.silos.items() if name in parts}
    return combine(parts.values()), Roster(silos, roster.code_hash, roster.records)


def as_config(statistics: Statistics) -> ConfigRecord:
    """Return what is sent along with the model."""
    return ConfigRecord({MEAN: list(statistics.mean), SCALE: list(statistics.scale)})
