"""The report's part on noise that silos share: what was foreseen of it, its numbers, and what the probes showed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from quire.privacy.dp.forecast import Forecast
from quire.simulation.drawing import FED, POOLED, draw, whole_numbers
from quire.simulation.report_data import RunData, number
from quire.strategies.card_noise import KEY
from quire.strategies.distributed import forecast_words


def section(data: RunData) -> dict[str, Any] | None:
    """Return what the template shows; None for a run whose silos share no noise."""
    told = data.start.get(KEY)
    if not isinstance(told, Mapping):
        return None
    noise, encoding, card = told["noise"], told["encoding"], (data.card or {}).get(KEY)
    foreseen = Forecast(**told["forecast"])
    probes = card["probes"] if card is not None else {}
    rows = [
        ("On the roster, may side with the server", f"{noise['members']}, {noise['colluders']}"),
        ("Fewest in a sum", str(noise["min_survivors"])),
        ("Shares that carry the noise", str(noise["min_survivors"] - noise["colluders"] - 1)),
        ("Noise multiplier of the run", f"{noise['noise_multiplier']:.4g}"),
        ("Sampling rate", f"{noise['sampling_rate']:g}"),
        ("Bits a coordinate", str(encoding["bits"])),
        ("Probes", str(encoding["probes"])),
    ]
    if data.card is not None:
        alone = max(float(silo["if_alone"]["rdp"]) for silo in data.card["silos"])
        rows.append(("Epsilon if all others are dishonest", "infinite" if alone == float("inf") else f"{alone:.3g}"))
    return {
        "drowned": foreseen.drowned,
        "forecast": forecast_words(foreseen, str(noise["unit"])) if noise["noise_multiplier"] else [],
        "rows": rows,
        "alarm": probes.get("words", ""),
        "broken": probes.get("too_little") is not None,
        "figures": _figures(data),
        "probes": int(encoding["probes"]),
    }


def ratios(data: RunData) -> Iterator[tuple[int, float]]:
    """Yield rounds with the norms that simulated silos show, added up, over the expected norm of the noise on the sum.

    At most what it was, met if all silos pull the same way.
    """
    told = data.start.get(KEY)
    parties = number(told["noise"]["parties"]) if isinstance(told, Mapping) else None
    for event in data.rounds:
        each = number((event.get("train") or {}).get("noise_norm"))  # the same at all silos: a part of the sum's
        norms = [number(about.get("signal_norm")) for about in event.get("silos", {}).values()]
        known = [norm for norm in norms if norm is not None]
        if each and parties and known:
            yield event["round"], sum(known) / (each * parties)


def _figures(data: RunData) -> list[tuple[str, Markup]]:
    """Draw the noise that the probes showed, over the promised variance, by round."""
    points = [(event["round"], event.get("released") or {}) for event in data.rounds]
    known = [
        (place, value / count)
        for place, released in points
        if (value := number(released.get("probe_statistic"))) is not None and (count := number(released.get("probes")))
    ]
    if not known:
        return []
    rounds, ratios = [place for place, _ in known], [ratio for _, ratio in known]
    label = (
        f"noise seen by the probes over the promised variance, by round: {min(ratios):.3g} to {max(ratios):.3g}, "
        f"{sum(ratios) / len(ratios):.4g} on average; 1 is as promised"
    )

    def paint(axes: Any) -> None:
        axes.plot(rounds, ratios, color=FED, linewidth=1.8, marker="o" if len(rounds) <= 30 else None, markersize=4)
        axes.axhline(1.0, color=POOLED, linewidth=1.4, linestyle=(0, (4, 2.5)))
        axes.set_xlim(0.5, max(data.planned, rounds[-1]) + 0.5)
        axes.set_ylim(min(0.75, 0.98 * min(ratios)), max(1.25, 1.02 * max(ratios)))
        axes.set_xlabel("round")
        axes.grid(axis="x", visible=False)
        whole_numbers(axes.xaxis)

    return [("Noise over what was promised", draw("n0", 460, 220, label, paint))]
