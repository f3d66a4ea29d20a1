"""The grid of rounds and silos: who was asked, who trained, who failed and why."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup, escape

from quire.simulation.report_data import RunData
from quire.simulation.report_words import name
from quire.simulation.secure_attempts import silos_in, told_of_groups

MOST_SILOS = 120
MOST_COLUMNS = 300
_TITLED_CELLS = 1500
_TOP = 6


def left_out(data: RunData) -> int:
    """Return how many silos the grid has no row for."""
    return max(0, len(data.silos) - MOST_SILOS)


def grid(data: RunData) -> Markup:
    """Draw the grid as SVG.

    Cells that failed say why on hover, all cells do where there are few. Neighbouring rounds share a column when
    there are very many; then a column counts as trained, or as failed, if one of its rounds does.
    """
    silos = _chosen(data)
    place = {silo: row for row, silo in enumerate(silos)}
    bundle = -(-len(data.rounds) // MOST_COLUMNS) or 1
    columns = [data.rounds[at : at + bundle] for at in range(0, len(data.rounds), bundle)]
    width = min(30.0, max(5.0, 900 / max(1, len(columns))))
    height = 24 if len(silos) <= 16 else 12 if len(silos) <= 40 else 6
    left = 8 + 6.6 * max((len(name(silo, 18)) for silo in silos), default=0) if len(silos) <= 40 else 64
    states = [_column(column, place) for column in columns]
    titled = len(columns) * len(silos) <= _TITLED_CELLS
    parts = [_labels(silos, left, height), _ticks(columns, left, width, _TOP + height * len(silos) + 14)]
    if not titled:
        parts.append(
            f'<rect class="idle" x="{left:.1f}" y="{_TOP}" width="{width * len(columns):.1f}" '
            f'height="{height * len(silos)}"/>{_trained(states, left, width, height)}'
        )
    for column, state in enumerate(states):
        x = left + column * width
        first, last = columns[column][0]["round"], columns[column][-1]["round"]
        when = f"round {first}" if first == last else f"rounds {first} to {last}"
        for silo, (kind, words) in state.items():
            if not titled and kind in ("idle", "trained"):
                continue
            y = _TOP + place[silo] * height
            box = f'x="{x + 1:.1f}" y="{y + 1}" width="{width - 2:.1f}" height="{height - 2}"'
            title = f"{name(silo)}, {when}: {words}"
            mark = _mark(kind, x, y, width, height)
            parts.append(f'<g class="{kind}"><title>{escape(title)}</title><rect {box} rx="2"/>{mark}</g>')
    total = (left + width * len(columns) + 8, _TOP + height * len(silos) + 26)
    failed = sum(kind in ("failed", "unscored") for state in states for kind, _ in state.values())
    label = f"Who took part: {len(data.rounds)} rounds, {len(silos)} silos, {failed} failures, listed below"
    return Markup(
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {total[0]:.0f} {total[1]:.0f}" '
        f'width="{total[0]:.0f}" height="{total[1]:.0f}">{"".join(parts)}</svg>'
    )


def _chosen(data: RunData) -> list[str]:
    """Return the silos with a row, in roster order: of too many, those that failed come first."""
    if len(data.silos) <= MOST_SILOS:
        return list(data.silos)
    failed = {str(failure.get("silo")) for event in data.rounds for failure in event.get("failed", ())}
    kept = set(sorted(data.silos, key=lambda silo: silo not in failed)[:MOST_SILOS])
    return [silo for silo in data.silos if silo in kept]


def _column(events: tuple[dict[str, Any], ...], place: dict[str, int]) -> dict[str, tuple[str, str]]:
    """Return the state of each silo in one column, and its words; the worst state of its rounds wins."""
    rank = ("idle", "trained", "unscored", "failed")
    state: dict[str, tuple[str, str]] = dict.fromkeys(place, ("idle", "not asked"))

    def put(silo: str, kind: str, words: str) -> None:
        if silo in place and rank.index(kind) >= rank.index(state[silo][0]):
            state[silo] = (kind, words)

    for event in events:
        replied = {str(silo) for silo in event.get("replied", ())}
        in_vain = _in_vain(event, replied)
        for silo in replied:
            put(silo, *(("unscored", in_vain[silo]) if silo in in_vain else ("trained", "trained")))
        for silo in event.get("cohort", ()):
            if silo not in replied:
                put(str(silo), "failed", _why_not(event, str(silo)))
        for failure in event.get("failed", ()):
            silo, stage = str(failure.get("silo")), str(failure.get("stage", "train"))
            words = failure.get("words") or failure.get("code") or "no reason was recorded"
            kind = "unscored" if silo in replied or stage == "evaluate" else "failed"
            put(silo, kind, f"failed in {stage}: {words}")
    return state


_REJECTED = "trained, for a sum that was rejected"


def _in_vain(event: dict[str, Any], replied: set[str]) -> dict[str, str]:
    """Return of the silos whose updates are in a sum, but not in the model, why."""
    groups, lost = dict(told_of_groups(event)), bool(event.get("lost"))
    if not groups:
        return dict.fromkeys(replied, _REJECTED) if lost else {}  # with replies: the alarm rejected what was opened
    found: dict[str, str] = {}
    for told in groups.values():
        if "reach" not in told:
            found |= dict.fromkeys(silos_in(told), _REJECTED if told.get("rejected") is True else "trained in vain")
        elif lost:
            found |= dict.fromkeys(silos_in(told), "trained, for a round that was lost for want of other groups")
    return found


def _why_not(event: dict[str, Any], silo: str) -> str:
    """Say why somebody who was to train is not in the mean, as long as nothing better is known."""
    attempts, grouped = (event.get("secure") or {}).get("attempts") or [{}], any(told_of_groups(event))
    if grouped:
        attempts = [one for one in attempts if silo in one.get("cohort", ())] or [{"cohort": []}]
    elif event.get("lost"):
        return "the round was lost: its sum did not open"
    if "cohort" in attempts[-1] and silo not in attempts[-1]["cohort"]:
        return "not in the round: it has no keys in this session, or was missing from an earlier attempt"
    return "its group came to no sum" if grouped else "asked, but no good reply"


def _mark(kind: str, x: float, y: float, width: float, height: float) -> str:
    """Return a cross for a failure, so that it does not depend on colour."""
    if kind not in ("failed", "unscored"):
        return ""
    arm = min(width, height) / 2 - 3
    if arm < 1.5:
        return ""
    cx, cy = x + width / 2, y + height / 2
    return (
        f'<path d="M{cx - arm:.1f} {cy - arm:.1f}l{2 * arm:.1f} {2 * arm:.1f}'
        f'm0 {-2 * arm:.1f}l{-2 * arm:.1f} {2 * arm:.1f}"/>'
    )


def _trained(states: list[dict[str, tuple[str, str]]], left: float, width: float, height: int) -> str:
    """Draw all cells that trained as one path: a large grid stays small on the page."""
    gap = 1 if width > 6 else 0.5
    side = width - 2 * gap
    steps = [
        f"M{left + column * width + gap:.1f} {_TOP + row * height + 1}h{side:.1f}v{height - 2}h-{side:.1f}z"
        for column, state in enumerate(states)
        for row, (kind, _) in enumerate(state.values())
        if kind == "trained"
    ]
    return f'<path class="trained" d="{"".join(steps)}"/>'


def _labels(silos: list[str], left: float, height: int) -> str:
    every = 1 if len(silos) <= 40 else 10
    return "".join(
        f'<text x="{left - 8:.1f}" y="{_TOP + row * height + height / 2 + 4:.1f}" text-anchor="end">'
        f"{escape(name(silo, 18 if every == 1 else 9))}</text>"
        for row, silo in enumerate(silos)
        if row % every == 0
    )


def _ticks(columns: list[tuple[dict[str, Any], ...]], left: float, width: float, y: float) -> str:
    every = next(step for step in (1, 5, 10, 20, 50, 100, 1000) if step * width >= 22)
    shown = [at for at in range(len(columns)) if at == 0 or (at + 1) % every == 0]
    return "".join(
        f'<text x="{left + (at + 0.5) * width:.1f}" y="{y:.0f}" text-anchor="middle">{columns[at][0]["round"]}</text>'
        for at in shown
    )
