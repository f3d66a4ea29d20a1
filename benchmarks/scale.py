"""A thousand silos on one machine: wall time, peak memory, and the accuracy of FLUTE's CPU benchmark.

**Rounds.** ``task=synthetic`` with 1,000 silos and 100 in each round, one epoch of an MLP over about 60 rows each: wall
time and peak resident memory of the whole process for 20 and for 40 rounds, report page included.

**FLUTE's row** (Hipolito Garcia et al. 2022, arXiv 2203.13789, the comparison with Flower on CPU): logistic regression
on MNIST, 1,000 silos, 10 per round, batch 10, SGD at 0.03, 1 epoch, 100 rounds, scored on the test images every 20
rounds; published 3:20 for FLUTE and 30:14 for Flower 1.0, on their machine. Here each silo reads its 60 training and 10
test images from files of its own, when it is first asked. The figures of other machines are no contenders: the work is
the same, the machine is not. The raw images are never part of the project: where they are absent, the table says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import hospitals
from harness import Figure

THOUSAND = (
    "task=synthetic partition.silos=1000 data.rows=80000 strategy.fraction=0.1 strategy.fraction_evaluate=0 "
    "output.baselines=false output.progress=none"
)
FLUTE = (
    "task=images task.model=logistic partition.silos=1000 strategy.fraction=0.01 "
    "strategy.evaluate_every=20 training.batch_size=10 training.lr=0.03 training.momentum=0 training.epochs=1 "
    "output.baselines=false output.progress=none output.report=false"
)


def child(overrides: str, folder: Path, silos: str) -> int:
    """Do one run in this process, and print what it took."""
    import resource

    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline
    from quire.simulation.report import write_report

    settings = compose(overrides)
    started = time.perf_counter()
    run_inline(settings, folder, silos=Path(silos) if silos else None)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    page = write_report(folder).stat().st_size / 1e6 if settings.output.report else 0.0
    print(json.dumps({"seconds": seconds, "peak": peak, "page": page}))
    return 0


def run(overrides: str, folder: Path, silos: Path | None = None) -> dict[str, Any]:
    """Do one run in a process of its own."""
    command = [sys.executable, __file__, "--child", overrides, str(folder), str(silos or "")]
    done = subprocess.run(command, env=harness.child_environment(), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rounds(short: int) -> list[Figure]:
    """Measure a thousand silos for some rounds, and for twice as many."""
    with tempfile.TemporaryDirectory() as scratch:
        one, two = (
            run(f"{THOUSAND} strategy.rounds={number}", Path(scratch) / f"run-{number}")
            for number in (short, 2 * short)
        )
    title = "1,000 silos, 100 per round"
    return [
        Figure(f"{title}, {short} rounds: wall time, seconds", one["seconds"], None, "one process, one thread"),
        Figure(f"{title}, {short} rounds: peak memory, MiB", one["peak"], None, "resident, of the whole process"),
        Figure(
            f"{title}: peak memory of {2 * short} rounds over that of {short}",
            two["peak"] / one["peak"],
            "<= 1.05",
            f"{two['peak']:.0f} MiB",
        ),
        Figure(f"{title}: size of the report page of {2 * short} rounds, MB", two["page"], None, "written and whole"),
    ]


def flute(number: int) -> list[Figure]:
    """Do FLUTE's benchmark."""
    title = "FLUTE's CPU row"
    why = hospitals.absent("mnist")
    if why:
        return [Figure(f"{title}: seconds", None, None, why)]
    with tempfile.TemporaryDirectory() as scratch:
        offices = hospitals.lay_out("mnist", Path(scratch) / "offices", silos=1000, alpha=0.0, seed=1)
        folder = Path(scratch) / "run"
        done = run(f"{FLUTE} strategy.rounds={number}", folder, offices)
        events = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        scored = [event["evaluate"] for event in events if event["event"] == "round" and event["evaluate"]]
    note = f"{number} rounds; published, on another machine: FLUTE 200 s, Flower 1.0 1,814 s"
    return [
        Figure(f"{title}: seconds", done["seconds"], None, note),
        Figure(
            f"{title}: accuracy after the last round, percent",
            100 * scored[-1]["accuracy"],
            None,
            "on all 10,000 test images; on the way " + ", ".join(f"{100 * one['accuracy']:.1f}" for one in scored[:-1]),
        ),
        Figure(f"{title}: peak memory, MiB", done["peak"], None, "silos' images are read when a silo is first asked"),
    ]


def main() -> int:
    """Measure, print, write."""
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    args = harness.arguments(__doc__)
    figures = [*rounds(1), *flute(1)] if args.quick else [*rounds(20), *flute(100)]
    return harness.report(figures, args, "A thousand silos on one machine")


if __name__ == "__main__":
    sys.exit(main())
