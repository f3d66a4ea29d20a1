"""The table of a private sweep as files, for whoever draws its own figures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quire.simulation.page import write_page
from quire.simulation.sweep_data import KEPT, Configuration
from quire.simulation.sweep_privacy import Panel, Point, PrivacyData, Range

CSV, JSON = "privacy_utility.csv", "privacy_utility.json"
_REFERENCES = ("pooled", "alone", "majority")


def write_tables(found: PrivacyData, folder: Path) -> None:
    """Write ``privacy_utility.csv`` and ``privacy_utility.json`` into the folder of a sweep.

    Both hold one entry for each configuration, over its seeds: the CSV its figures, the JSON also those of each seed,
    and the signal-to-noise ratio of each round. An infinite epsilon is the text ``inf``.

    Raises
    ------
    ReportError
        If a file cannot be written.
    """
    flat = [_row(panel, point) for panel, point in _points(found)]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)), lineterminator="\n")
    table.writeheader()
    table.writerows({key: _plain(value) for key, value in row.items()} for row in flat)
    write_page(folder / CSV, text.getvalue())
    entries = [
        {
            **{key: _plain(value) for key, value in row.items()},
            "seeds": [_seed(job) for job in point.configuration.jobs],
            "signal_to_noise": {str(place): value for place, value in point.ratios.items()},
        }
        for row, (_, point) in zip(flat, _points(found), strict=True)
    ]
    tree = {"metric": found.data.metric, "simulator_only": list(SIMULATOR_ONLY), "rows": entries}
    write_page(folder / JSON, json.dumps(tree, indent=1, allow_nan=False))


#: What a silo tells in a simulation only; keys that begin so, or hold so.
SIMULATOR_ONLY = ("validation_", "test_", "cost_", "signal_to_noise", "pooled", "alone", "majority", "seeds")


def _points(found: PrivacyData) -> Iterator[tuple[Panel, Point]]:
    for panel in found.panels:
        for line in panel.lines:
            yield from ((panel, point) for point in line.points)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value == math.inf else None
    return list(value) if isinstance(value, tuple) else value


def _row(panel: Panel, point: Point) -> dict[str, Any]:
    data, one = panel.data, point.configuration
    chosen = {id(best.configuration) for line in panel.chosen for best in line.points}
    row: dict[str, Any] = {
        **dict(zip(data.keys, one.values, strict=True)),
        "privacy": point.mode,
        "privacy.epsilon": point.epsilon,
        **_range("delta", point.deltas),
        **_range("noise_multiplier", point.multipliers),
        "runs": len(one.jobs),
        "completed": sum(job.status == "completed" for job in one.jobs),
        "chosen": id(one) in chosen if panel.chosen else None,
        **_scores(one),
    }
    lost, ratios = panel.cost(point), list(point.ratios.values())
    row |= {"cost_mean": lost.mean if lost else None, "cost_deviation": lost.deviation if lost else None}
    first, last = (ratios[0], ratios[-1]) if ratios else (None, None)
    row |= {"signal_to_noise_first": first, "signal_to_noise_last": last}
    for name in _REFERENCES:
        known = panel.reference(name)
        row[name] = known[0] if known else None
    return row


def _range(name: str, reach: Range | None) -> dict[str, float | None]:
    return {f"{name}_low": reach.low if reach else None, f"{name}_high": reach.high if reach else None}


def _scores(one: Configuration) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kept in KEPT:
        for metric in sorted({name for job in one.jobs for name in job.scores.get(kept, {})}):
            known = one.spread(kept, metric)
            if known is not None:
                found |= {f"{kept}_{metric}_mean": known.mean, f"{kept}_{metric}_deviation": known.deviation}
                found[f"{kept}_{metric}_n"] = known.n
    return found


def _seed(job: Any) -> dict[str, Any]:
    return {
        "job": job.number,
        "seed": job.values.get("seed"),
        "status": job.status,
        "error": job.error,
        **{kept: dict(job.scores.get(kept, {})) for kept in KEPT},
    }
