"""Which records was this federation trained on? Asked by a user of the model, by another silo, and by the server.

Every run is one target, and the others its shadows: with another seed the same records are shared out and split anew,
so that each record is in training in some runs and held out in others (as in arXiv 2112.03570, section 6). An attacker
has the records, the settings and the code; what it is asked is which records were in training in the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows, concatenate
from quire.clients.training import Workbench
from quire.privacy.attacks import roc
from quire.privacy.attacks.membership import confidence, offline, online
from quire.privacy.attacks.roc import Flags, Rate, Scores
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.attacks.tap import Seen
from quire.simulation.attacks.variants import Variant, facts, observed
from quire.simulation.predicted import predicted
from quire.simulation.silos import local_silos

#: Settings under which models learn their rows by heart: few rows, many passes.
DEFAULTS = (
    "task=digits task.model=mlp data.test_fraction=0.9 partition=iid partition.silos=4 strategy.rounds=10 "
    "training.epochs=10 training.lr=0.5"
)
FEWEST, MOST = 4, 128
#: Observers, from the one that sees least.
OBSERVERS = ("user", "silo", "server")
ATTACKS = ("loss threshold", "LiRA online", "LiRA offline")


@dataclass(frozen=True, eq=False)
class Finding:
    """What one attack by one observer came to, over all targets of a variant.

    Attributes
    ----------
    observer, attack : str
    auc, at_1_percent, at_01_percent, accuracy : Rate
        Area under the ROC curve; true positive rates at 1 % and 0.1 % false positives; balanced accuracy at the
        threshold that was best on the shadows.
    fpr, tpr : numpy.ndarray of float64
        The ROC curve.
    """

    observer: str
    attack: str
    auc: Rate
    at_1_percent: Rate
    at_01_percent: Rate
    accuracy: Rate
    fpr: Scores
    tpr: Scores


@dataclass(frozen=True, eq=False)
class Attacked:
    """One variant under attack.

    Attributes
    ----------
    variant : Variant
    members, others : int
        Records asked about, over all targets.
    train_accuracy, test_accuracy : float
        Of the models, on rows that they were and were not trained on.
    spent : dict
        By the card of the first run.
    findings : list of Finding
    """

    variant: Variant
    members: int
    others: int
    train_accuracy: float
    test_accuracy: float
    spent: dict[str, object]
    findings: list[Finding]

    def best(self, observer: str | None = None) -> Finding:
        """Return the attack with the largest AUC, of one observer or of all."""
        return max(
            (one for one in self.findings if observer in (None, one.observer)), key=lambda finding: finding.auc.value
        )


def attack(
    chosen: Sequence[Variant], runs: int, seed: int, tell: Callable[[str], None] = lambda words: None
) -> list[Attacked]:
    """Attack each variant.

    Parameters
    ----------
    chosen : sequence of Variant
    runs : int
        Of each variant; each is a target once, with the others as its shadows. 4 to 128.
    seed : int
        Of the first run; the others follow.
    tell : callable
        Is told in words what is done next.

    Raises
    ------
    AttackInput
        If there are too few runs, or too many.
    """
    check(runs)
    return [judged(variant, [look(seen) for seen in observed(variant, runs, seed, tell)]) for variant in chosen]


def check(runs: int) -> None:
    """Refuse a number of runs with which nothing could be said.

    Raises
    ------
    AttackInput
    """
    if not FEWEST <= runs <= MOST:
        raise AttackInput(f"Membership takes {FEWEST} to {MOST} runs of each kind, not {runs}: change --runs.")


@dataclass(frozen=True, eq=False)
class Look:
    """The statistics of one run.

    Attributes
    ----------
    records : dict of bytes to int
        Place of each record in the arrays, by what is in it.
    trained : numpy.ndarray of bool, shape (n,)
    statistics : dict of str to numpy.ndarray of float64, shape (n,)
        By observer.
    right : numpy.ndarray of bool, shape (n,)
        Whether the final model classifies the record rightly.
    spent : dict
    """

    records: Mapping[bytes, int]
    trained: Flags
    statistics: Mapping[str, Scores]
    right: Flags
    spent: dict[str, object]


def look(seen: Seen) -> Look:
    """Return each observer's statistic of each record: its logit-scaled confidence, over all models it can build.

    A user has the final model; another silo the global model of every round; the server also each silo's own model,
    global model plus update, where updates come in clear, and under masks the model plus the mean of them all.
    """
    local = local_silos(seen.settings)
    bench = Workbench(local.task(seen.settings))
    kept: list[Rows] = []
    trained: list[Flags] = []
    by: dict[str, list[Scores]] = {name: [] for name in OBSERVERS}
    for name, silo in zip(local.names, local.data(seen.settings), strict=True):
        rows = concatenate([silo.train, silo.test])
        kept.append(rows)
        trained.append(np.arange(len(rows)) < len(silo.train))
        by["user"].append(_confidence(bench, seen.models[-1:], rows))
        by["silo"].append(_confidence(bench, seen.models[1:], rows))
        by["server"].append(_confidence(bench, built(seen, name), rows))
    everyone = concatenate(kept)
    keys = [x.tobytes() + y.tobytes() for x, y in zip(everyone.x, everyone.y, strict=True)]
    statistics = {name: np.concatenate(parts) for name, parts in by.items()}
    bench.load(seen.models[-1])
    right = predicted(bench, everyone) == everyone.y
    return Look({key: place for place, key in enumerate(keys)}, np.concatenate(trained), statistics, right, facts(seen))


def built(seen: Seen, silo: str) -> list[Arrays]:
    """Return the models that a server can build which bear on a silo: its own where it is seen, else the mean's."""
    if seen.sums_only():
        steps: list[Arrays | None] = list(seen.means)
    else:
        steps = [updates.get(silo) for updates in seen.updates]
    return [
        {name: (part + step[name]).astype(part.dtype) for name, part in model.items()}
        for model, step in zip(seen.models, steps, strict=False)
        if step is not None
    ]


