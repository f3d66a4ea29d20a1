"""The figures of the sweep page: the score against each key that was swept."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from quire.conf.overrides import Value
from quire.simulation.drawing import FED, INK, MUTED, SERIES, draw, limits, share_axis
from quire.simulation.sweep_data import Configuration, Spread, SweepData, is_numeric, is_share
from quire.simulation.sweep_words import figure, metric_name, shown

_MOST_SERIES = 6
_LOG_RATIO = 8.0
_MOST_TICKS = 8
_TICK_GAP = 0.09  # of the axis


@dataclass(frozen=True)
class Plot:
    """One drawing, with the names of its series in the order of the page's colours; none where there are too many."""

    title: str
    svg: Markup
    legend: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class _Series:
    name: str
    points: tuple[tuple[Value, Configuration], ...]


def plots(data: SweepData, leave_out: Collection[str] = ()) -> list[Plot]:
    """Draw the score on validation rows, where there are any, and on test rows, against each swept key.

    Parameters
    ----------
    data : SweepData
    leave_out : collection of str
        Keys that have figures of their own.
    """
    found: list[Plot] = []
    for kept in ("validation", "test"):
        if data.metric is None or not any(job.scores.get(kept) for job in data.jobs):
            continue
        for place, key in enumerate(data.keys):
            if key in leave_out:
                continue
            found += _plot(data, kept, place, key, f"s{len(found)}")
        if not data.keys and len(data.jobs) > 1:
            found += _by_seed(data, kept, f"s{len(found)}")
    return found


def _plot(data: SweepData, kept: str, place: int, key: str, name: str) -> list[Plot]:
    series = _series(data, kept, place)
    values = list(dict.fromkeys(value for one in series for value, _ in one.points))
    if len(values) < 2:
        return []
    numeric = is_numeric(values)
    few = len(series) <= _MOST_SERIES
    what = f"{metric_name(data.metric)} on {kept} rows against {key}: " + "; ".join(
        f"{shown(value)}: {_mean(data, kept, series, value)}" for value in values
    )

    def paint(axes: Any) -> None:
        if numeric:
            _numeric(
                axes, data, kept, series, few, [float(value) for value in values if isinstance(value, int | float)]
            )
        else:
            _categories(axes, data, kept, series, few, values)
        axes.set_xlabel(key)
        _score_axis(axes, data, kept)

    legend = tuple(one.name for one in series) if few and len(series) > 1 else ()
    scattered = not few and _scattered(series)
    note = "" if few or scattered else f"{len(series)} configurations of the other keys in grey; their mean in blue."
    title = f"{metric_name(data.metric).capitalize()} on {kept} rows, by {key}"
    return [Plot(title, draw(name, 460, 270, what, paint), legend, note)]


def _series(data: SweepData, kept: str, place: int) -> list[_Series]:
    """Return what is drawn as one line: the configurations that differ in this key only."""
    groups: dict[str, list[tuple[Value, Configuration]]] = {}
    for one in data.configurations:
        if one.spread(kept, data.metric) is not None:
            rest = [
                (key, value)
                for spot, (key, value) in enumerate(zip(data.keys, one.values, strict=True))
                if spot != place
            ]
            name = ", ".join(f"{key}={shown(value)}" for key, value in rest)
            groups.setdefault(name, []).append((one.values[place], one))
    return [_Series(name, tuple(points)) for name, points in groups.items()]


def _mean(data: SweepData, kept: str, series: Sequence[_Series], value: Value) -> str:
    known = [_spread(data, kept, one).mean for group in series for at, one in group.points if at == value]
    return figure(fmean(known), data.metric)


def _spread(data: SweepData, kept: str, one: Configuration) -> Spread:
    return one.spread(kept, data.metric) or Spread(0.0, None, 0)


def _bar(axes: Any, x: float, spread: Spread, color: str, size: float = 7.0) -> None:
    axes.errorbar(
        x, spread.mean, yerr=spread.deviation or 0.0, color=color, capsize=3 if spread.deviation else 0, linewidth=1.6,
        marker="o", markersize=size, markeredgewidth=0,
    )  # fmt: skip


