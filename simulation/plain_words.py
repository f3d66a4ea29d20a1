"""What privacy, masks or compression cost, in words and as a table: the run beside the same federation in clear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from quire.conf.asked import groups_in
from quire.simulation import report_words as words
from quire.simulation.figures import MANY
from quire.simulation.plain import PLAIN, STEPS, WAYS
from quire.simulation.report_data import METRIC_NAMES, RunData, number
from quire.simulation.report_scores import everyone

_SHARES = ("balanced_accuracy", "accuracy", "r2")


@dataclass(frozen=True)
class Cost:
    """A sentence, its tone (level or open), and what has to be known beside it."""

    sentence: str
    tone: str
    notes: tuple[str, ...] = ()


def promise(data: RunData) -> str:
    """Return the run's epsilon and delta: of the card where there is one, else as they were set; empty without."""
    if not data.private:
        return ""
    epsilon = data.setting("privacy.epsilon")
    if not isinstance(epsilon, int | float) or not math.isfinite(epsilon):
        return "epsilon infinite"
    deltas = [number(silo["statement"].get("delta")) for silo in (data.card or {}).get("silos", ())]
    known = [delta for delta in (*deltas, number(data.setting("privacy.delta"))) if delta is not None]
    return f"epsilon {epsilon:g}" + (f", delta {max(known):g}" if known else "")


def cause(data: RunData) -> str:
    """Return what sets the run apart from the federation in clear: ``Privacy at epsilon 2``."""
    if data.compressed == "top_k":
        return f"Sending {words.percent(number(data.setting('compression.kept')) or 0.0)} of each update"
    if data.compressed:
        return "Sending updates in 8 bits"
    if not data.private:
        how = f" in {groups} groups" if (groups := groups_in(data.settings)) else ""
        clipped = (
            "clipping to aggregation.norm_bound and " if data.setting("aggregation.norm_bound") is not None else ""
        )
        said = f"{clipped}summing {'in whole numbers' if data.exact else 'under masks'}{how}"
        return f"{said[0].upper()}{said[1:]}"
    said = promise(data).partition(",")[0]
    return "Clipping, without any noise," if said == "epsilon infinite" else f"Privacy at {said}"


def reference(data: RunData) -> str | None:
    """Return which federation in clear the run is held against: the closest one that has a score."""
    metric = data.metric or ""
    return next((way for way in WAYS if number(data.scored("everyone", way).get(metric)) is not None), None)


def how(data: RunData, way: str) -> str:
    """Say in what a federation in clear differs from the run."""
    if way == STEPS:
        return "one batch a round as in this run, neither clipped nor noised"
    if data.setting("privacy.name") == "record_distributed":
        steps, epochs = (int(number(data.setting(f"training.{key}")) or 0) for key in ("steps", "epochs"))
        return f"{words.count(steps, 'local step') if steps else words.count(epochs, 'local pass')} in each round"
    if data.compressed:
        return "the same settings, updates sent whole"
    return "the same settings, neither clipped nor noised" if data.private else "the same settings, without masks"


def this_run(data: RunData) -> str:
    """Return what a run that is held against a federation in clear is called."""
    return f"Federated, {promise(data) or ('compressed' if data.compressed else 'under masks')}"


def in_clear(data: RunData) -> str:
    """Return what the federation in clear is called."""
    if data.compressed:
        return "Federated, uncompressed"
    return "Federated, without privacy" if data.private else "Federated, in clear"


def cost(data: RunData) -> Cost | None:
    """Say what privacy, masks or compression cost on all test rows, also if nothing; None where nobody asked."""
    beside = data.scored("plain")
    if not beside:
        return None
    errors = [str(about["error"]) for about in beside.values() if isinstance(about, dict) and about.get("error")]
    scores, what = everyone(data), cause(data)
    if scores.federated is None or scores.plain is None or data.metric is None:
        why = (
            f"the same federation without it could not be trained: {errors[0].rstrip('.')}"
            if errors
            else "one of the two models has no score"
        )
        return Cost(f"{what}: what it cost cannot be told, for {why}.", "open")
    lost, metric = scores.plain - scores.federated, METRIC_NAMES[data.metric]
    least, against = words.margin(data), "the same federation without it"
    if lost >= least:
        text = f"{what} cost {words.points(lost)[1:]} points of {metric} against {against}"
    elif lost > -least:
        text = f"{what} made no difference to speak of: {words.points(-lost)} points of {metric} against {against}"
    else:
        text = f"{what} cost no {metric} here: the model is {words.points(-lost)[1:]} points better than {against}"
    way = reference(data) or PLAIN
    notes = [f"Without it, {how(data, way)}, the federation reaches {words.percent(scores.plain)}."]
    other = number(data.scored("everyone", PLAIN).get(data.metric)) if way == STEPS else None
    if other is not None:
        notes.append(
            f"This privacy takes one step a round; in clear and with {how(data, PLAIN)} a federation reaches "
            f"{words.percent(other)}."
        )
    if lost <= -least:
        notes.append("That is chance, or a learning rate that suits clipped steps better: noise teaches nothing.")
    return Cost(f"{text}.", "level" if lost >= least else "open", tuple(notes))


def table(data: RunData) -> dict[str, Any] | None:
    """Return every model's scores on all test rows; None for a run that is compared with no federation in clear."""
    if not data.scored("plain"):
        return None
    own, guess = data.scored("everyone", "federated"), "mean" if data.metric == "r2" else "most frequent class"
    metrics = [name for name in METRIC_NAMES if number(own.get(name)) is not None]
    ways = [("federated", this_run(data), "this run")]
    ways += [(way, in_clear(data), how(data, way)) for way in WAYS]
    ways.append(("pooled", "Pooled", "all training rows in one place"))
    rows = [(title, about, data.scored("everyone", way)) for way, title, about in ways if data.scored("everyone", way)]
    alone = data.scored("everyone", "alone")
    if len(alone) <= MANY:
        rows += [
            (f"{words.name(silo)} alone", "its own training rows", data.scored("everyone", "alone", silo))
            for silo in data.silos
            if silo in alone
        ]
    else:
        title = words.article(data.label).capitalize() + " alone"
        rows.append((title, "its own training rows; the mean of all", _mean(list(alone.values()))))
    rows.append(("Guessing", f"always the {guess}", data.scored("everyone", "majority")))
    return {
        "metrics": [METRIC_NAMES[name] for name in metrics],
        "rows": [(title, about, [_shown(name, scores.get(name)) for name in metrics]) for title, about, scores in rows],
        "overrides": [
            (how(data, way), str(about.get("overrides", ""))) for way in WAYS if (about := data.scored("plain", way))
        ],
    }


def _mean(found: list[Any]) -> dict[str, float]:
    known = [scores for scores in found if isinstance(scores, dict)]
    means: dict[str, float] = {}
    for name in METRIC_NAMES:
        values = [value for scores in known if (value := number(scores.get(name))) is not None]
        if values:
            means[name] = sum(values) / len(values)
    return means


def _shown(metric: str, value: Any) -> str:
    known = number(value)
    if known is None:
        return words.DASH
    return words.percent(known) if metric in _SHARES else f"{known:.3f}"
