"""What the sweep page says of privacy in words: what each epsilon cost, and what choosing costs on top."""

from __future__ import annotations

import math
from typing import Any

from quire.simulation.report_words import APOSTROPHE, DASH, MINUS, NBSP, Headline, count, plural, points
from quire.simulation.sweep_data import PROMISE, Spread, is_condition, is_share
from quire.simulation.sweep_measured import EPSILON, NONE
from quire.simulation.sweep_privacy import Panel, Point, PrivacyData, Range, kept_rows, scored
from quire.simulation.sweep_privacy_figures import names, where
from quire.simulation.sweep_words import deviation, figure, listed, metric_name, shown, silo, spread

PAPER = "Papernot and Steinke (2022, “Hyperparameter Tuning with Rényi Differential Privacy”, arXiv 2110.03620)"


def headline(found: PrivacyData) -> Headline | None:
    """Say what privacy cost; None where nothing was scored at different epsilons."""
    data = found.data
    told = [point for point in found.points if scored(data, point) is not None]
    if data.metric is None or not found.several or not told:
        return None
    notes = _how(found)
    lines = [line for panel in found.panels for line in panel.leading]
    private = [line for line in lines if line.mode != NONE]
    if len(found.panels) > 1 or len(private) != 1:
        keys = [key for key in data.keys if key != EPSILON]
        return Headline(
            f"{count(len(data.jobs), 'job').capitalize()} over {listed(data.keys)}: what privacy costs, "
            f"{'each promise with its best settings' if any(p.chosen for p in found.panels) else 'one line for each'}.",
            "",
            "open",
            (*(text for panel in found.panels for text in _each(panel, bool(keys))), *notes),
        )
    panel = found.panels[0]
    finite = [point for point in private[0].points if point.noised and scored(data, point) is not None]
    if not finite:
        return None
    low, high = finite[0], finite[-1]
    name = metric_name(data.metric)
    if low is high:
        text = f"At epsilon {low.epsilon:g}, {name} is {spread(scored(data, low), data.metric)}"
    else:
        text = (
            f"From epsilon {low.epsilon:g} to {high.epsilon:g}, {name} goes from "
            f"{figure(_mean(data, low), data.metric)} to {figure(_mean(data, high), data.metric)}"
        )
    if panel.without is not None:
        what = "privacy" if panel.without.mode == NONE else "noise"
        text += f"; without {what} it is {figure(_mean(data, panel.without), data.metric)}"
    costs = [_cost(panel, point) for point in ([low] if low is high else [low, high])]
    return Headline(f"{text}.", " ".join(text for text in costs if text), "open", tuple(notes))


def _mean(data: Any, point: Point) -> float | None:
    known = scored(data, point)
    return None if known is None else known.mean


def _each(panel: Panel, named: bool) -> list[str]:
    """Return one sentence for each line."""
    found, metric = [], panel.data.metric
    for name, line in zip(names(panel.leading), panel.leading, strict=True):
        known = [(point, _mean(panel.data, point)) for point in line.points]
        parts = [
            f"{figure(mean, metric)} {'without privacy' if point.mode == NONE else _at(point.epsilon)}"
            for point, mean in known
            if mean is not None
        ]
        if len(parts) > 2:
            parts = [parts[0], parts[-1]]
        which = ", ".join(text for text in (where(panel), name if named else "") if text)
        if parts:
            found.append(f"{which}: {' and '.join(parts)}.")
    return found


def _at(epsilon: float) -> str:
    return "without noise" if math.isinf(epsilon) else f"at epsilon {epsilon:g}"


def _how(found: PrivacyData) -> list[str]:
    data = found.data
    others = [key for key in data.keys if key not in PROMISE and not is_condition(key)]
    notes = []
    if any(panel.chosen for panel in found.panels):
        notes.append(
            "At each epsilon the other settings are those that did best on the "
            f"{plural(silo(data))}{APOSTROPHE} validation rows; "
            f"the scores shown are on {kept_rows(data)} rows"
            + (", which had no part in the choice." if kept_rows(data) == "test" else ".")
        )
    elif others and not data.validated:
        notes.append(
            f"Nothing is chosen among values of {listed(others)}: {plural(silo(data))} kept no validation rows, and to "
            "choose by test scores is to train on the test rows. To choose, sweep with data.validation_fraction=0.2."
        )
    if len({point.mode for point in found.points if point.mode != NONE}) > 1:
        notes.append("Epsilon for one record and epsilon for one silo are different promises: compare along a line.")
    return notes


def _cost(panel: Panel, point: Point) -> str:
    lost = panel.cost(point)
    if lost is None:
        return ""
    unit = " points" if is_share(panel.data.metric or "") else ""
    by = cost(lost, panel.data.metric).lstrip("+±" + MINUS)
    error = "" if lost.deviation is None else f"; standard error {_width(lost.deviation / lost.n**0.5, panel)}"
    worse = "costs" if lost.mean >= 0 else "gains"
    seeds = f"over {lost.n} seeds{error}" if lost.n > 1 else "with one seed nobody can tell whether by chance"
    return f"Epsilon {point.epsilon:g} {worse} {by}{unit} ({seeds})."


