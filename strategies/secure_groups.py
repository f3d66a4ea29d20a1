"""Groups of silos: from the sums of those groups that came to one to a mean that bad groups do not decide.

Pure, and shared by the server and by whoever audits its run: the same sums come to the same bits. A group counts once,
however many rows its silos state: whoever may add anything to a sum may state any number of rows too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quire.clients.arrays import Arrays
from quire.clients.secure.agreement import Agreement
from quire.conf.asked import byzantine_among
from quire.conf.schema import SecureAggregation
from quire.privacy.dp.plausible import BeyondHonest
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.secagg.groups import needed
from quire.privacy.secagg.masks import Words
from quire.strategies.robust.coordinates import median, trimmed_mean

MEDIAN, TRIMMED_MEAN = "median", "trimmed_mean"


@dataclass(frozen=True)
class Rule:
    """How the sums of groups become one mean.

    Attributes
    ----------
    groups : int
        How many there are.
    byzantine : int
        Silos that may send anything, f.
    combine : str
        ``median`` or ``trimmed_mean``, of each coordinate.
    """

    groups: int
    byzantine: int
    combine: str

    @classmethod
    def of(cls, secure: SecureAggregation) -> Rule | None:
        """Return the rule that settings ask for; None where all silos are summed together."""
        groups, byzantine = secure.groups, secure.byzantine
        return None if groups is None else cls(groups, byzantine_among(groups, byzantine), secure.combine)


@dataclass(frozen=True)
class Outcome:
    """What one group came to in a round.

    Attributes
    ----------
    group : int
        From 0.
    silos : tuple of str
        Whose updates are in its sum; empty if none was opened.
    mean : dict of str to numpy.ndarray of float64, or None
        The weighted mean of their updates; None if it cannot be used.
    metrics : dict of str to float
    reach : float
        How far the sum reached towards what honest silos can come to; 0 if it cannot be used.
    alarmed : bool
        Whether the sum was opened, and is none of honest silos: one of them at least sent what it should not.
    why : str
        Why there is no mean, as a clause.
    """

    group: int
    silos: tuple[str, ...] = ()
    mean: Arrays | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    reach: float = 0.0
    alarmed: bool = False
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for the journal."""
        found: dict[str, Any] = {"group": self.group + 1, "silos": list(self.silos)}
        found |= {"reach": self.reach} if self.mean is not None else {"why": self.why}
        return found | ({"rejected": True} if self.alarmed else {})


def outcome_of(agreement: Agreement, group: int, silos: Sequence[str], total: Words) -> Outcome:
    """Hold the opened sum of a group against what honest silos can come to, and decode it.

    Parameters
    ----------
    agreement : Agreement
        Of the group.
    group : int
        From 0.
    silos : sequence of str
        Whose updates are in the sum.
    total : numpy.ndarray of uint32
    """
    there = tuple(silos)
    try:
        reach = agreement.check(total, len(there))
        mean, metrics = agreement.decode(total)
    except BeyondHonest as error:
        return Outcome(group, there, alarmed=True, why=f"its sum was opened and rejected, because {error}")
    except EncodingError as error:
        return Outcome(group, there, why=str(error))
    return Outcome(group, there, mean, metrics, reach)


def lacking(rule: Rule, outcomes: Sequence[Outcome]) -> str:
    """Say in a clause why the groups of a round cannot be combined; nothing if they can.

    Parameters
    ----------
    rule : Rule
    outcomes : sequence of Outcome
        Of all groups.
    """
    good = [one for one in outcomes if one.mean is not None]
    alarmed = sum(one.alarmed for one in outcomes)
    if alarmed > rule.byzantine:
        return (
            f"the sums of {alarmed} groups are none of honest silos, so that more than the {rule.byzantine} of "
            f"aggregation.byzantine send what they should not ({_reasons(outcomes)})"
        )
    if len(good) < (fewest := needed(rule.byzantine, alarmed)):
        left = rule.byzantine - alarmed
        bad = "one bad silo" if left == 1 else f"{left} bad silos"
        return (
            f"{len(good)} of {rule.groups} groups came to a sum that can be used, and it takes {fewest} against {bad} "
            f"among them ({_reasons(outcomes)})"
        )
    return ""


def combined(rule: Rule, outcomes: Sequence[Outcome]) -> tuple[Arrays, dict[str, float]]:
    """Combine the means of the groups that came to one, coordinate by coordinate.

    Yin et al. 2018, arXiv 1803.01498, definitions 1 and 2, with the means of groups in place of silos' updates, as
    in its predecessors on medians of means.

    Parameters
    ----------
    rule : Rule
    outcomes : sequence of Outcome
        Of all groups, by number, that :func:`lacking` finds nothing lacking of.

    Returns
    -------
    mean : dict of str to numpy.ndarray of float64
    metrics : dict of str to float
        Combined alike.
    """
    good = [one for one in outcomes if one.mean is not None]
    trimmed = max(0, rule.byzantine - sum(one.alarmed for one in outcomes))

    def of(arrays: Sequence[Arrays]) -> Arrays:
        return median(arrays) if rule.combine == MEDIAN else trimmed_mean(arrays, trimmed)

    told = [{name: np.array([value]) for name, value in one.metrics.items()} for one in good]
    metrics = {name: float(value[0]) for name, value in of(told).items()}
    return of([one.mean for one in good if one.mean is not None]), metrics


def _reasons(outcomes: Sequence[Outcome]) -> str:
    told = [f"group {one.group + 1}: {one.why}" for one in outcomes if one.mean is None]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")
