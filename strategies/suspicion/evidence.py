"""From scores to evidence over rounds, and from evidence to quarantine and back.

**Assumption** about an honest silo: whatever came before, its score z lies more than x beyond the allowance with
probability at most 2 exp(-x). The allowance is for what differs between honest silos and stays so; the tail is for
chance. Then p = min(1, 2 exp(-(z - allowance))) is a p-value and e = k p^(k - 1) an e-value, whose mean is at most 1
(Vovk and Wang 2021, arXiv 1912.06116, section 2).

**Evidence** is the largest product of a silo's latest e-values, as in CUSUM. A silo is suspected once it reaches
1 / false_alarms. Under the assumption an honest silo goes on average at least 1 / false_alarms rounds until its first
alarm (Shin, Ramdas and Rinaldo 2024, arXiv 2203.03532, theorem 2.4), however scores of different rounds hang together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

_CALIBRATOR = 0.1  # k: small, so that one round of overwhelming evidence is enough
_MOST = 1e6  # of the log of evidence
_DOUBLED = 30


class Event(StrEnum):
    """What a round changed about a silo."""

    NONE = "none"
    SUSPECTED = "suspected"
    QUARANTINED = "quarantined"
    SPARED = "spared"
    CLEARED = "cleared"
    READMITTED = "readmitted"


@dataclass(frozen=True)
class Rule:
    """When a silo is suspected, and when trusted again.

    Attributes
    ----------
    allowance : float
        Robust deviations.
    false_alarms : float
        In (0, 1).
    rounds : int or None
        Quiet rounds in a row after which a silo in quarantine is let in again, the first time; twice as many each
        time that it comes back. None where nobody is put there.
    """

    allowance: float
    false_alarms: float
    rounds: int | None = None

    @property
    def bound(self) -> float:
        """The log of the evidence at which a silo is suspected."""
        return -math.log(self.false_alarms)

    def over(self, standing: Standing) -> bool:
        """Tell whether a silo has been quiet for long enough to be let in again."""
        return self.rounds is not None and standing.quiet >= self.rounds * 2 ** min(
            max(standing.times - 1, 0), _DOUBLED
        )


@dataclass(frozen=True)
class Standing:
    """How a silo stands after a round.

    Attributes
    ----------
    evidence : float
        The log of the evidence against it, at least 0.
    quiet : int
        Rounds in a row, in quarantine, in which it lay within the allowance.
    since : int
        The round that put it into quarantine; 0 if it is not there.
    times : int
        How often it has been put there.
    """

    evidence: float = 0.0
    quiet: int = 0
    since: int = 0
    times: int = 0


def log_e(z: float, allowance: float) -> float:
    """Return the log of the e-value of one round's score."""
    log_p = min(0.0, math.log(2.0) - (z - allowance)) if z > allowance else 0.0
    return math.log(_CALIBRATOR) + (_CALIBRATOR - 1.0) * log_p


def grown(standing: Standing, z: float, rule: Rule) -> Standing:
    """Return how a silo stands once a round's score has been counted; whether it changes its place is not decided yet.

    Parameters
    ----------
    standing : Standing
    z : float
        Finite.
    rule : Rule
    """
    evidence = min(max(0.0, standing.evidence + log_e(z, rule.allowance)), _MOST)
    quiet = standing.quiet + 1 if standing.since and z <= rule.allowance else 0
    return replace(standing, evidence=evidence, quiet=quiet)


def settled(
    standing: Standing, round_number: int, rule: Rule, may_leave: bool, harmless: bool
) -> tuple[Standing, Event]:
    """Decide whether a silo is quarantined or let in again.

    Parameters
    ----------
    standing : Standing
        As :func:`grown` returns it.
    round_number : int
        At least 1.
    rule : Rule
    may_leave : bool
        Whether the round can do without it.
    harmless : bool
        Whether the others voted that it does no harm.

    Returns
    -------
    Standing
    Event
    """
    if standing.since:
        if rule.over(standing):
            return Standing(times=standing.times), Event.READMITTED
        return standing, Event.NONE
    if standing.evidence < rule.bound:
        return standing, Event.NONE
    if rule.rounds is None:
        return standing, Event.SUSPECTED
    if harmless:
        return Standing(times=standing.times), Event.CLEARED
    if not may_leave:
        return standing, Event.SPARED
    return Standing(standing.evidence, 0, round_number, standing.times + 1), Event.QUARANTINED