def _width(value: float, panel: Panel) -> str:
    return deviation(value, panel.data.metric)


def cost(lost: Spread | None, metric: str | None) -> str:
    """Return a difference to no noise for reading; positive is worse."""
    if lost is None:
        return DASH
    if is_share(metric or ""):
        return points(lost.mean)
    return f"{lost.mean:+.2g}".replace("-", MINUS)


def warning(found: PrivacyData) -> list[str]:
    """Say that choosing by results costs budget, and more where a search chose; see :data:`PAPER`."""
    runs = sum(one.began for point in found.points for one in point.measured)
    told = [
        "Every epsilon on this page is the promise of one run by itself. To look at the results of several and choose "
        f"settings, or the run to publish, spends more of the same {plural(silo(found.data))}{APOSTROPHE} records, and "
        f"that is in none of these numbers. {PAPER} account for the best of a random number of independent runs. Where "
        "rows are private, choose on public data, or charge for every run."
    ]
    modes = {point.mode for point in found.points} - {NONE}
    if runs > 1 and (math.isinf(found.together) or len(modes) == 1):
        told.append(
            f"The {count(runs, 'run')} of this sweep, published together, promise "
            + (
                "nothing: some of them add no noise."
                if math.isinf(found.together)
                else f"epsilon {found.together:.4g} by basic composition, with as many times the delta."
            )
        )
    if found.data.about.get("sweeper") == "optuna":
        told.insert(
            0,
            "Optuna searched here: it read the score of each run on private validation rows and chose the next "
            f"settings by it, {count(runs, 'run')} long. The settings that it found are no private choice, and the "
            "epsilon of the best run is not what it cost to find it. Such an adaptive search is not covered even by "
            "the analysis named below, which is for runs that know nothing of each other.",
        )
    return told


def columns(found: PrivacyData) -> list[str]:
    """Return the swept keys that are a column of the table, besides epsilon and the unit."""
    return [key for key in found.data.keys if key not in (EPSILON, "privacy", "privacy.delta")]


def rows(found: PrivacyData) -> list[dict[str, Any]]:
    """Return the rows of the table, one for each point."""
    data, keys = found.data, columns(found)
    told = []
    for panel in found.panels:
        best = {id(point.configuration) for line in panel.chosen for point in line.points}
        for point in _in_order(panel):
            values = dict(zip(data.keys, point.configuration.values, strict=True))
            done = sum(job.status == "completed" for job in point.configuration.jobs)
            known = list(point.ratios.values())
            told.append(
                {
                    "values": [shown(values.get(key)) for key in keys],
                    "unit": "no privacy" if point.mode == NONE else f"one {point.mode.split('_')[0]}",
                    "epsilon": "∞" if math.isinf(point.epsilon) else f"{point.epsilon:g}",
                    "delta": _range(point.deltas, ".2g").replace("e-0", "e-"),
                    "multiplier": _range(point.multipliers, ".4g") if point.noised else "no noise",
                    "score": spread(scored(data, point), data.metric),
                    "cost": cost(panel.cost(point), data.metric),
                    "ratio": _course(known, any(one.bounded for one in point.measured)),
                    "runs": str(done) if done == len(point.measured) else f"{done} of {len(point.measured)}",
                    "chosen": id(point.configuration) in best,
                }
            )
    return told


def _in_order(panel: Panel) -> list[Point]:
    """Return the points by line; where settings were chosen, by epsilon, and then as they did on validation rows."""
    points = [point for line in panel.lines for point in line.points]
    if not panel.chosen:
        return points
    ranked = panel.data.ranked([point.configuration for point in points])
    ranks = {id(one): place for place, one in enumerate(ranked)}
    return sorted(points, key=lambda at: (at.mode, at.epsilon, ranks.get(id(at.configuration), len(ranks))))


def _range(reach: Range | None, form: str) -> str:
    if reach is None:
        return DASH
    low, high = format(reach.low, form), format(reach.high, form)
    return low if low == high else f"{low}{NBSP}{DASH}{NBSP}{high}"


def _course(values: list[float], bounded: bool) -> str:
    """Return from where to where some ratios go."""
    if not values:
        return DASH
    return f"{'≤ ' if bounded else ''}{values[0]:.2g} → {values[-1]:.2g}"


def references(panel: Panel) -> list[dict[str, str]]:
    """Return what is trained without privacy for comparison: name, score, and a word on it."""
    metric, found = panel.data.metric, []
    for name, words in (("pooled", "Pooled"), ("alone", f"A {silo(panel.data)} alone"), ("majority", "Guessing")):
        known = panel.reference(name)
        if known is None:
            continue
        note = {
            "pooled": "all rows in one place, no privacy",
            "alone": f"no privacy; worst {figure(known[1], metric)}, best {figure(known[2], metric)}",
            "majority": "the most frequent class" if is_share(metric or "") else "the mean",
        }[name]
        told = f"{words}{f' ({where(panel)})' if panel.values else ''}"
        found.append({"name": told, "score": figure(known[0], metric), "note": note})
    return found
