"""What federating costs in accuracy: FedAvg and FedProx against the pooled model on the same test rows.

``breast_cancer``, five hospitals, with the defaults of ``task=breast_cancer`` (30 rounds, lr 1.0, batch 16, one epoch,
``strategy.mu`` 0.1): rows dealt out IID, and by Dirichlet(0.3). Each seed draws another partition, split and
first model. The pooled model is trained on all silos' training rows in one place, with the same learning rate,
batch and passes; all models are scored on the union of the silos' test rows. A gap is the pooled model's score minus
the federated one's: positive where federating costs something. The pooled model is the last step of plain SGD, which
may have gone astray, so a gap is shown also to a converged model: scikit-learn's LogisticRegression on the pooled rows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
from harness import Figure

PARTITIONS = {"IID": "partition=iid", "Dirichlet(0.3)": "partition=dirichlet partition.alpha=0.3"}
GOALS = {"IID": "<= 1", "Dirichlet(0.3)": "<= 3"}
MODELS = {"logistic": "task.model=logistic", "mlp": "task.model=mlp"}
STRATEGIES = {"FedAvg": "strategy=fedavg", "FedProx": "strategy=fedprox"}
METRICS = ("accuracy", "balanced_accuracy", "auc")


def comparison(overrides: str, seed: int) -> dict[str, Any]:
    """Run a federation and train its baselines, as ``quire run`` does; return the scores on all test rows."""
    from sklearn.linear_model import LogisticRegression

    from quire.clients.data.silo import concatenate
    from quire.clients.data.simulated import federation
    from quire.conf.compose import compose
    from quire.simulation.baselines import compare
    from quire.simulation.inline import run_inline

    settings = compose(f"task=breast_cancer {overrides} seed={seed}")
    with tempfile.TemporaryDirectory() as folder:
        run = run_inline(settings, Path(folder) / "run")
        scores = dict(compare(settings, run.folder)["everyone"])
    silos = federation(settings)
    train, test = concatenate([silo.train for silo in silos]), concatenate([silo.test for silo in silos])
    model = LogisticRegression(C=100.0, max_iter=10_000).fit(train.x, train.y)
    scores["converged"] = {"accuracy": float(model.score(test.x, test.y))}
    return scores


def mean_alone(everyone: dict[str, Any], metric: str) -> float:
    """Average over the silos' own models, those left out that have no such score."""
    return statistics.fmean(scores[metric] for scores in everyone["alone"].values() if metric in scores)


def gap_figure(what: str, gaps: Sequence[float], goal: str | None = None) -> Figure:
    """Return the mean of a gap over the seeds."""
    by_seed = ", ".join(f"{round(gap, 1) + 0.0:.1f}" for gap in gaps)
    return Figure(
        f"{what}, percentage points",
        round(statistics.fmean(gaps), 4) + 0.0,
        goal,
        f"mean over seeds; by seed {by_seed}",
    )


def setting(partition: str, model: str, strategy: str, seeds: Sequence[int]) -> list[Figure]:
    """Measure one partition, model and strategy over all seeds."""
    overrides = f"{PARTITIONS[partition]} {MODELS[model]} {STRATEGIES[strategy]}"
    results = [comparison(overrides, seed) for seed in seeds]
    where = f"{partition}, {model}"
    figures = []
    for metric in METRICS:
        gaps = [100 * (result["pooled"][metric] - result["federated"][metric]) for result in results]
        goal = GOALS[partition] if (metric, strategy) == ("accuracy", "FedAvg") else None
        figures.append(gap_figure(f"{where}: {metric} of pooled minus {strategy}", gaps, goal))
    gaps = [100 * (result["converged"]["accuracy"] - result["federated"]["accuracy"]) for result in results]
    figures.append(gap_figure(f"{where}: accuracy of scikit-learn's pooled LogisticRegression minus {strategy}", gaps))
    for metric in METRICS:
        contenders = {
            strategy: [result["federated"][metric] for result in results],
            "pooled": [result["pooled"][metric] for result in results],
            "silos alone, mean": [mean_alone(result, metric) for result in results],
            "majority": [result["majority"][metric] for result in results if metric in result["majority"]],
        }
        for name, values in contenders.items():
            if values and (strategy == "FedAvg" or name == strategy):  # the others are the same for both strategies
                note = f"mean over seeds, {harness.spread(values)}"
                figures.append(Figure(f"{where}: {metric} of {name}", statistics.fmean(values), None, note))
    return figures


def main() -> int:
    """Measure, print, write."""
    args = harness.arguments(__doc__)
    seeds = (1, 2) if args.quick else (1, 2, 3, 4, 5)
    figures = [
        figure
        for partition in PARTITIONS
        for model in MODELS
        for strategy in STRATEGIES
        for figure in setting(partition, model, strategy, seeds)
    ]
    goals_first = sorted(figures, key=lambda item: item.goal is None)
    return harness.report(goals_first, args, "breast_cancer: what federating costs in accuracy")


if __name__ == "__main__":
    sys.exit(main())
