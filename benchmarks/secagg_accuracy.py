"""What secure aggregation costs in accuracy: the same federation with ``aggregation=secure`` and with plain means.

``breast_cancer`` and ``digits`` with the defaults of their tasks (FedAvg; every silo asked in every round), five seeds;
each seed draws another partition, split and first model. The final models are scored on the test rows of all silos
together, and compared seed by seed: what counts is the largest difference of any seed, not a mean in which differences
cancel. Nothing else differs between the two runs: masks cancel exactly, so that what is left is the rounding of
updates to the numbers that are summed. ``digits`` also with 16 bits and a random rotation, half of what float32 sends.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import Figure

TASKS = {"breast_cancer": "task=breast_cancer", "digits": "task=digits"}
SECURE = "aggregation=secure"
NARROW = f"{SECURE} aggregation.bits=16 aggregation.rotation=true"
GOAL = "<= 0.1"


@dataclass(frozen=True)
class Outcome:
    """One run's end.

    Attributes
    ----------
    accuracy : float
        On the test rows of all silos, as a share.
    loss : float
    rows : int
        Test rows.
    model : dict of str to numpy.ndarray
    bits : int
        On the wire for a coordinate; 32, of a float, where nothing is masked.
    """

    accuracy: float
    loss: float
    rows: int
    model: dict[str, object]
    bits: int


def outcome(overrides: str) -> Outcome:
    """Run a federation in this process and read how it ended."""
    from safetensors.numpy import load_file

    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline

    with tempfile.TemporaryDirectory() as scratch:
        folder = run_inline(compose(overrides), Path(scratch) / "run").folder
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        last = [line for line in lines if line["event"] == "round"][-1]
        model = load_file(folder / "model.safetensors")
    rows = sum(int(silo["test_rows"]) for silo in last["silos"].values())
    scores = last["evaluate"]
    return Outcome(scores["accuracy"], scores["loss"], rows, model, last["secure"].get("bits", 32))


def apart(one: Outcome, other: Outcome) -> float:
    """Return the largest difference of two models in any coordinate."""
    import numpy as np

    return max(
        float(np.abs(np.asarray(one.model[name], float) - np.asarray(other.model[name], float)).max())
        for name in one.model
    )


def compared(what: str, plain: Sequence[Outcome], secure: Sequence[Outcome], goal: str | None) -> list[Figure]:
    """Return the figures of one task and one width of the wire."""
    pairs = list(zip(plain, secure, strict=True))
    gaps = [100 * (masked.accuracy - clear.accuracy) for clear, masked in pairs]
    # The shares are means of floats: what is no row is nothing.
    by_seed = ", ".join(f"{gap:+.2f}" if abs(gap) > 0.005 else "0" for gap in gaps)
    name = f"{what}, {secure[0].bits} bits"
    losses = [abs(masked.loss - clear.loss) / clear.loss for clear, masked in pairs]
    return [
        Figure(
            f"{name}: largest difference of accuracy from plain, percentage points",
            round(max(map(abs, gaps)), 6),
            goal,
            f"of {len(gaps)} seeds; secure less plain by seed {by_seed}; one test row is "
            f"{100 / plain[0].rows:.2f} points",
        ),
        Figure(
            f"{name}: largest relative difference of the test loss from plain",
            max(losses),
            None,
            f"of {len(losses)} seeds; accuracy with plain means {harness.spread([100 * o.accuracy for o in plain])} %",
        ),
        Figure(
            f"{name}: largest distance of the final models in a coordinate",
            max(apart(clear, masked) for clear, masked in pairs),
            None,
            f"of {len(pairs)} seeds, after all rounds",
        ),
    ]


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    seeds = (1, 2) if args.quick else (1, 2, 3, 4, 5)
    short = " strategy.rounds=5" if args.quick else ""
    figures = []
    for task, chosen in TASKS.items():
        runs = {
            way: [outcome(f"{chosen} {way} seed={seed}{short}") for seed in seeds]
            for way in ("aggregation=plain", SECURE, NARROW)
            if way != NARROW or task == "digits"
        }
        plain = runs["aggregation=plain"]
        figures += compared(task, plain, runs[SECURE], GOAL)
        if NARROW in runs:
            figures += compared(f"{task}, rotated", plain, runs[NARROW], None)
    return harness.report(figures, args, "Accuracy under secure aggregation")


if __name__ == "__main__":
    sys.exit(main())
