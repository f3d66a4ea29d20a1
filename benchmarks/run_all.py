"""Run every benchmark. The full run keeps its figures in ``runs/bench/`` and rewrites ``docs/benchmarks.md``.

``--quick`` runs the short form of each and leaves the page as it is: its figures are too rough to keep.
``--json FILE`` writes the figures of all benchmarks in one list. With names (``run_all.py mnist``) only those are run;
the sections of the others stay as they are.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import harness
import render

HERE = Path(__file__).resolve().parent
BENCHMARKS = [
    "accounting",
    "accuracy",
    "aggregation",
    "attacks",
    "audit",
    "batched",
    "compression",
    "consent",
    "data_policy",
    "data_sets",
    "demo_settings",
    "deployment",
    "distributed_dp",
    "distributed_hospitals",
    "dp_training",
    "enclave",
    "exact_sum",
    "fairness",
    "gate",
    "groups",
    "log",
    "log_rounds",
    "mnist",
    "noise",
    "poisoning",
    "privacy",
    "privacy_cost",
    "privacy_mnist",
    "robust",
    "scale",
    "secagg",
    "secagg_accuracy",
    "silo",
    "simulation",
    "watermark",
]


def run(name: str, folder: Path, quick: bool) -> int:
    """Run one benchmark in a process of its own and keep its figures and what is to be said about them."""
    command = ["python", f"benchmarks/{name}.py", *(["--quick"] if quick else [])]
    started = time.perf_counter()
    status = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py"), *command[2:], "--json", str(folder / f"{name}.json")],
        env=harness.child_environment(),
        check=False,
    ).returncode
    about = {
        "command": " ".join(command),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": time.perf_counter() - started,
        "machine": harness.machine(),
        "description": ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))),
    }
    (folder / f"{name}.about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return status


def main() -> int:
    """Run all, and say which could not be run or did not meet a goal."""
    parser = harness.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"run only these: {', '.join(BENCHMARKS)}")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}: choose from {', '.join(BENCHMARKS)}")
    chosen = [name for name in BENCHMARKS if name in args.names or not args.names]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.quick else render.RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        failed = [name for name in chosen if run(name, folder, args.quick)]
        if failed:
            print(f"These benchmarks could not be run: {', '.join(failed)}.", file=sys.stderr)
            return 1
        figures = [item for name in chosen for item in json.loads((folder / f"{name}.json").read_text())]
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not args.quick:
        print(f"Written: {render.write_page(BENCHMARKS).relative_to(harness.ROOT)}")
    missed = [item["figure"] for item in figures if item["met"] is False]
    print(f"Goals met: {sum(item['met'] is True for item in figures)}, not met: {len(missed)}")
    for figure in missed:
        print(f"  not met: {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
