"""Epsilon by our accounting, by privacy loss distributions and by Opacus' accountants, over one grid of runs.

Ours, the figure of record, is Renyi differential privacy. It must never be below the privacy loss distribution's
(that one is nearly exact) and should be at most 1.2 times as large, for epsilon 0.5 to 10 and at least 100 steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from harness import Figure, arguments, report

DELTA = 1e-5
GRID = {
    "epsilon": ((0.5, 1.0, 2.0, 4.0, 8.0, 10.0), (0.5, 2.0, 10.0)),
    "rate": ((0.001, 0.01, 0.05, 0.2, 0.5), (0.01, 0.2)),
    "steps": ((100, 1000, 10_000), (100, 1000)),
}


def table(quick: bool) -> list[dict[str, float]]:
    """Calibrate to every target of the grid, and account what came out by everybody."""
    from opacus.accountants import PRVAccountant

    from quire.privacy.dp.accounting import tight_epsilon
    from quire.privacy.dp.calibration import calibrate
    from quire.privacy.dp.events import SampledGaussian
    from quire.privacy.dp.spending import Spending

    calibrate(1.0, DELTA, 1, 1.0)  # imports what is imported on first use
    rows = []
    for steps in GRID["steps"][quick]:
        for rate in GRID["rate"][quick]:
            for target in GRID["epsilon"][quick]:
                began = time.process_time()
                noise = calibrate(target, DELTA, int(steps), rate)
                seconds = time.process_time() - began
                event = SampledGaussian(noise, rate, int(steps))
                prv = PRVAccountant()
                prv.history = [(noise, rate, int(steps))]
                rows.append(
                    {
                        "target": target,
                        "rate": rate,
                        "steps": steps,
                        "noise": noise,
                        "ours": Spending.of(event).epsilon(DELTA),
                        "pld": tight_epsilon([event], DELTA),
                        "prv": float(prv.get_epsilon(DELTA)),
                        "less noise": Spending.of(SampledGaussian(0.99 * noise, rate, int(steps))).epsilon(DELTA),
                        "seconds": seconds,
                    }
                )
    return rows


def figures(rows: Sequence[dict[str, float]]) -> list[Figure]:
    """Sum the grid up: the worst ratios, tightness of calibration, its time; then one figure for each run."""
    ratios = [row["ours"] / row["pld"] for row in rows]
    often = [row["ours"] / row["pld"] for row in rows if row["rate"] * row["steps"] >= 5]
    dense = [row["ours"] / row["pld"] for row in rows if row["rate"] >= 0.05]
    seconds = sorted(row["seconds"] for row in rows)
    where = f"{len(rows)} runs, delta {DELTA:g}"
    summary = [
        Figure(
            "accounting: ours / PLD, largest",
            max(ratios),
            "<= 1.2",
            f"{where}; RDP is loose at low rates, most where a record is drawn about once in the whole run or less",
        ),
        Figure("accounting: the same where a record is drawn 5 times or more", max(often), "<= 1.2", where),
        Figure("accounting: the same at rates of 0.05 and more", max(dense), None, f"{where}; not a goal"),
        Figure("accounting: ours / PLD, smallest", min(ratios), ">= 1.0", where),
        Figure(
            "accounting: Opacus PRV - PLD, largest difference",
            max(abs(row["prv"] - row["pld"]) for row in rows),
            "<= 0.05",
            "PRV allows itself an error of 0.01 in epsilon",
        ),
        Figure(
            "calibration: epsilon / target, largest", max(row["ours"] / row["target"] for row in rows), "<= 1.0", where
        ),
        Figure(
            "calibration: epsilon / target with 0.99 of the noise, smallest",
            min(row["less noise"] / row["target"] for row in rows),
            "> 1.0",
            where,
        ),
        Figure(
            "calibration: seconds of processor time, median",
            seconds[len(seconds) // 2],
            "<= 0.5",
            f"slowest {seconds[-1]:.2f}",
        ),
    ]
    single = [
        Figure(
            f"epsilon {row['target']:g}, rate {row['rate']:g}, {row['steps']:g} steps: ours / PLD",
            row["ours"] / row["pld"],
            None,
            f"noise {row['noise']:g}: ours {row['ours']:.4g}, PLD {row['pld']:.4g}, Opacus PRV {row['prv']:.4g}",
        )
        for row in rows
    ]
    return [*summary, *single]


def main() -> int:
    """Run the grid."""
    args = arguments(__doc__)
    return report(figures(table(args.quick)), args, "Accounting")


if __name__ == "__main__":
    sys.exit(main())
