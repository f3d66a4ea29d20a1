"""The report's section on how evenly the model serves the silos: the worst of them, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.clients.contract import TUNED
from quire.simulation.plain import PLAIN, STEPS
from quire.simulation.report_data import METRIC_NAMES, RunData, number
from quire.simulation.report_words import DASH, name, percent, plural
from quire.strategies.fairness import less_is_better, spreads

_WAYS = {
    "federated": "Federated",
    "tuned": "Federated, tuned to its own rows",
    PLAIN: "The same federation in clear",
    STEPS: "The same federation in clear, one step a round",
    "pooled": "Pooled",
    "alone": "Alone",
}


def section(data: RunData) -> dict[str, Any] | None:
    """Return what the template shows; None where no round was finished.

    In a deployment under privacy or masks there is nothing to show, and the section says why.
    """
    if not data.rounds:
        return None
    if data.closed and not data.simulated:
        why = "differential privacy" if data.private else "secure aggregation"
        told = (
            f"Not known for single {plural(data.label)}: under {why} they keep their scores, which no ledger here is "
            f"charged for, and the server learns sums. Each {data.label} finds its own with quire silo score."
        )
        return {"told": told, "rows": [], "notes": []}
    own = data.scored("own")
    metric, found = _compared(data, own) if own else _of_rounds(data)
    rows = [_row(title, figures, metric) for title, figures in found if figures]
    if not rows:
        return None
    return {
        "told": _sentence(data, found[0][1], metric),
        "metric": METRIC_NAMES.get(metric, metric),
        "rows": rows,
        "notes": _notes(data),
    }


def _compared(data: RunData, own: Mapping[str, Any]) -> tuple[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return the figures on the silos' own test rows, by model."""
    metric = data.metric or "loss"
    found: list[tuple[str, Mapping[str, Any]]] = []
    for way, title in _WAYS.items():
        scores = {silo: _numbers(ways.get(way)) for silo, ways in own.items() if isinstance(ways, dict)}
        found.append((title, spreads(scores).get(metric, {})))
    return metric, found


def _of_rounds(data: RunData) -> tuple[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return the figures of the last round in which silos scored the model."""
    metric = data.metric or "loss"
    for event in reversed(data.rounds):
        found = spreads({silo: _numbers(scores) for silo, scores in event.get("silos", {}).items()})
        if metric in found:
            last = f"Federated, in round {event['round']}"
            tuned: Mapping[str, Any] = found.get(TUNED + metric, {})
            return metric, [(last, found[metric]), (_WAYS["tuned"], tuned)]
    return metric, [("Federated", {})]


def _numbers(scores: Any) -> dict[str, float]:
    pairs = scores.items() if isinstance(scores, dict) else ()
    return {key: value for key, given in pairs if (value := number(given)) is not None}


def _row(title: str, figures: Mapping[str, Any], metric: str) -> dict[str, str]:
    shown = {key: _shown(figures[key], metric) for key in ("worst", "worst_tenth", "mean", "best")}
    apart = f"{figures['std']:.3f}" if less_is_better(metric) else f"{100 * figures['std']:.1f} points"
    return {"model": title, **shown, "std": apart, "silo": name(str(figures["worst_silo"]))}


def _shown(value: Any, metric: str) -> str:
    known = number(value)
    return DASH if known is None else f"{known:.3f}" if less_is_better(metric) else percent(known)


def _sentence(data: RunData, figures: Mapping[str, Any], metric: str) -> str:
    if not figures:
        return f"The model was not scored by enough {plural(data.label)} to tell."
    worst, best = (f"{name(str(figures[key + '_silo']))} ({_shown(figures[key], metric)})" for key in ("worst", "best"))
    return (
        f"The model serves {worst} worst and {best} best, each on its own rows; every {data.label} counts alike here."
    )


def _notes(data: RunData) -> list[str]:
    notes = []
    layers = data.setting("training.local_layers")
    if layers:
        kept = ", ".join(str(layer) for layer in layers) if isinstance(layers, list) else str(layers)
        notes.append(
            f"Each {data.label} uses layers of its own ({kept}): so this page compares scores on its own rows, "
            "and model.safetensors lacks these layers. The other models are whole, one for all rows."
        )
    if tuning := number(data.setting("training.tuning_epochs")):
        passes = "one pass" if tuning == 1 else f"{tuning:.0f} passes"
        notes.append(
            f"A tuned model is a copy trained on by {passes} over its own rows; it never leaves the {data.label}."
        )
    return notes
