"""The report's section on privacy: the card in short, and what only a simulation can show beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from markupsafe import Markup

from quire.simulation import noise_section
from quire.simulation.drawing import FED, POOLED, draw, share_axis, whole_numbers
from quire.simulation.report_data import RunData, number
from quire.strategies.card_noise import KEY

#: Words that go with everything a deployment has no way of showing.
SIMULATOR_ONLY = "Simulator only: a deployment cannot show this"


def section(data: RunData) -> dict[str, Any] | None:
    """Return what the template shows; None for a run without privacy."""
    if not data.private:
        return None
    card = data.card
    if card is None:
        return {"card": False, "shared": None, "figures": [], "noiseless": math.isinf(_epsilon(data))}
    return {
        "card": True,
        "noiseless": card["standing"] == "none",
        "tone": {"stated": "good", "none": "bad"}.get(card["standing"], "level"),
        "verdict": card["verdict"],
        "coverage": card["coverage"],
        "words": card["words"],
        "rows": [_row(silo, data) for silo in card["silos"]],
        "simulated": data.simulated,
        "figures": _figures(data, card) if data.simulated else [],
        "bound": card["silos"][0]["statement"]["unit"] == "silo" or KEY in card,
        "shared": noise_section.section(data),
    }


def _epsilon(data: RunData) -> float:
    value = data.setting("privacy.epsilon", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _row(silo: Mapping[str, Any], data: RunData) -> dict[str, Any]:
    stated, figures = silo["statement"], silo["figures"]
    return {
        "silo": stated["silo"],
        "records": silo["declared_records"],
        "rdp": _number(figures["rdp"]),
        "pld": _number(figures["pld"]),
        "delta": f"{stated['delta']:g}",
        "noise": f"{stated['noise_multiplier']:.4g}",
        "steps": stated["steps"],
        "clipped": _mean(data, stated["silo"], "clipped_share") if data.simulated else None,
    }


def _number(value: float | str) -> str:
    return "infinite" if isinstance(value, str) else f"{value:.3g}"


def _mean(data: RunData, silo: str, key: str) -> float | None:
    values = [number(event.get("silos", {}).get(silo, {}).get(key)) for event in data.rounds]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _figures(data: RunData, card: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Draw signal-to-noise and the share of clipped terms by round."""
    found: list[tuple[str, Markup]] = []
    ratio = _ratios(data, card)
    if ratio[0]:
        first, last = ratio[1][0], ratio[1][-1]
        label = f"signal-to-noise by round: {first:.2g} in round {ratio[0][0]}, {last:.2g} in round {ratio[0][-1]}"

        def paint(axes: Any) -> None:
            axes.plot(*ratio, color=FED, linewidth=2.6, marker="o" if len(ratio[0]) == 1 else None)
            axes.axhline(1.0, color=POOLED, linewidth=1.4, linestyle=(0, (4, 2.5)))
            axes.set_ylim(0, 1.1 * max(1.0, *ratio[1]))
            _rounds(axes, data)

        found.append(("Signal-to-noise", draw("p0", 460, 220, label, paint)))
    clipped = _series(data, "clipped_share")
    if clipped[0]:
        label = f"share clipped by round: {100 * clipped[1][0]:.0f} % at first, {100 * clipped[1][-1]:.0f} % at last"

        def paint_share(axes: Any) -> None:
            axes.plot(*clipped, color=FED, linewidth=2.6, marker="o" if len(clipped[0]) == 1 else None)
            axes.set_ylim(0, 1.02)
            share_axis(axes.yaxis)
            _rounds(axes, data)

        found.append(("Clipped share", draw("p1", 460, 220, label, paint_share)))
    return found


def _rounds(axes: Any, data: RunData) -> None:
    axes.set_xlim(0.5, max(data.planned, data.rounds[-1]["round"]) + 0.5)
    axes.set_xlabel("round")
    axes.grid(axis="x", visible=False)
    whole_numbers(axes.xaxis)


def _series(data: RunData, key: str) -> tuple[list[int], list[float]]:
    points = [(event["round"], number((event.get("train") or {}).get(key))) for event in data.rounds]
    known = [(place, value) for place, value in points if value is not None]
    return [place for place, _ in known], [value for _, value in known]


def _ratios(data: RunData, card: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    """Return the ratio of the norms of what was summed and of the noise on it, by round.

    Record unit: measured inside the silos, over their steps. Silo unit: the norms of the clipped updates, added up,
    over the noise's expected norm, sigma * clip * sqrt(parameters): at most what it really was. Shared noise: norms
    that are added up as well, over what is expected of the shares of all silos.
    """
    stated = card["silos"][0]["statement"]
    if KEY in card:
        points = list(noise_section.ratios(data))
        return [place for place, _ in points], [value for _, value in points]
    if stated["unit"] == "record":
        signal, noise = _series(data, "signal_norm"), dict(zip(*_series(data, "noise_norm"), strict=True))
        known = [
            (place, value / noise[place]) for place, value in zip(*signal, strict=True) if noise.get(place, 0.0) > 0.0
        ]
        return [place for place, _ in known], [value for _, value in known]
    spread = stated["noise_multiplier"] * math.sqrt(number(data.start.get("parameters")) or 0.0)
    if not spread:
        return [], []
    points = []
    for event in data.rounds:
        clip = number((event.get("released") or {}).get("clip")) or stated["clip"]  # of the round, where it moves
        norms = [number(about.get("signal_norm")) for about in event.get("silos", {}).values()]
        if any(norm is not None for norm in norms):
            points.append(
                (event["round"], sum(min(norm, clip) for norm in norms if norm is not None) / (spread * clip))
            )
    return [place for place, _ in points], [value for _, value in points]
