"""The figures of privacy: the score and the noise against epsilon, and the signal-to-noise ratio by round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from quire.simulation.drawing import (
    ALONE,
    FED,
    INK,
    LINES,
    MUTED,
    PAPER,
    POOLED,
    draw,
    limits,
    share_axis,
    whole_numbers,
)
from quire.simulation.sweep_axes import Axis, log_axis, spaced
from quire.simulation.sweep_data import is_share
from quire.simulation.sweep_measured import NONE
from quire.simulation.sweep_privacy import Line, Panel, Point, kept_rows, scored
from quire.simulation.sweep_words import figure, metric_name, shown, silo

MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_LINES = len(MARKERS)
_FAR = 0.6  # of what the runs reach: as far out may a silo alone lie and still be drawn


@dataclass(frozen=True)
class Plot:
    """One drawing; its lines by name, in the order of the page's colours and marks."""

    title: str
    svg: Markup
    legend: tuple[str, ...] = ()
    note: str = ""


def names(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return what sets lines apart, as written on the command line."""
    told = (" ".join(f"{key}={shown(value)}" for key, value in line.values.items()) for line in lines)
    return tuple(text or f"privacy={line.mode}" for text, line in zip(told, lines, strict=True))


def utility(panel: Panel, key: str, wide: bool) -> Plot | None:
    """Draw the score against epsilon, with what is trained without privacy beside it.

    Parameters
    ----------
    panel : Panel
    key : str
        Prefix of the ids in the drawing.
    wide : bool
        Whether it has the page's width to itself.

    Returns
    -------
    Plot or None
        None where no run has a score.
    """
    data, metric = panel.data, panel.data.metric
    lines = [line for line in panel.leading if any(scored(data, point) for point in line.points)]
    points = [point for line in lines for point in line.points if scored(data, point)]
    if not points or metric is None:
        return None
    axis, few = Axis.of(points), len(lines) <= MOST_LINES

    def paint(axes: Any) -> None:
        reach: list[float] = []
        for place, line in enumerate(lines):
            style = (LINES[place], MARKERS[place]) if few else (MUTED, "o")
            reach += _line(axes, axis, panel, line, style, (place - (len(lines) - 1) / 2) * 0.008 if few else 0.0)
        reach += _others(axes, axis, panel)
        reach = _beside(axes, panel, reach)
        if is_share(metric):
            axes.set_ylim(*limits(reach))
            share_axis(axes.yaxis)
        else:
            room = 0.08 * (max(reach) - min(reach)) or 0.1
            axes.set_ylim(min(reach) - room, max(reach) + room)
        axes.set_ylabel(f"{metric_name(metric)}{', %' if is_share(metric) else ''}")
        more = (
            " of the whole run (no unit, logarithmic); smaller promises more" if wide else " of the run (logarithmic)"
        )
        axis.dress(axes, f"epsilon{more}")
        _tell(axes, panel)

    told = "; ".join(f"{_epsilon(point)}: {figure(_mean(data, point), metric)}" for point in points)
    label = f"{metric_name(metric)} on {kept_rows(data)} rows against epsilon: {told}"
    note = "" if few else f"{len(lines)} settings of the other keys, in grey."
    if panel.chosen:
        note = "At each epsilon, what did best on validation rows; everything else that was tried is grey."
    title = where(panel) or f"{metric_name(metric).capitalize()} on {kept_rows(data)} rows, by epsilon"
    svg = draw(key, *((800, 330) if wide else (470, 310)), label, paint)
    return Plot(title, svg, names(lines) if few and len(lines) > 1 else (), note)


def where(panel: Panel) -> str:
    """Return the settings that set a panel apart, as written on the command line; empty where it is the only one."""
    return ", ".join(f"{name}={shown(value)}" for name, value in panel.values.items())


def _mean(data: Any, point: Point) -> float | None:
    known = scored(data, point)
    return None if known is None else known.mean


def _epsilon(point: Point) -> str:
    return "no privacy" if point.mode == NONE else f"epsilon {point.epsilon:g}"


def _line(axes: Any, axis: Axis, panel: Panel, line: Line, style: tuple[str, str], aside: float) -> list[float]:
    color, marker = style
    known = [(point, spread) for point in line.points if (spread := scored(panel.data, point)) is not None]
    noised = [(axis.place(point) + aside, spread.mean) for point, spread in known if point.noised]
    axes.plot([x for x, _ in noised], [y for _, y in noised], color=color, linewidth=2.2, zorder=3)
    reach: list[float] = []
    for point, spread in known:
        x, deviation = axis.place(point) + aside, spread.deviation or 0.0
        single = list(point.configuration.by_seed(kept_rows(panel.data), panel.data.metric).values())
        if len(single) > 1:
            axes.plot([x] * len(single), single, "_", color=color, markersize=9, alpha=0.4, zorder=2)
        axes.errorbar(
            x, spread.mean, yerr=deviation, color=color, capsize=4 if deviation else 0, linewidth=1.7, zorder=4,
            marker=marker, markersize=8, markeredgewidth=1.6, markeredgecolor=color,
            markerfacecolor=color if point.noised else PAPER,
        )  # fmt: skip
        reach += [*single, spread.mean - deviation, min(1.0, spread.mean + deviation) if _share(panel) else spread.mean]
    return reach


def _share(panel: Panel) -> bool:
    return is_share(panel.data.metric or "")


def _others(axes: Any, axis: Axis, panel: Panel) -> list[float]:
    """Draw what was tried and not chosen, behind; return the scores."""
    reach = []
    chosen = {id(point.configuration) for line in panel.chosen for point in line.points}
    for line in panel.lines if panel.chosen else ():
        for point in line.points:
            spread = scored(panel.data, point)
            if spread is not None and id(point.configuration) not in chosen and not math.isnan(point.epsilon):
                axes.plot(
                    axis.place(point), spread.mean, "o", color=ALONE, markersize=4.5, alpha=0.6, markeredgewidth=0
                )
                reach.append(spread.mean)
    return reach


def _beside(axes: Any, panel: Panel, reach: list[float]) -> list[float]:
    """Draw the lines of what is trained without privacy; return what the axis has to show.

    What lies far away is left to a label at the edge: it must not press the rest together.
    """
    pooled, alone = panel.reference("pooled"), panel.reference("alone")
    if pooled is not None:
        axes.axhline(pooled[0], color=POOLED, linewidth=1.8, linestyle=(0, (5, 2.5)))
        reach = [*reach, pooled[0]]
    without = panel.without and scored(panel.data, panel.without)
    if without:
        axes.axhline(without.mean, color=FED, linewidth=1.4, linestyle=(0, (7, 2, 1.5, 2)))
    if alone is not None:
        axes.axhspan(alone[1], alone[2], color=ALONE, alpha=0.1, linewidth=0)
        axes.axhline(alone[0], color=ALONE, linewidth=1.6, linestyle=(0, (1, 1.6)))
        low, high = min(reach), max(reach)
        room = _FAR * (high - low)
        reach = [*reach, *(bound for bound in alone if low - room <= bound <= high + room)]
    return reach


def _tell(axes: Any, panel: Panel) -> None:
    """Name the lines at their right ends, moved apart where they would touch."""
    metric, (bottom, top) = panel.data.metric, axes.get_ylim()
    told: list[tuple[float, str, str]] = []
    for name, words, color in (("pooled", "pooled", POOLED), ("alone", f"a {silo(panel.data)} alone", ALONE)):
        known = panel.reference(name)
        if known is not None:
            away = " ↓" if known[0] < bottom else " ↑" if known[0] > top else ""
            shown_at = min(max(known[0], bottom), top)
            told.append((shown_at, f"{words} {figure(known[0], metric)}{away}", color))
    without = panel.without and scored(panel.data, panel.without)
    if without and panel.without is not None:
        words = "no privacy" if panel.without.mode == NONE else "no noise"
        told.append((without.mean, f"{words} {figure(without.mean, metric)}", FED))
    for y, text, color in spaced(told, axes.get_ylim()):
        axes.annotate(
            text, (1.0, y), xytext=(8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=color, annotation_clip=False,
        )  # fmt: skip


def noise(panel: Panel, key: str) -> Plot | None:
    """Draw the noise multiplier against epsilon: from the least to the most over silos."""
    noised = [line for line in panel.leading if any(point.multipliers for point in line.points)]
    # Settings that leave the noise as it is make no line of their own.
    alike: dict[tuple[Any, ...], Line] = {}
    for line in noised:
        alike.setdefault(tuple((point.epsilon, _bounds(point)) for point in line.points if point.noised), line)
    lines = list(alike.values())
    points = [point for line in lines for point in line.points if point.multipliers is not None]
    if len({point.epsilon for point in points}) < 2:
        return None
    few = len(lines) <= MOST_LINES
    axis = Axis.of(points)

    def paint(axes: Any) -> None:
        for place, line in enumerate(lines):
            color, marker = (LINES[place], MARKERS[place]) if few else (MUTED, "o")
            known = [(axis.place(point), reach) for point in line.points if (reach := point.multipliers) is not None]
            xs, low, high = ([x for x, _ in known], [at.low for _, at in known], [at.high for _, at in known])
            axes.fill_between(xs, low, high, color=color, alpha=0.22, linewidth=0)
            axes.plot(xs, high, color=color, linewidth=2, marker=marker, markersize=6, markeredgewidth=0)
            axes.plot(xs, low, color=color, linewidth=2, marker=marker, markersize=6, markeredgewidth=0)
        log_axis(axes.yaxis, [bound for point in points for bound in _bounds(point)])
        axes.set_ylabel("noise multiplier (noise / clip)")
        axis.dress(axes, "epsilon of the run (logarithmic)")

    told = "; ".join(f"epsilon {point.epsilon:g}: {_between(*_bounds(point))}" for point in points)
    title = ", ".join(text for text in ("Noise multiplier, least to most over silos", where(panel)) if text)
    return Plot(title, draw(key, 460, 270, f"{title}: {told}", paint), names(lines) if few and len(lines) > 1 else ())


def _bounds(point: Point) -> tuple[float, float]:
    reach = point.multipliers
    return (reach.low, reach.high) if reach is not None else (0.0, 0.0)


def _between(low: float, high: float) -> str:
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def ratios(line: Line, key: str, title: str) -> Plot | None:
    """Draw the signal-to-noise ratio by round, one curve for each epsilon."""
    curves: Mapping[float, dict[int, float]] = {point.epsilon: point.ratios for point in line.points if point.ratios}
    if not curves:
        return None
    values = [value for curve in curves.values() for value in curve.values()]

    def paint(axes: Any) -> None:
        ends = []
        for place, (epsilon, curve) in enumerate(curves.items()):
            share = (place + 1) / len(curves)
            single = "o" if len(curve) == 1 else None
            axes.plot(
                list(curve), list(curve.values()), color=FED, alpha=0.45 + 0.55 * share, linewidth=1.2 + 1.4 * share,
                marker=single,
            )  # fmt: skip
            ends.append((math.log(max(list(curve.values())[-1], 1e-12)), f"ε {epsilon:g}", INK))
        axes.axhline(1.0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2.5)))
        log_axis(axes.yaxis, [*values, 1.0])
        low, high = (math.log(bound) for bound in axes.get_ylim())
        last = max(place for curve in curves.values() for place in curve)
        for y, text, color in spaced(ends, (low, low + 1.35 * (high - low))):
            axes.annotate(
                text, (1.0, math.exp(y)), xytext=(6, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", color=color, annotation_clip=False,
            )  # fmt: skip
        axes.set_xlim(0.5, last + 0.5)
        axes.set_xlabel("round")
        axes.set_ylabel("signal / noise (no unit)")
        axes.grid(axis="x", visible=False)
        whole_numbers(axes.xaxis)

    told = "; ".join(
        f"epsilon {epsilon:g}: {next(iter(curve.values())):.2g} to {list(curve.values())[-1]:.2g}"
        for epsilon, curve in curves.items()
    )
    return Plot(title, draw(key, 460, 270, f"Signal-to-noise ratio by round: {told}", paint))
