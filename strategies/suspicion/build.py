"""From settings to an aggregator that watches."""

from __future__ import annotations

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from quire.clients import contract
from quire.conf.attack_schema import QuarantineSuspicion, WatchSuspicion
from quire.strategies.cohort import Roster
from quire.strategies.rounds import Aggregator
from quire.strategies.strategy import FederatedStrategy
from quire.strategies.suspicion.ballot import SilosVote
from quire.strategies.suspicion.evidence import Rule
from quire.strategies.suspicion.watched import Watched


def under_suspicion(settings: WatchSuspicion, min_silos: int, inner: Aggregator) -> Watched:
    """Return an aggregator that takes the mean as another does, and watches as the settings say."""
    if isinstance(settings, QuarantineSuspicion):
        rule = Rule(settings.allowance, settings.false_alarms, settings.rounds)
        return Watched(inner, rule, min_silos, settings.vote)
    return Watched(inner, Rule(settings.allowance, settings.false_alarms), min_silos)


def let_vote(strategy: FederatedStrategy, grid: Grid, roster: Roster, told: ConfigRecord) -> None:
    """Give the strategy's aggregator the means to ask silos, if it is to; nothing else is changed.

    Parameters
    ----------
    strategy : FederatedStrategy
    grid : flwr.serverapp.Grid
    roster : Roster
    told : flwr.app.ConfigRecord
        What goes along with every request to score.
    """
    if isinstance(strategy.aggregator, Watched) and strategy.aggregator.vote:
        seconds = strategy.deadlines.seconds(contract.EVALUATE)
        strategy.aggregator.ballot = SilosVote(grid, roster, strategy.algorithm, told, seconds)
