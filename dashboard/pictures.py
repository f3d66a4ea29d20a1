"""The report's figures on the dashboard: the same drawings, without a single inline style, so that none is allowed."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from pathlib import Path

from markupsafe import Markup

from quire.dashboard.journal import Journal
from quire.simulation import figures
from quire.simulation.report_data import RunData

#: Rounds that are drawn; more are thinned out evenly.
_MOST_ROUNDS, _MOST_KEPT = 400, 32
# Of SVG's presentation attributes, those that matplotlib writes into style="...".
_PRESENTATION = {
    *("fill", "fill-opacity", "fill-rule", "opacity", "clip-path"),
    *("stroke", "stroke-width", "stroke-opacity", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit"),
    *("stroke-dasharray", "stroke-dashoffset"),
    *("font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline"),
}
_STYLE = re.compile(r' style="([^"<>]*)"')

Figure = tuple[str, Markup]

_KEPT: OrderedDict[tuple[object, ...], tuple[list[Figure], list[Figure]]] = OrderedDict()
_LOCK = threading.Lock()


def drawn(journal: Journal, folder: Path) -> tuple[list[Figure], list[Figure]]:
    """Draw a run: scores by round, and what the rounds cost.

    Parameters
    ----------
    journal : Journal
        With the silos' figures behind the mean, where they are in it.
    folder : pathlib.Path
        What the drawings are kept under, until the journal has changed.

    Returns
    -------
    tuple of two lists of (str, Markup)
        Titles and drawings; empty where there is nothing to draw.
    """
    if not journal.rounds:
        return [], []
    # Of a journal with the silos' figures and of one without there are two drawings, whichever round has any.
    by_silo = any(event["silos"] for event in journal.rounds)
    key = (folder, len(journal.rounds), str(journal.rounds[-1]), by_silo, journal.planned)
    with _LOCK:
        if key in _KEPT:
            _KEPT.move_to_end(key)
            return _KEPT[key]
    step = -(-len(journal.rounds) // _MOST_ROUNDS)
    data = RunData(
        folder=folder,
        settings={},
        run={},
        start={"rounds": journal.planned or journal.rounds[-1]["round"], "silos": list(journal.silos)},
        rounds=journal.rounds[::step],
        seconds=None,
        comparison=None,
    )
    found = _bare(figures.curves(data)), _bare(figures.costs(data))
    with _LOCK:
        _KEPT[key] = found
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    return found


def _bare(drawings: list[Figure]) -> list[Figure]:
    return [(title, Markup(_STYLE.sub(_attributes, str(svg)))) for title, svg in drawings]


def _attributes(found: re.Match[str]) -> str:
    """Return what stands in a style as attributes of its own; what is no presentation attribute is dropped."""
    pairs = (part.partition(":") for part in found[1].split(";"))
    told = ((name.strip(), value.strip()) for name, _, value in pairs)
    return "".join(f' {name}="{value}"' for name, value in told if name in _PRESENTATION and value)
