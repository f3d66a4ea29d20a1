"""What a round in groups costs beside one sum of the same silos: a part of ``groups.py``, with the whole protocol."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
from harness import Figure
from secagg_parts import Cast, cpu, run_round

RUN = (
    "task=digits partition=iid strategy.rounds=2 strategy.fraction_evaluate=0 seed=1 output.baselines=false "
    "output.report=false output.progress=none partition.silos={silos} aggregation=secure "
)
GROUPED = "aggregation.groups={groups} aggregation.byzantine=1 aggregation.colluders=0"


def protocol_seconds(silos: int, groups: int, parameters: int) -> float:
    """Return processor seconds of one round of the protocol, of all silos and the server, keys agreed on before."""
    casts = [Cast.of(len(range(at, silos, groups)), parameters) for at in range(groups)]

    def work() -> None:
        for cast in casts:
            run_round(cast, 0, parameters)[0].unmask()

    return cpu(work)


def whole_run(overrides: str, kept: dict[str, Any]) -> float:
    """Run a federation with the whole protocol, keep its model and its bytes, and return processor seconds."""
    import quire

    with tempfile.TemporaryDirectory() as scratch:
        started = time.process_time()
        result = quire.run(overrides, Path(scratch) / "run")
        seconds = time.process_time() - started
        lines = map(json.loads, (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        rounds = [line for line in lines if line["event"] == "round"]
    kept["model"] = result.model
    kept["bytes"] = sum(line["bytes_up"] + line["bytes_down"] for line in rounds) / len(rounds)
    return seconds


def figures(silos: int, groups: int, parameters: int, repetitions: int) -> list[Figure]:
    """Hold the work and the bytes of rounds in groups against those of one sum."""
    kept: dict[str, dict[str, Any]] = {"one sum": {}, "groups": {}, "exact_sum": {}}
    base, dealt = RUN.format(silos=silos), GROUPED.format(groups=groups)
    runs: dict[str, Callable[[], float]] = {
        "one sum": partial(whole_run, base, kept["one sum"]),
        "groups": partial(whole_run, base + dealt, kept["groups"]),
    }
    whole = harness.interleaved(runs, repetitions)
    whole_run(f"{base} aggregation.simulate=exact_sum {dealt}", kept["exact_sum"])
    rounds = harness.interleaved(
        {
            "one sum": partial(protocol_seconds, silos, 1, parameters),
            "groups": partial(protocol_seconds, silos, groups, parameters),
        },
        repetitions,
    )
    where = f"n={silos}, {groups} groups"
    masks = f"{-(-silos // groups) - 1} masks with peers a silo in place of {silos - 1}"
    return [
        Figure(
            f"{where}: protocol and exact_sum end with one model, 1 if so",
            float(kept["groups"]["model"] == kept["exact_sum"]["model"]),
            ">= 1",
            "2 rounds",
        ),
        Figure(
            f"{where}: a round's processor time over that of one sum, {parameters:,} parameters",
            harness.median_ratio(rounds, "groups", "one sum"),
            "<= 1",
            f"the protocol of all silos and the server, without training or agreeing on keys; {masks}",
        ),
        Figure(
            f"{where}: a whole run's processor time over that of one sum, digits",
            harness.median_ratio(whole, "groups", "one sum"),
            "<= 1",
            "2 rounds with training and the agreement on keys",
        ),
        Figure(
            f"{where}: a round's bytes over those of one sum, digits",
            kept["groups"]["bytes"] / kept["one sum"]["bytes"],
            "<= 1",
            f"{kept['groups']['bytes'] / 1000:.0f} kB against {kept['one sum']['bytes'] / 1000:.0f} kB, both ways and "
            "all silos together, 650 parameters; the agreement on keys shared out over 2 rounds",
        ),
    ]
