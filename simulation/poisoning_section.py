"""What the report says of an attacked run, and of suspicion: who, how, what came of it, who was left out and why."""

from __future__ import annotations

import json
from typing import Any

from quire.simulation import report_words as words
from quire.simulation.poisoning import OUTCOME_FILE
from quire.simulation.report_data import RunData, number

_MOST_SILOS, _MOST_EVENTS = 100, 60


def banner(data: RunData, other: dict[str, Any] | None) -> dict[str, Any] | None:
    """Say above all else that a run was attacked on purpose; else return the banner that there is."""
    told = data.run.get("attacked")
    if not isinstance(told, dict):
        return other
    text = str(told.get("words", "This run was attacked on purpose."))[:300]
    if other is not None:
        text = f"{text} {other['text']}"
    return {"tone": "bad", "text": text, "error": other["error"] if other else None}


def section(data: RunData) -> dict[str, Any] | None:
    """Return what the page shows; None where a run was neither attacked nor watched."""
    attack, silos, events = _attack(data), _silos(data), _events(data)
    if attack is None and not silos:
        return None
    return {
        "attack": attack,
        "mode": str(data.setting("suspicion.name", "none")),
        "silos": silos[:_MOST_SILOS],
        "silos_left_out": max(0, len(silos) - _MOST_SILOS),
        "events": events[:_MOST_EVENTS],
        "events_left_out": max(0, len(events) - _MOST_EVENTS),
    }


def _attack(data: RunData) -> dict[str, Any] | None:
    told = data.run.get("attacked")
    if not isinstance(told, dict):
        return None
    held = data.run.get("held_to")
    who = held.get("attack", {}).get("colluders", []) if isinstance(held, dict) else []
    chosen = {key: value for key, value in told.items() if key not in ("words", "name")}
    outcome = _outcome(data)
    scores = outcome.get("scores")
    accuracy = number(scores.get("accuracy")) if isinstance(scores, dict) else None
    success, without, rows = (number(outcome.get(key)) for key in ("success", "without", "rows"))
    facts = [("Attack", words.name(str(told.get("name", "?"))))]
    facts += [
        (key, "as the paper has it" if value is None else words.name(str(value))) for key, value in chosen.items()
    ]
    return {
        "who": [words.name(str(one)) for one in who[:_MOST_SILOS]],
        "count": len(who),
        "facts": facts,
        "accuracy": accuracy,
        "wanted": words.name(str(outcome.get("wanted", "")), 120),
        "success": success,
        "without": without,
        "rows": None if rows is None else int(rows),
    }


def _outcome(data: RunData) -> dict[str, Any]:
    try:
        found = json.loads((data.folder / OUTCOME_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the run has not ended, or somebody has been at the file
        return {}
    return found if isinstance(found, dict) else {}


def _told(event: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = event.get("suspicion")
    if not isinstance(found, dict):
        return {}
    return {silo: about for silo, about in found.items() if isinstance(about, dict)}


def _silos(data: RunData) -> list[dict[str, Any]]:
    """One row for each silo that was scored: its worst scores, and in how many rounds it was out of the mean."""
    rows: dict[str, dict[str, Any]] = {}
    for event in data.rounds:
        for silo, about in _told(event).items():
            row = rows.setdefault(silo, {"silo": words.name(silo), "size": None, "direction": None, "out": 0, "of": 0})
            row["of"] += 1
            row["out"] += about.get("in_mean") is False
            for key, name in (("size", "size_z"), ("direction", "direction_z")):
                value = number(about.get(name))
                if value is not None and (row[key] is None or value > row[key]):
                    row[key] = value
    return sorted(rows.values(), key=lambda row: -row["out"])


def _events(data: RunData) -> list[dict[str, Any]]:
    return [
        {
            "round": event["round"],
            "silo": words.name(silo),
            "event": words.name(str(about["event"])),
            "reason": words.name(str(about.get("reason", "")), 160),
        }
        for event in data.rounds
        for silo, about in _told(event).items()
        if about.get("event")
    ]
