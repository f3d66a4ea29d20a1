"""The report on groups of silos: what the sum of each came to, round by round, and what was made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quire.conf.asked import byzantine_in, groups_in
from quire.simulation import report_words as words
from quire.simulation.report_data import RunData, number
from quire.simulation.secure_attempts import Attempt, events_of, good, told_of_groups

_MOST = 60


def groups_of(data: RunData, attempts: list[Attempt]) -> list[dict[str, Any]]:
    """Return a row for each group: who is in it, in how many rounds its sum counted, and why not in others."""
    count = groups_in(data.settings)
    rows = [_row(group) for group in range(1, count + 1)]
    for attempt in attempts:
        if 0 < attempt.group <= count:
            rows[attempt.group - 1]["silos"] |= dict.fromkeys(str(silo) for silo in attempt.log.get("cohort", ()))
    for event in events_of(data):
        for group, told in told_of_groups(event):
            if 0 < group <= count:
                rows[group - 1][_kind(told, moved="model" in event and "lost" not in event)] += 1
    return [{**row, "silos": [words.name(silo) for silo in row["silos"]]} for row in rows]


def reasons(data: RunData) -> list[str]:
    """Say why a round went on without a group, or was lost."""
    found = [
        f"Round {event['round']}, group {group}: {told.get('why')}."
        for event in data.rounds
        for group, told in told_of_groups(event)
        if "reach" not in told and "lost" not in event
    ]
    found += [f"Round {event['round']} was lost: {event['lost']}" for event in data.rounds if event.get("lost")]
    more = len(found) - _MOST
    return [*found[:_MOST], *([f"And {words.count(more, 'line')} more."] if more > 0 else [])]


def reaches(event: Mapping[str, Any]) -> Iterator[float]:
    """Yield how far the sums of groups reached that were used."""
    yield from (reach for _, told in told_of_groups(event) if (reach := number(told.get("reach"))) is not None)


def verdict(data: RunData, attempts: list[Attempt]) -> str:
    """Say in how many groups silos were summed, over how many each, and what was made of the sums."""
    sums = [len(attempt.log.get("u3", ())) for attempt in good(attempts)]
    if not sums:
        return "No sum was opened."
    over = f"{sums[0]}" if min(sums) == max(sums) else f"{min(sums)} to {max(sums)}"
    silos, count, most = words.plural(data.label), groups_in(data.settings), byzantine_in(data.settings)
    how = "median" if data.setting("aggregation.combine") == "median" else "trimmed mean"
    made = (
        f"Each of {count} groups of {silos} was summed apart, over {over} of {len(data.silos)}, and the {how} of their "
        f"means moved the model: {words.count(most, data.label)} that {'sends' if most == 1 else 'send'} anything at "
        "all can move it no further than the other groups reach."
    )
    if data.exact:
        return f"{made} The sums were made in clear: nothing was masked."
    return f"{made} The server saw {words.count(len(sums), 'sum')} of updates, and no update on its own."


def _kind(told: Mapping[str, Any], moved: bool) -> str:
    if "reach" in told:
        return "used" if moved else "idle"  # the sum would have done, and the round was lost for want of others
    return "rejected" if told.get("rejected") is True else "lost"


def _row(group: int) -> dict[str, Any]:
    return {"group": group, "silos": {}, "used": 0, "idle": 0, "rejected": 0, "lost": 0}