def judged(variant: Variant, looks: Sequence[Look]) -> Attacked:
    """Hold every attack of every observer against every run, the others being its shadows."""
    order = sorted(set.intersection(*(set(one.records) for one in looks)))
    places = [np.array([one.records[key] for key in order]) for one in looks]
    trained = np.stack([one.trained[place] for one, place in zip(looks, places, strict=True)])
    right = np.stack([one.right[place] for one, place in zip(looks, places, strict=True)])
    findings = []
    for observer in OBSERVERS:
        values = np.stack([one.statistics[observer][place] for one, place in zip(looks, places, strict=True)])
        for name, scores in _attacks(values, trained).items():
            findings.append(_finding(observer, name, scores, trained))
    return Attacked(
        variant,
        int(trained.sum()),
        int((~trained).sum()),
        float(right[trained].mean()),
        float(right[~trained].mean()),
        looks[0].spent,
        findings,
    )


def _attacks(values: NDArray[np.float64], trained: Flags) -> dict[str, NDArray[np.float64]]:
    """Return the scores of each attack, shape (runs, n)."""
    found: dict[str, list[Scores]] = {"LiRA online": [], "LiRA offline": []}
    for target in range(len(values)):
        shadows, inside = np.delete(values, target, axis=0), np.delete(trained, target, axis=0)
        found["LiRA online"].append(online(values[target], shadows, inside))
        found["LiRA offline"].append(offline(values[target], shadows, inside))
    return {"loss threshold": values, **{name: np.stack(scores) for name, scores in found.items()}}


def _finding(observer: str, attack: str, scores: NDArray[np.float64], trained: Flags) -> Finding:
    calls = np.zeros_like(trained)
    for target in range(len(scores)):
        shadows, inside = np.delete(scores, target, axis=0), np.delete(trained, target, axis=0)
        calls[target] = scores[target] > roc.best_threshold(shadows.ravel(), inside.ravel())
    flat, members = scores.ravel(), trained.ravel()
    fpr, tpr = roc.curve(flat, members)
    return Finding(
        observer,
        attack,
        roc.auc(flat, members),
        roc.true_positives_at(flat, members, 0.01),
        roc.true_positives_at(flat, members, 0.001),
        roc.balanced_accuracy(calls.ravel(), members),
        fpr,
        tpr,
    )


def _confidence(bench: Workbench, models: Sequence[Arrays], rows: Rows) -> Scores:
    total = np.zeros(len(rows))
    for model in models:
        bench.load(model)
        total += confidence(bench.logits(rows), rows.y)
    return total / max(len(models), 1)
