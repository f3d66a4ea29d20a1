"""Bytes that silos send, and accuracy, with compressed updates beside whole ones.

``digits``: 10 silos by Dirichlet(0.5), an MLP of 64-32-10, 30 rounds; three seeds, means. ``mnist``: ``recipes/mnist``
over 10 silos by Dirichlet(0.5), an MLP of 784-128-10, 10 rounds of one epoch, learning rate 0.05, momentum 0.9, batch
32; one seed. The settings were set beforehand and not tuned. Bytes are those of the arrays that silos send, headers
included; what the server sends down is whole in all of them. The raw images are never part of the project: where they
are absent, the table says so.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import harness
import hospitals
from harness import Figure

WAYS = ("eight_bit", "top_k")
COMMON = "partition.silos=10 strategy.fraction_evaluate=0 output.baselines=false output.report=false"
DIGITS = "task=digits task.model=mlp task.hidden=[32] partition.alpha=0.5"
MNIST = "task=images task.model=mlp task.hidden=[128] training.lr=0.05 training.momentum=0.9 training.batch_size=32"
SAVED, LOST = ">= 90", "<= 1"


def one(overrides: str, folder: Path, silos: Path | None = None) -> tuple[float, int]:
    """Run a federation; return its accuracy on all test rows in percent, and the bytes that silos sent."""
    from quire.conf.compose import compose
    from quire.simulation.baselines import compare
    from quire.simulation.inline import run_inline

    settings = compose(f"{overrides} {COMMON}")
    run_inline(settings, folder, silos=silos)
    accuracy = compare(settings, folder, silos=silos)["everyone"]["federated"]["accuracy"]
    events = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return 100 * accuracy, sum(event["bytes_up"] for event in events if event["event"] == "round")


def compared(name: str, overrides: str, seeds: list[int], scratch: Path, silos: Path | None = None) -> list[Figure]:
    """Run with whole and with compressed updates."""
    found: dict[str, list[tuple[float, int]]] = {}
    for way in ("none", *WAYS):
        found[way] = [
            one(f"{overrides} compression={way} seed={seed}", scratch / f"{name}-{way}-{seed}", silos) for seed in seeds
        ]
    figures = []
    whole = statistics.mean(accuracy for accuracy, _ in found["none"])
    for way in WAYS:
        lost = [before - after for (before, _), (after, _) in zip(found["none"], found[way], strict=True)]
        saved = 100 - 100 * sum(size for _, size in found[way]) / sum(size for _, size in found["none"])
        about = f"seeds {', '.join(map(str, seeds))}; {sum(size for _, size in found[way]) / 1e6:.3g} MB"
        each = ", ".join(f"{value:+.2f}" for value in lost)
        goals = (SAVED, LOST) if way == "top_k" else (None, LOST)
        figures += [
            Figure(f"{name}: bytes saved by {way}, percent", saved, goals[0], about),
            Figure(
                f"{name}: accuracy lost by {way}, points",
                statistics.mean(lost),
                goals[1],
                f"{whole:.2f} % whole; by seed {each}",
            ),
        ]
    return figures


def measure(quick: bool) -> list[Figure]:
    """Compare on both data sets; with ``quick`` on fewer rounds, rows and seeds."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rounds = "strategy.rounds=5" if quick else "strategy.rounds=30"
        figures = compared("digits", f"{DIGITS} {rounds}", [1] if quick else [1, 2, 3], scratch)
        why = hospitals.absent("mnist")
        if why:
            about = [("bytes saved by top_k, percent", SAVED), ("accuracy lost by top_k, points", LOST)]
            return figures + [Figure(f"mnist: {what}", None, goal, why) for what, goal in about]
        rows = {"rows": 1000} if quick else {}
        offices = hospitals.lay_out("mnist", scratch / "offices", silos=10, alpha=0.5, seed=1, **rows)
        rounds = "strategy.rounds=2" if quick else "strategy.rounds=10"
        return figures + compared("mnist", f"{MNIST} {rounds}", [1], scratch, offices)


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    return harness.report(measure(args.quick), args, "Compressed updates beside whole ones")


if __name__ == "__main__":
    sys.exit(main())
