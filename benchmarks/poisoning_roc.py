"""Draw the ROC curves of ``poisoning.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LEAST = 1e-3


def draw(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], silo_rounds: str, path: Path) -> None:
    """Plot the share of attackers caught by the share of honest silos suspected, single rounds, as an SVG.

    Parameters
    ----------
    curves : mapping of str to (sequence of float, sequence of float)
        By attack: false positives and true positives, each from 0 to 1.
    silo_rounds : str
        What was ranked, for the title.
    path : pathlib.Path
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"svg.hashsalt": "poisoning", "svg.fonttype": "none", "font.size": 9}):
        canvas = Canvas(figsize=(7.5, 4.2), layout="constrained")
        axes = canvas.subplots()
        for place, (name, (off, on)) in enumerate(curves.items()):
            style = ("-", "--", ":")[place // 10 % 3] if place else "-"
            axes.step([max(one, LEAST) for one in off], on, where="post", linestyle=style, label=name)
        axes.set(xscale="log", xlim=(LEAST, 1.0), ylim=(-0.02, 1.02), title=silo_rounds)
        axes.set(
            xlabel=f"honest silo-rounds beyond the score (left edge: {LEAST:g} or fewer)", ylabel="attackers caught"
        )
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, format="svg", metadata={"Date": None})
