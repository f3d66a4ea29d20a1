"""The drawings of the report's section on secure aggregation."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from quire.conf.asked import groups_in
from quire.simulation import report_words as words
from quire.simulation.drawing import ALONE, BAD, FED, INK, POOLED, SERIES, draw, whole_numbers
from quire.simulation.exchanges import EXCHANGES
from quire.simulation.report_data import RunData
from quire.simulation.secure_attempts import Attempt, good, least

_KEYS = ("open", "pairs", "ready")


def figures(data: RunData, attempts: list[Attempt]) -> list[tuple[str, Markup]]:
    """Draw how many were in each sum, and what the seconds of a round went into."""
    opened: dict[int, list[Attempt]] = {}  # of a round the one attempt that was, or one of each group
    for attempt in good(attempts):
        opened.setdefault(attempt.round, []).append(attempt)
    rounds = np.array(sorted(opened))
    asked = np.array([len(opened[number][0].event.get("cohort", ())) for number in sorted(opened)])
    dealt, masked = (
        np.array([sum(len(one.log.get(key, ())) for one in opened[number]) for number in sorted(opened)])
        for key in ("u2", "u3")
    )
    width, fewest = 0.8 if len(rounds) <= 60 else 1.0, least(attempts) * max(1, groups_in(data.settings))
    retried = sorted({attempt.round for attempt in attempts if attempt.error is not None})

    def bars(axes: Any, stacked: list[tuple[Any, str]]) -> None:
        base = np.zeros(len(rounds))
        for values, color in stacked:
            axes.bar(rounds, values, bottom=base, width=width, color=color, alpha=0.75, linewidth=0)
            base = base + values
        axes.set_xlim(0.5, max(data.planned, int(rounds[-1])) + 0.5)
        axes.set_xlabel("round")
        axes.grid(axis="x", visible=False)
        whole_numbers(axes.xaxis)

    def survivors(axes: Any) -> None:
        bars(axes, [(masked, FED), (dealt - masked, POOLED), (asked - dealt, ALONE)])
        axes.axhline(fewest, color=INK, linewidth=1.4, linestyle=(0, (4, 2.5)))
        top = float(asked.max())
        if retried:
            axes.plot(retried, [top * 1.06] * len(retried), "x", color=BAD, markersize=7, markeredgewidth=2)
        axes.set_ylim(0, top * 1.12)
        whole_numbers(axes.yaxis)

    if not opened:
        return []
    label = (
        f"In the sum by round: {masked.min()} to {masked.max()} {words.plural(data.label)}, of {asked.min()} to "
        f"{asked.max()} asked; fewer than {fewest} would not have been opened; {len(retried)} rounds took another try"
    )
    # A round's time is that of all its attempts: those that failed were waited for as well.
    parts = [_KEYS, *((name,) for name in list(EXCHANGES)[3:])]
    spent = [np.zeros(len(rounds)) for _ in parts]
    places = {number: at for at, number in enumerate(rounds)}
    for attempt in attempts:
        if attempt.round in places:
            for part, stages in zip(spent, parts, strict=True):
                took, at = attempt.seconds(*stages), places[attempt.round]
                # Groups train at the same time, and go through everything else one after the other.
                together = attempt.group and stages == ("shares",)
                part[at] = max(part[at], took) if together else part[at] + took
    seconds = "Seconds by exchange: " + ", ".join(
        f"{name} {part.sum():.3g}" for name, part in zip(("keys", *list(EXCHANGES)[3:]), spent, strict=True)
    )
    return [
        ("In the sum", draw("s0", 460, 230, label, survivors)),
        ("Seconds", draw("s1", 460, 230, seconds, lambda axes: bars(axes, list(zip(spent, SERIES, strict=False))))),
    ]
