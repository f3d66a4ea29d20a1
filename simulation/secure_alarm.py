"""The report on the aggregate-norm alarm: how far the sums of a run reached, and which were rejected."""

from __future__ import annotations

from dataclasses import dataclass

from quire.simulation import report_words as words
from quire.simulation.group_section import reaches
from quire.simulation.report_data import RunData, number


@dataclass(frozen=True)
class Alarm:
    """What the page says of the alarm.

    Attributes
    ----------
    rejected : tuple of str
        A sentence for each round whose sum was rejected.
    quiet : str
        How far the sums that were taken reached; empty where none was.
    """

    rejected: tuple[str, ...]
    quiet: str


_MOST = 60


def alarm_words(data: RunData) -> Alarm:
    """Say which sums were rejected, and how far the others reached towards what honest silos can come to."""
    rejected, reached = [], []
    for event in (*data.rounds, *data.failed):
        secure = event.get("secure") or {}
        if secure.get("rejected") is True:
            lost = event.get("lost")  # else the round ended the run, and the error names it
            rejected.append(f"Round {event['round']}: {lost}" if lost else str(event.get("error")))
        elif (reach := number(secure.get("reach"))) is not None:
            reached.append(reach)
        reached += reaches(event)
    more = len(rejected) - _MOST
    shown = (*rejected[:_MOST], *((f"And {words.count(more, 'round')} more.",) if more > 0 else ()))
    quiet = ""
    if reached:
        quiet = (
            f"Each sum is held against the most that honest silos can come to, by {_bound(data)}. The largest that was "
            f"taken reached {100 * max(reached):.2g} % of that; below it nobody can tell an honest sum from a false "
            "one."
        )
    return Alarm(shown, quiet)


def _bound(data: RunData) -> str:
    if str(data.setting("privacy.name")).endswith("_distributed"):
        return "their clip, their number and their noise"
    bound = number(data.setting("aggregation.norm_bound"))
    return "aggregation.bound alone, in every coordinate" if bound is None else f"aggregation.norm_bound={bound:g}"
