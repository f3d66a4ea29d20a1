"""Drawing for a page: matplotlib as inline SVG that takes its colours and fonts from the page.

Each drawing uses stand-in colours, which become CSS variables in the SVG: one picture serves light and dark.
Only the object-oriented interface is used, under one lock, since matplotlib's settings are global.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

INK, MUTED, GRID, FED, POOLED, ALONE, GOOD, BAD, PAPER = (f"#0102{place:02x}" for place in range(9))
#: Colours for things of equal rank.
SERIES = tuple(f"#0103{place:02x}" for place in range(10))
#: Colours for lines that cross: told apart by the colour-blind, and dark enough for thin strokes.
LINES = tuple(f"#0104{place:02x}" for place in range(6))
_VARIABLES = dict(
    zip(
        (INK, MUTED, GRID, FED, POOLED, ALONE, GOOD, BAD, PAPER),
        ("ink", "muted", "grid", "fed", "pooled", "alone", "good", "bad", "paper"),
        strict=True,
    )
) | {color: f"{kind}{place}" for kind, colors in (("k", SERIES), ("l", LINES)) for place, color in enumerate(colors)}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quire",
    "font.size": 11.0,
    "text.color": INK,
    "text.parse_math": False,  # a silo may be called "$x"
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
}
_LOCK = threading.Lock()


def draw(key: str, width: float, height: float, label: str, paint: Callable[[Any], None]) -> Markup:
    """Draw one set of axes and return it as SVG for a page.

    Parameters
    ----------
    key : str
        Prefix of all ids in the SVG, unique on the page.
    width, height : float
        Size in points; the page scales it to the column.
    label : str
        What the figure shows, for those who do not see it.
    paint : callable
        Draws on the axes that it is given.
    """
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with _LOCK, style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that matplotlib's font lacks: the reader's browser has them
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(buffer.getvalue(), key, label))


def _inline(svg: str, key: str, label: str) -> str:
    """Make matplotlib's file a part of the page: no prologue, ids of its own, the page's fonts and colours."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    box = re.search(r'viewBox="([^"]*)"', svg)
    for junk in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style.*?</style>"):
        body = re.sub(junk, "", body, flags=re.DOTALL)
    body = re.sub(r"font: ((?:\d+ )?)([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2", body)
    body = body.replace("font-weight: ; ", "").replace("xlink:href", "href")
    body = re.sub(r'( id="|url\(#| href="#)', rf"\g<1>{key}-", body)
    body = re.sub("#010[234][0-9a-f]{2}", lambda match: f"var(--{_VARIABLES[match[0]]})", body)
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="{box[1] if box else ""}">{body}'


def share_axis(axis: Any) -> None:
    """Label an axis of shares in per cent."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %" if value <= 1.001 else ""))


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis of shares that shows these values."""
    low, high = min(values), max(values)
    room = max(0.06 * (high - low), 0.01)
    floor = -0.02 if low >= 0 else low - 2 * room  # R² may lie below zero
    return max(floor, low - 2 * room), min(1.02, high + room)


def whole_numbers(axis: Any) -> None:
    """Label an axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
