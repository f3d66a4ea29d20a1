"""The decision on a run: pure, before any data is touched, never laxer than the stricter of policy and settings."""

from __future__ import annotations

from dataclasses import dataclass

from quire.clients.contract import STAGES, Code
from quire.clients.policy.case import Case, State
from quire.clients.policy.checks import CHECKS
from quire.clients.policy.model import Policy
from quire.conf.schema import Settings


@dataclass(frozen=True)
class Allow:
    """The silo takes part."""


@dataclass(frozen=True)
class Refuse:
    """The silo does not take part.

    Attributes
    ----------
    code : Code
        What travels.
    check : str
        Name of the check that refused.
    words : str
        Why, and what to do: for the silo's own log, never for the server.
    """

    code: Code
    check: str
    words: str


ALLOW = Allow()


def decide(policy: Policy, settings: Settings, state: State) -> Allow | Refuse:
    """Decide whether the silo answers.

    Parameters
    ----------
    policy : Policy
        The operator's.
    settings : Settings
        The run's, composed here from what the server sent.
    state : State
        What the silo knows by itself.

    Returns
    -------
    Allow or Refuse
        The first refusal, in the order of :data:`quire.clients.policy.checks.CHECKS`.

    Raises
    ------
    ValueError
        If the stage is none of the contract's: nobody may answer what the checks do not know.

    Notes
    -----
    Monotone: a policy that is tighter in any limit, or settings that are laxer in any one (a smaller cohort, a
    larger clip, epsilon or delta, a seed, floating-point noise, preprocessing that is not public), never turn a
    refusal into an approval.
    Rounds, batch and steps count as laxer only with the noise held: under a given epsilon more of them mean more
    noise, by calibration, and what they cost is reckoned from that.
    """
    if state.stage not in STAGES:
        raise ValueError(f"'{state.stage}' is no stage that could be decided on")
    case = Case(policy, settings, state)
    for check in CHECKS:
        words = check.objection(case)
        if words is not None:
            return Refuse(check.code, check.name, words)
    return ALLOW


def objections(policy: Policy, settings: Settings, state: State) -> dict[str, str | None]:
    """Make every check, and return what each has against the run, by name; None for nothing."""
    case = Case(policy, settings, state)
    return {check.name: check.objection(case) for check in CHECKS}
