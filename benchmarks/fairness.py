"""Who is served worst, and who adds what: digits at six sites with labels shared out by Dirichlet(0.2).

Accuracy of each site on its own test rows after the last round, by FedAvg, q-FedAvg, FedAvg with local last layers
(FedPer), FedAvg with local normalisation layers (FedBN), and by copies of the FedAvg model tuned to each site's rows.
Each seed draws another partition, split and first model. Sites differ in labels only: FedBN is made for features that
differ. Then five sites with rows dealt out at random, read from CSV files, one of them with the labels of its training
rows shuffled: whether it is the one whose Shapley value is smallest.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
from harness import Figure

SITES, BAD = 5, 3
BASE = (
    "task=digits partition=dirichlet partition.alpha=0.2 partition.silos=6 training.batch_size=32 "
    "strategy.evaluate_every=1000 training.tuning_epochs=2"
)
MLP = f"{BASE} task.model=mlp task.hidden=[32] strategy.rounds=20 training.lr=0.2 training.epochs=2"
CNN = f"{BASE} task.model=cnn task.hidden=[] strategy.rounds=8 training.lr=0.1 training.epochs=1"
SLOWLY = "mlp, FedAvg, to be tuned by a fifth of the step"
WAYS = {
    "mlp, FedAvg": MLP,
    SLOWLY: f"{MLP} training.tuning_lr=0.04",
    "mlp, q-FedAvg (q 1, L 1/lr)": f"{MLP} strategy=qfedavg strategy.q=1",
    "mlp, q-FedAvg (q 1, L 0.1)": f"{MLP} strategy=qfedavg strategy.q=1 strategy.lipschitz=0.1",
    "mlp, last layer local": f"{MLP} training.local_layers=[head]",
    "cnn, FedAvg": CNN,
    "cnn, normalisation local": f"{CNN} training.local_layers=[norm]",
}
TUNED = {
    "mlp, FedAvg": "mlp, FedAvg tuned",
    SLOWLY: "mlp, FedAvg tuned by a fifth of the step",
    "cnn, FedAvg": "cnn, FedAvg tuned",
}
GOALS = {"mlp, q-FedAvg (q 1, L 0.1)": ">= 0", "mlp, last layer local": ">= 0", "mlp, FedAvg tuned": ">= 0"}
SMALL = (
    "task=tabular task.silo_label=site data.preprocessing=public strategy.rounds=5 training.lr=0.5 "
    f"training.batch_size=16 partition.silos={SITES}"
)
SUMS = "aggregation=secure aggregation.simulate=exact_sum aggregation.max_rows=1000"


def scored(overrides: str) -> dict[str, Any]:
    """Run a federation and return how evenly its last model serves the silos."""
    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline

    with tempfile.TemporaryDirectory() as folder:
        run_inline(compose(overrides), Path(folder) / "run")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return dict([event for event in events if event["event"] == "round"][-1]["fairness"])


def evenness(seeds: Sequence[int]) -> list[Figure]:
    """Compare the ways: the worst site, the spread, the mean over sites."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        for way, overrides in WAYS.items():
            scores = scored(f"{overrides} seed={seed}")
            if way != SLOWLY:  # whose model is that of FedAvg
                found.setdefault(way, []).append(scores["accuracy"])
            if way in TUNED:
                found.setdefault(TUNED[way], []).append(scores["tuned_accuracy"])
    figures = []
    for way, scores in found.items():
        base = found[way.partition(",")[0] + ", FedAvg"]
        worst, mean, apart = (100 * statistics.fmean(one[key] for one in scores) for key in ("worst", "mean", "std"))
        gains = [100 * (one["worst"] - other["worst"]) for one, other in zip(scores, base, strict=True)]
        note = f"mean over sites {mean:.1f} %, standard deviation {apart:.1f} points; {len(seeds)} seeds"
        figures.append(Figure(f"{way}: worst site, accuracy in %", worst, None, note))
        if scores is not base:
            said = "by seed " + ", ".join(f"{gain:+.1f}" for gain in gains)
            name = f"{way}: what its worst site gains over FedAvg's, points"
            figures.append(Figure(name, statistics.fmean(gains), GOALS.get(way), said))
    return figures


def written(folder: Path, seed: int) -> Path:
    """Write five sites with digits; the labels of one site's training rows are shuffled."""
    import numpy as np
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    names = [f"p{place}" for place in range(x.shape[1])]
    columns = "\n".join(f"  {name}: {{low: 0, high: 16}}" for name in names)
    classes = ", ".join(f'"d{label}"' for label in range(10))
    folder.mkdir()
    (folder / "schema.yaml").write_text(
        f"columns:\n{columns}\ntarget: {{name: digit, kind: classification, classes: [{classes}]}}\n", encoding="utf-8"
    )
    for site, places in enumerate(np.array_split(rng.permutation(len(y)), SITES), start=1):
        cut = len(places) // 5
        for kind, some in (("test", places[:cut]), ("train", places[cut:])):
            labels = y[some] if (site, kind) != (BAD, "train") else rng.permutation(y[some])
            lines = [
                ",".join([*(f"{value:g}" for value in row), f"d{label}"])
                for row, label in zip(x[some], labels, strict=True)
            ]
            (folder / f"{kind}-{site}.csv").write_text("\n".join([",".join([*names, "digit"]), *lines]) + "\n")
        (folder / f"site-{site}.yaml").write_text(
            f"name: site-{site}\ndata: {{connector: csv, path: train-{site}.csv}}\n"
            f"test: {{connector: csv, path: test-{site}.csv}}\n",
            encoding="utf-8",
        )
    return folder


def worth(seeds: Sequence[int]) -> list[Figure]:
    """Say how often the site with shuffled labels is found, from coalitions of two and more and of four and more."""
    from quire.simulation.contribution import contribution

    figures = []
    for name, overrides in (("two and more", SMALL), ("four and more, as masks would have it", f"{SMALL} {SUMS}")):
        hits, gaps, runs = [], [], 0
        for seed in seeds:
            with tempfile.TemporaryDirectory() as place:
                silos = written(Path(place) / "silos", seed)
                found = contribution(f"{overrides} seed={seed}", cycles=2, silos=silos)
            values = dict(zip(found.names, found.shapley, strict=True))
            bad = values.pop(f"site-{BAD}")
            hits.append(bad < min(values.values()))
            gaps.append(100 * (min(values.values()) - bad))
            runs += found.runs
        figures.append(
            Figure(
                f"coalitions of {name}: share of seeds in which the site with shuffled labels has the smallest value",
                statistics.fmean(hits),
                ">= 1",
                f"below the next one by {harness.spread(gaps)} points; {runs / len(seeds):.0f} federations a seed, "
                f"two cycles of orders, {len(seeds)} seeds",
            )
        )
    return figures


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    seeds = [1] if args.quick else [1, 2, 3, 4, 5]
    found = evenness(seeds) + worth(seeds[:3])
    return harness.report(found, args, "Fairness and worth: digits at unlike sites, and one with shuffled labels")


if __name__ == "__main__":
    sys.exit(main())
