"""What the folder of one job of a sweep tells about privacy.

What a run was promised and how it was noised is read from the silos' receipts, what it looked like from the inside from
the journal. Signals, and the models trained for comparison, exist in a simulation only.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from quire.errors import QuireError
from quire.privacy.dp.contract import PrivacyError, Unit, capped_weight
from quire.privacy.receipts import Receipt
from quire.simulation import noise_section
from quire.simulation.report_data import RunData, number, read_run
from quire.simulation.sweep_data import Job

EPSILON = "privacy.epsilon"
NONE = "none"


@dataclass(frozen=True)
class Measured:
    """What the folder of one job tells about privacy.

    Attributes
    ----------
    mode : str
        ``privacy=...``; ``none`` for updates that leave as they are.
    epsilon : float
        The target of the whole run; infinite without noise.
    began : bool
        Whether anything left a silo.
    deltas, multipliers : tuple of float
        Of each silo that gave a receipt, and whose update is noised; empty without noise.
    ratios : dict of int to float
        Signal-to-noise ratio by round, without unit; see :func:`measured`.
    bounded : bool
        Whether the ratios are upper bounds.
    pooled, majority : float or None
        Scores on all test rows of the models trained for comparison, without privacy.
    alone : tuple of float
        The same of each silo's own model.
    """

    mode: str
    epsilon: float
    began: bool = False
    deltas: tuple[float, ...] = ()
    multipliers: tuple[float, ...] = ()
    ratios: Mapping[int, float] = field(default_factory=dict)
    bounded: bool = False
    pooled: float | None = None
    majority: float | None = None
    alone: tuple[float, ...] = ()


def measured(job: Job, metric: str | None) -> Measured:
    """Read the folder of a job.

    Signal-to-noise is the length (L2) of what the silo's rows add to a step, after clipping, over the length of the
    noise, root mean squares over the steps of a round, as means over silos. Where one silo is the unit, the server
    adds noise of expected squared length ``(noise_multiplier * clip)^2 * parameters`` once to the sum, whose length
    is at most the sum of the clipped lengths: an upper bound, met if all updates point the same way. So it is where
    silos share the noise.
    """
    run = None
    with suppress(QuireError):  # where it never began, what it was to be is in the overrides
        run = read_run(job.folder)
    privacy = run.setting("privacy", {}) if run is not None else {}
    mode = str(privacy.get("name", job.values.get("privacy", NONE)))
    epsilon = _float(privacy.get("epsilon", job.values.get(EPSILON)))
    if run is None or mode == NONE:
        began = run is not None and bool(run.rounds)
        return Measured(mode, math.inf if mode == NONE else epsilon, began, **_compared(run, metric))
    receipts = list(_receipts(run))
    by_silo = {receipt.body["silo"]: receipt.body for _, receipt in reversed(receipts)}
    noised = [body for body in by_silo.values() if body["noise_multiplier"]]
    shared = mode.endswith("_distributed")
    bounded = shared or any(body["unit"] == Unit.SILO for body in noised)
    return Measured(
        mode,
        epsilon,
        bool(run.rounds),
        tuple(body["delta"] for body in noised),
        tuple(body["noise_multiplier"] for body in noised),
        dict(noise_section.ratios(run) if shared else _silo_ratios(run, receipts) if bounded else _record_ratios(run)),
        bounded,
        **_compared(run, metric),
    )


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _compared(run: RunData | None, metric: str | None) -> dict[str, Any]:
    if run is None or metric is None:
        return {}
    alone = run.scored("everyone", "alone").values()
    values = [number(scores.get(metric)) for scores in alone if isinstance(scores, dict)]
    return {
        "pooled": number(run.scored("everyone", "pooled").get(metric)),
        "majority": number(run.scored("everyone", "majority").get(metric)),
        "alone": tuple(value for value in values if value is not None),
    }


def _receipts(run: RunData) -> Iterator[tuple[int, Receipt]]:
    """Yield the receipts that can be read, with their rounds."""
    for event in run.rounds:
        found = event.get("receipts")
        for text in found.values() if isinstance(found, dict) else ():
            try:
                yield event["round"], Receipt.decode(base64.b64decode(str(text), validate=True))
            except (ValueError, PrivacyError):
                continue  # verifying is another command's business


def _record_ratios(run: RunData) -> Iterator[tuple[int, float]]:
    for event in run.rounds:
        train = event.get("train") or {}
        signal, noise = number(train.get("signal_norm")), number(train.get("noise_norm"))
        if signal is not None and noise:
            yield event["round"], signal / noise


def _silo_ratios(run: RunData, receipts: Sequence[tuple[int, Receipt]]) -> Iterator[tuple[int, float]]:
    parameters = number(run.start.get("parameters"))
    cap = number(run.setting("privacy.cap"))
    by_round: dict[int, list[Mapping[str, Any]]] = {}
    for place, receipt in receipts:
        by_round.setdefault(place, []).append(receipt.body)
    for event in run.rounds:
        bodies = by_round.get(event["round"], [])
        lengths = []
        for body in bodies:
            norm = number((event.get("silos", {}).get(body["silo"]) or {}).get("signal_norm"))
            capped = body["weights"] == "capped" and cap
            weight = capped_weight(body["records"], int(cap)) if capped and cap else 1.0
            if norm is not None:
                lengths.append(weight * min(norm, body["clip"]))
        if lengths and parameters:
            noise = bodies[0]["noise_multiplier"] * bodies[0]["clip"] * math.sqrt(parameters)
            yield event["round"], sum(lengths) / noise
