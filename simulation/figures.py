"""The figures of the report: what they show and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from quire.simulation.drawing import (
    ALONE,
    BAD,
    FED,
    GOOD,
    INK,
    MUTED,
    PAPER,
    POOLED,
    draw,
    limits,
    share_axis,
    whole_numbers,
)
from quire.simulation.report_data import METRIC_NAMES, RunData, number
from quire.simulation.report_scores import Scores, everyone, personal
from quire.simulation.report_words import APOSTROPHE, name, percent, plural, points

MANY = 16
"""With more silos than this, distributions are drawn instead of single silos."""


def comparison(data: RunData) -> list[tuple[str, Markup]]:
    """Draw federated against pooled and against each silo alone, on everyone's and on each silo's own test rows.

    Returns
    -------
    list of (title, svg)
        Empty where the run has nothing to compare with.
    """
    scores = everyone(data)
    if scores.federated is None or not scores.alone or data.metric is None:
        return []
    own: dict[str, tuple[float, float, float | None]] = {}
    for silo in data.silos:
        alone, federated, pooled = (
            number(data.scored("own", silo, way).get(data.metric)) for way in ("alone", "federated", "pooled")
        )
        if alone is not None and federated is not None:
            own[silo] = (alone, federated, pooled)
    metric, few = METRIC_NAMES[data.metric], len(data.silos) <= MANY
    height = 96 + 22 * len(data.silos) if few else 270
    low, high = percent(min(scores.alone.values())), percent(max(scores.alone.values()))
    label = (
        f"{metric} on everyone's test rows: federated {percent(scores.federated)}, pooled {percent(scores.pooled)}, "
        + ("" if scores.plain is None else f"federated in clear {percent(scores.plain)}, ")
        + f"a {data.label} alone {low} to {high}"
    )
    paint: Callable[[Any], None] = lambda axes: (_everyone_few if few else _everyone_many)(axes, scores)  # noqa: E731
    figures: list[tuple[str, Markup]] = []
    if not personal(data):  # who has another model each has no score that could be a line through all of them
        figures.append((f"On everyone{APOSTROPHE}s test rows", draw("c0", 420, height, label, paint)))
    if own:
        gains = [federated - alone for alone, federated, _ in own.values()]
        label = (
            f"{metric} on each {data.label}'s own test rows: federated less alone is {points(min(gains))} to "
            f"{points(max(gains))} points"
        )
        paint = lambda axes: (_own_few if few else _own_many)(axes, own)  # noqa: E731
        figures.append((f"On each {data.label}{APOSTROPHE}s own test rows", draw("c1", 420, height, label, paint)))
    return figures


def _tone(gain: float) -> str:
    tone: str = GOOD if gain > 0.0005 else BAD if gain < -0.0005 else MUTED
    return tone


def _rows_axis(axes: Any, silos: Sequence[str]) -> None:
    axes.set_yticks(range(len(silos)), [name(silo, 18) for silo in silos])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(silos) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    share_axis(axes.xaxis)


def _references(axes: Any, scores: Scores) -> None:
    if scores.pooled is not None:
        axes.axvline(scores.pooled, color=POOLED, linewidth=1.8, linestyle=(0, (4, 2.5)))
    if scores.plain is not None:
        axes.axvline(scores.plain, color=FED, linewidth=1.8, linestyle=(0, (1, 1.6)))
    axes.axvline(scores.federated, color=FED, linewidth=2.2)


def _everyone_few(axes: Any, scores: Scores) -> None:
    federated = scores.federated or 0.0
    _references(axes, scores)
    for place, value in enumerate(scores.alone.values()):
        axes.plot([value, federated], [place, place], color=_tone(federated - value), linewidth=3, alpha=0.55)
        axes.plot(value, place, "o", markersize=8, color=ALONE, markerfacecolor=PAPER, markeredgewidth=2)
    axes.set_xlim(*limits([*scores.alone.values(), federated, scores.pooled or federated, scores.plain or federated]))
    _rows_axis(axes, list(scores.alone))


def _own_few(axes: Any, rows: dict[str, tuple[float, float, float | None]]) -> None:
    for place, (alone, federated, pooled) in enumerate(rows.values()):
        axes.plot([alone, federated], [place, place], color=_tone(federated - alone), linewidth=3, alpha=0.55)
        # Nested sizes: three equal scores still show as three marks.
        axes.plot(alone, place, "o", markersize=13, color=ALONE, markerfacecolor=PAPER, markeredgewidth=1.8)
        if pooled is not None:
            axes.plot(pooled, place, "D", markersize=7, color=POOLED, markerfacecolor="none", markeredgewidth=1.5)
        axes.plot(federated, place, "o", markersize=4.5, color=FED)
    axes.set_xlim(*limits([value for row in rows.values() for value in row if value is not None]))
    _rows_axis(axes, list(rows))


def _everyone_many(axes: Any, scores: Scores) -> None:
    values = list(scores.alone.values())
    federated = scores.federated or 0.0
    low, high = limits([*values, federated, scores.pooled or federated, scores.plain or federated])
    axes.hist(values, bins=list(np.linspace(low, high, 31)), color=ALONE, alpha=0.6)
    _references(axes, scores)
    axes.set_xlim(low, high)
    axes.set_ylabel("how many")
    axes.grid(axis="x", visible=False)
    share_axis(axes.xaxis)
    whole_numbers(axes.yaxis)


def _own_many(axes: Any, rows: dict[str, tuple[float, float, float | None]]) -> None:
    alone, federated = np.array([row[0] for row in rows.values()]), np.array([row[1] for row in rows.values()])
    low, high = limits([*alone, *federated])
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for tone in (MUTED, BAD, GOOD):
        chosen = np.array([_tone(gain) == tone for gain in federated - alone])
        axes.plot(alone[chosen], federated[chosen], "o", color=tone, markersize=5.5, alpha=0.6, markeredgewidth=0)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="alone", ylabel="federated")
    share_axis(axes.xaxis)
    share_axis(axes.yaxis)


def curves(data: RunData) -> list[tuple[str, Markup]]:
    """Draw the scores by round: the mean over silos, and each silo (or the spread of many) behind it."""
    figures: list[tuple[str, Markup]] = []
    for metric in ("balanced_accuracy", "accuracy", "r2", "loss"):
        rounds, values = data.curve(metric)
        if not rounds:
            continue
        # Means of row-wise scores are scores of the union; balanced accuracies do not add up so, hence no line there.
        adds_up = metric not in ("balanced_accuracy", "r2") and data.kept == "test"
        pooled = number(data.scored("everyone", "pooled").get(metric)) if adds_up else None
        first, last = (f"{value:.3f}" if metric == "loss" else percent(value) for value in (values[0], values[-1]))
        label = f"{METRIC_NAMES[metric]} by round: {first} in round {rounds[0]}, {last} in round {rounds[-1]}"

        def paint(axes: Any, metric: str = metric, mean: Any = (rounds, values), pooled: float | None = pooled) -> None:
            shown = _behind(axes, data, metric)
            if pooled is not None:
                axes.axhline(pooled, color=POOLED, linewidth=1.6, linestyle=(0, (4, 2.5)))
            axes.plot(*mean, color=FED, linewidth=2.6, marker="o" if len(mean[0]) == 1 else None)
            shown += [*mean[1], *([] if pooled is None else [pooled])]
            if metric == "loss":
                # One silo whose loss runs away must not press all the others into a corner.
                axes.set_ylim(0, 1.05 * max(float(np.quantile(shown, 0.98)), *mean[1]) or 1)
            else:
                # Nor may the first rounds of a few among many.
                low = float(np.quantile(shown, 0.02)) if len(data.silos) > MANY else min(shown)
                axes.set_ylim(*limits([min(low, *mean[1]), max(shown)]))
                share_axis(axes.yaxis)
            _round_axis(axes, data)

        figures.append((METRIC_NAMES[metric].capitalize(), draw(f"l{len(figures)}", 360, 240, label, paint)))
    return figures


def _behind(axes: Any, data: RunData, metric: str) -> list[float]:
    """Draw the silos behind the mean and return the values drawn."""
    single = [points for silo in data.silos if (points := data.curve(metric, silo))[0]]
    if len(single) <= MANY:
        for line in single:
            axes.plot(*line, color=ALONE, linewidth=1, alpha=0.6)
        return [value for _, values in single for value in values]
    by_round: dict[int, list[float]] = {}
    for rounds, values in single:
        for place, value in zip(rounds, values, strict=True):
            by_round.setdefault(place, []).append(value)
    places = sorted(by_round)
    bands = np.array([np.quantile(by_round[place], (0.1, 0.25, 0.75, 0.9)) for place in places]).T
    axes.fill_between(places, bands[0], bands[3], color=ALONE, alpha=0.2, linewidth=0)
    axes.fill_between(places, bands[1], bands[2], color=ALONE, alpha=0.3, linewidth=0)
    return [float(value) for value in bands.ravel()]


def _round_axis(axes: Any, data: RunData) -> None:
    axes.set_xlim(min(1, data.rounds[0]["round"]) - 0.5, max(data.planned, data.rounds[-1]["round"]) + 0.5)
    axes.set_xlabel("round")
    axes.grid(axis="x", visible=False)
    whole_numbers(axes.xaxis)


def costs(data: RunData) -> list[tuple[str, Markup]]:
    """Draw seconds by round, split by what they went into, and bytes by round, down and up."""
    if not data.rounds:
        return []
    rounds = np.array([event["round"] for event in data.rounds])

    def bars(axes: Any, parts: Sequence[tuple[Any, str]]) -> None:
        base = np.zeros(len(rounds))
        for values, color in parts:
            axes.bar(
                rounds,
                values,
                bottom=base,
                width=0.8 if len(rounds) <= 60 else 1.0,
                color=color,
                alpha=0.75,
                linewidth=0,
            )
            base = base + values
        _round_axis(axes, data)

    train, evaluate, average = (np.array(data.series("seconds", part)) for part in ("train", "evaluate", "aggregate"))
    down, up = (np.array(data.series(way)) / 1000 for way in ("bytes_down", "bytes_up"))
    seconds = (
        f"Seconds by round: training {train.sum():.3g}, evaluation {evaluate.sum():.3g}, averaging "
        f"{average.sum():.3g} in all"
    )
    kilobytes = f"Kilobytes by round: down to the {plural(data.label)} {down.sum():.4g}, up {up.sum():.4g} in all"
    time, traffic = [(train, FED), (evaluate, POOLED), (average, ALONE)], [(down, FED), (up, POOLED)]
    return [
        ("Seconds", draw("t0", 460, 210, seconds, lambda axes: bars(axes, time))),
        ("Kilobytes", draw("t1", 460, 210, kilobytes, lambda axes: bars(axes, traffic))),
    ]