def _numeric(
    axes: Any, data: SweepData, kept: str, series: Sequence[_Series], few: bool, values: Sequence[float]
) -> None:
    ordered = sorted(set(values))
    log = _is_log(ordered)
    scattered = not few and _scattered(series)
    for place, one in enumerate(series):
        points = sorted(
            (_aside(float(value), place, len(series), ordered, log) if few else float(value), _spread(data, kept, at))
            for value, at in one.points
            if isinstance(value, int | float)
        )
        color = FED if len(series) == 1 or scattered else SERIES[place] if few else MUTED
        line = ([x for x, _ in points], [at.mean for _, at in points])
        if scattered:
            axes.plot(*line, "o", color=color, markersize=6, alpha=0.7, markeredgewidth=0)
            continue
        axes.plot(*line, color=color, linewidth=2 if few else 0.8, alpha=1 if few else 0.5)
        for x, at in points if few else ():
            _bar(axes, x, at, color, 6)
    if not few and not scattered:
        means = [
            fmean(_spread(data, kept, at).mean for one in series for value, at in one.points if value == x)
            for x in ordered
        ]
        axes.plot(ordered, means, color=FED, linewidth=2.6, marker="o")
    _value_axis(axes, ordered, log)


def _scattered(series: Sequence[_Series]) -> bool:
    """Tell whether hardly two configurations share a value, as a search leaves them: there is no line to draw."""
    values = [value for one in series for value, _ in one.points]
    return len(set(values)) > len(values) / 2


def _is_log(values: Sequence[float]) -> bool:
    return values[0] > 0 and values[-1] / values[0] >= _LOG_RATIO


def _aside(x: float, place: int, of: int, values: Sequence[float], log: bool) -> float:
    """Move a point a little, so that the bars of several series stand beside each other."""
    share = 0.012 * (place - (of - 1) / 2)
    moved: float = x * (values[-1] / values[0]) ** share if log else x + share * (values[-1] - values[0])
    return moved


def _value_axis(axes: Any, values: Sequence[float], log: bool) -> None:
    """Logarithmic where the values span much, labelled at the values themselves where they are few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if log:
        axes.set_xscale("log")
    if len(values) <= _MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(_apart(values, log)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.grid(axis="x", visible=False)


def _apart(values: Sequence[float], log: bool) -> list[float]:
    """Return the values whose labels do not touch, the smallest first."""
    places = [math.log(value) if log else value for value in values]
    kept: list[int] = []
    for at, place in enumerate(places):
        if not kept or place - places[kept[-1]] >= _TICK_GAP * (places[-1] - places[0]):
            kept.append(at)
    return [values[at] for at in kept]


def _categories(
    axes: Any, data: SweepData, kept: str, series: Sequence[_Series], few: bool, values: Sequence[Value]
) -> None:
    for place, one in enumerate(series):
        shift = 0.5 * (place + 0.5) / len(series) - 0.25
        color = SERIES[place] if few else MUTED
        if len(series) == 1:
            color = FED
        for value, at in one.points:
            x = values.index(value) + shift
            single = list(at.by_seed(kept, data.metric).values())
            axes.plot([x] * len(single), single, "o", color=color, markersize=4, alpha=0.35, markeredgewidth=0)
            if few:
                _bar(axes, x + 0.04, _spread(data, kept, at), color)
    if not few:
        for x, value in enumerate(values):
            means = [_spread(data, kept, at).mean for one in series for found, at in one.points if found == value]
            axes.plot(x, fmean(means), "o", color=FED, markersize=8)
    axes.set_xticks(range(len(values)), [shown(value)[:16] for value in values])
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.grid(axis="x", visible=False)


def _by_seed(data: SweepData, kept: str, name: str) -> list[Plot]:
    scored = data.configurations[0].by_seed(kept, data.metric)
    known = Spread.of(list(scored.values()))
    if known is None or len(scored) < 2:
        return []

    def paint(axes: Any) -> None:
        axes.axhline(known.mean, color=FED, linewidth=1.6)
        if known.deviation is not None:
            axes.axhspan(known.mean - known.deviation, known.mean + known.deviation, color=FED, alpha=0.12, linewidth=0)
        axes.plot(range(len(scored)), list(scored.values()), "o", color=FED, markersize=7)
        axes.set_xticks(range(len(scored)), [shown(seed) for seed in scored])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("seed")
        _score_axis(axes, data, kept)

    title = f"{metric_name(data.metric).capitalize()} on {kept} rows, by seed"
    what = f"{title}: {figure(known.mean, data.metric)} on average"
    return [
        Plot(title, draw(name, 460, 240, what, paint), (), "The line is the mean, the band one standard deviation.")
    ]


def _score_axis(axes: Any, data: SweepData, kept: str) -> None:
    if not is_share(data.metric or ""):
        return
    reach = [
        bound
        for one in data.configurations
        if (spread := one.spread(kept, data.metric)) is not None
        for bound in (
            *one.by_seed(kept, data.metric).values(),
            spread.mean - (spread.deviation or 0.0),
            min(1.0, spread.mean + (spread.deviation or 0.0)),
        )
    ]
    axes.set_ylim(*limits(reach))
    share_axis(axes.yaxis)
