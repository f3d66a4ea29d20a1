"""What a decision is about: a policy, the settings of a run, and what the silo knows at that moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from quire.clients import contract
from quire.clients.policy.cost import epsilon_after
from quire.clients.policy.model import Policy
from quire.clients.private.plan import Plan, plan_of
from quire.conf.schema import DistributedPrivacy, NoPrivacy, Settings

if TYPE_CHECKING:
    from quire.privacy.dp.spending import Spending


@dataclass(frozen=True)
class State:
    """What the silo knows when it decides: all of it from its own books and its own code, but for ``clip``.

    Attributes
    ----------
    stage : str
        What is asked: a stage of :mod:`quire.clients.contract`.
    code : str
        SHA-256 (hex) of the code that runs here.
    spent : Spending or None
        What the population has spent in the current period, this run's earlier rounds included; None: unknown.
    rounds_run : int
        Rounds that the silo has trained in this run.
    begun : bool
        Whether it has begun to train for this run, and was charged, be it for an attempt that is under way.
    rounds_today : int
        Rounds that it has trained today (UTC), in all runs.
    cohort : int or None
        Number of silos in the round, where it is known.
    simulated : bool
        Whether nothing leaves this machine; see :mod:`quire.clients.simulation`.
    members : int or None
        How many the roster lists that the silo has pinned; None: unknown, and taken to be the silos of the run.
    chartered : Spending or None
        What the population has spent since its charter took force; None: unknown, or there is none.
    clip : float or None
        What the server tells the silo to clip to in this round; None: it says nothing. The one claim of the server
        that is decided on here.
    """

    stage: str = contract.QUERY
    code: str = ""
    spent: Spending | None = None
    rounds_run: int = 0
    rounds_today: int = 0
    cohort: int | None = None
    simulated: bool = False
    members: int | None = None
    clip: float | None = None
    begun: bool = False
    chartered: Spending | None = None


class Case:
    """One decision's facts, and what follows from them, reckoned when first asked for.

    Attributes
    ----------
    private : bool
        Whether the run claims differential privacy.
    """

    def __init__(self, policy: Policy, settings: Settings, state: State) -> None:
        self.policy, self.settings, self.state = policy, settings, state
        self.private = not isinstance(settings.privacy, NoPrivacy)

    @property
    def seeded(self) -> bool:
        """Whether whoever knows the seed could take the noise off somebody's records."""
        return self.policy.seeded and not self.state.simulated

    @property
    def cohort(self) -> int:
        """The fewest silos that an update of this one may be merged with, itself included."""
        fewest = self.settings.strategy.min_silos
        return fewest if self.state.cohort is None else min(fewest, self.state.cohort)

    @property
    def rounds_left(self) -> int:
        """Rounds of the run that are still to be trained here."""
        return max(0, self.settings.strategy.rounds - self.state.rounds_run)

    @property
    def rounds_due(self) -> int:
        """Rounds whose cost has to fit now.

        Before a run begins all of it. Under distributed noise an attempt that failed is charged as well, so that the
        plan of the whole run says nothing any more once it has begun: what is asked then has to fit, no less, and
        every later round meets the ledger by itself.
        """
        if self.state.begun and isinstance(self.settings.privacy, DistributedPrivacy):
            return int(self.state.stage == contract.TRAIN)
        return self.rounds_left

    @cached_property
    def plan(self) -> Plan:
        """How the run would be noised here; see :func:`quire.clients.private.plan.plan_of`."""
        policy, members = self.policy, self.state.members
        return plan_of(self.settings, policy.population.records, members=members, colluders=policy.colluders)

    @cached_property
    def spent(self) -> Spending | None:
        """What has been spent before; a simulation keeps no books and begins at nothing."""
        from quire.privacy.dp.spending import Spending

        return Spending.zero() if self.state.simulated and self.state.spent is None else self.state.spent

    def epsilon(self, rounds: int, spent: Spending) -> float:
        """Return the population's epsilon, at the policy's delta, after so many further rounds."""
        return epsilon_after(spent, self.plan, rounds, self.policy.delta)
