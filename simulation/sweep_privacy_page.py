"""What the template of a private sweep is filled in with."""

from __future__ import annotations

from typing import Any

from quire.simulation.report_words import plural
from quire.simulation.sweep_data import is_share
from quire.simulation.sweep_measured import NONE
from quire.simulation.sweep_privacy import PrivacyData, kept_rows
from quire.simulation.sweep_privacy_figures import Plot, names, noise, ratios, utility, where
from quire.simulation.sweep_privacy_files import CSV, JSON
from quire.simulation.sweep_privacy_words import columns, references, rows, warning
from quire.simulation.sweep_words import bars, metric_name, silo

_MOST_ROWS = 120
_MOST_PANELS = 8
_MOST_RATIOS = 6


def privacy_context(found: PrivacyData) -> dict[str, Any]:
    """Return the context of ``sweep_privacy.html.j2``."""
    table, panels = rows(found), found.panels[:_MOST_PANELS]
    drawn = [utility(panel, f"u{place}", len(panels) == 1) for place, panel in enumerate(panels)]
    curves = _ratios(found)
    bounded = any(one.bounded for point in found.points for one in point.measured)
    return {
        "about": bars(found.data),
        "silo": silo(found.data),
        "utility": [plot for plot in drawn if plot is not None] if found.several else [],
        "beside": _beside(found),
        "noise": [plot for place, panel in enumerate(panels) if (plot := noise(panel, f"n{place}")) is not None],
        "ratios": curves,
        "ratio_note": _ratio_note(bounded) if curves else "",
        "columns": columns(found),
        "rows": table[:_MOST_ROWS],
        "left_out": max(0, len(table) - _MOST_ROWS),
        "references": [row for panel in panels for row in references(panel)],
        "reading": _reading(found),
        "cost_unit": ", points" if is_share(found.data.metric or "") else "",
        "csv": CSV,
        "json": JSON,
        "warning": warning(found),
        "searched": found.data.about.get("sweeper") == "optuna",
    }


def _ratios(found: PrivacyData) -> list[Plot]:
    """Draw the signal-to-noise ratio of each line, as many as can be looked at."""
    drawn: list[Plot] = []
    for panel in found.panels:
        for line, name in zip(panel.leading, names(panel.leading), strict=True):
            apart = (where(panel), name if len(panel.leading) > 1 else "")
            title = ", ".join(["Signal to noise by round", *(text for text in apart if text)])
            plot = ratios(line, f"r{len(drawn)}", title)
            if plot is not None:
                drawn.append(plot)
    return drawn[:_MOST_RATIOS]


def _ratio_note(bounded: bool) -> str:
    text = (
        "Signal: the length of what the rows of a batch add to a step, each gradient clipped; noise: the length of "
        "what is added to it; root mean squares over the steps of a round, means over silos. Below the dashed line a "
        "step is more noise than signal. Averaging over silos and steps, which the ratio leaves aside, brings it down."
    )
    if bounded:
        text += (
            " Where one silo is the unit, the server adds noise once a round to the sum of the updates: the ratio is "
            "then at most what is shown, which it reaches if all updates point the same way."
        )
    return text


def _beside(found: PrivacyData) -> str:
    silos = plural(silo(found.data))
    parts = [f"Small strokes are single seeds. Scores on {kept_rows(found.data)} rows of all {silos}."]
    if any(panel.reference("pooled") for panel in found.panels):
        parts.append(
            "Pooled (dashed) is trained on all rows in one place, alone (dotted, in a band from the worst to the best) "
            f"on the rows of one {silo(found.data)}; both without privacy, so both promise nothing."
        )
    if any(point.epsilon == float("inf") and point.mode != NONE for point in found.points):
        parts.append("∞ clips as the others do and adds no noise.")
    return " ".join(parts)


def _reading(found: PrivacyData) -> str:
    name = metric_name(found.data.metric)
    chosen = any(panel.chosen for panel in found.panels)
    against = "the best settings, with the same seeds," if chosen else "the same settings and seeds"
    text = (
        f"{name.capitalize()} on {kept_rows(found.data)} rows, mean ± standard deviation over seeds. Cost: how much "
        f"is lost against {against} without noise, or else without privacy. Noise multiplier: "
        "standard deviation of the noise over the clip, from the least to the most over silos, for each calibrates its "
        "own from the number of records that it declares."
    )
    if any(point.ratios for point in found.points):
        text += " Signal / noise: in the first round → in the last."
    return text
