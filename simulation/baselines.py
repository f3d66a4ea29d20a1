"""What did federating buy? The pooled model and each silo's own, beside the federated one, on the same test rows.

And what did privacy or masks cost? Beside a run with either, the same federation is trained in clear; see
:mod:`quire.simulation.plain`.

Only a simulator can ask: pooling needs all rows in one place. The models trained here share the architecture, the
first parameters, the learning rate, the batch size and the number of passes over the rows. Where a round is counted in
steps, a silo alone takes as many as in the federation, and pooled as many as all silos together. So each sees as many
rows as are seen for the federated model, which is how FLamby (arXiv 2210.04620) sets rounds against pooled epochs, too.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.data.silo import Rows, SiloData, concatenate
from quire.clients.training import Workbench
from quire.conf.schema import NoPrivacy, RecordDistributedPrivacy, Settings, SgdTraining
from quire.errors import DataError
from quire.privacy.randomness import stream
from quire.simulation.personal import Federated, with_fairness
from quire.simulation.plain import plain_overrides, train_plainly
from quire.simulation.silos import local_silos

Scores = dict[str, float]


def compare(
    settings: Settings, folder: Path, tick: Callable[[str], None] = lambda name: None, silos: Path | None = None
) -> dict[str, Any]:
    """Train the baselines, score everything, and write ``comparison.json``.

    With ``output.baselines=false`` only the federated model is scored.

    Parameters
    ----------
    settings : Settings
        Of the run.
    folder : pathlib.Path
        The run's folder, holding ``model.safetensors``.
    tick : callable
        Called with the name of each model before it is trained, for a progress display.
    silos : pathlib.Path, optional
        Of the silos' files, where they read their own rows.

    Returns
    -------
    dict
        What was written; see ``docs/run-folder.md``.

    Raises
    ------
    DataError
        If a silo has no rows to train on, or none to test on.
    """
    local = local_silos(settings, silos)
    data, names = local.data(settings), list(local.names)
    for name, silo in zip(names, data, strict=True):
        if not len(silo.train) or not len(silo.test):
            raise DataError(
                f"{name} has no row left to {'train' if not len(silo.train) else 'test'} on, so the model of "
                f"'{folder}', which is complete, cannot be compared with anything."
            )
    bench = Workbench(local.task(settings))
    first = bench.task.initial_arrays(stream(settings.seed, "model"))

    everyone = concatenate([silo.test for silo in data])
    tests = {**{name: silo.test for name, silo in zip(names, data, strict=True)}, "": everyone}

    def trained(rows: Rows, purpose: str, silos: int = 1) -> None:
        tick(purpose)
        bench.load(first)
        bench.train(rows, whole_course(settings, silos, len(rows)), stream(settings.seed, "baseline", purpose))

    def scores() -> dict[str, Scores]:
        return {name: bench.score(rows) for name, rows in tests.items()}

    final = Federated(settings, folder, names, bench)
    federated = final.scores(tests)
    tuned = final.tuned(data)
    if not settings.output.baselines:
        only = _federated_only(data, names, bench.task.classes, federated)
        return _written(folder, with_fairness(only, tuned))
    ways: dict[str, dict[str, Scores]] = {"federated": federated}
    beside: dict[str, dict[str, str]] = {}
    for way, overrides in plain_overrides(settings).items():
        tick("the same federation in clear")
        plainly = train_plainly(overrides, silos, private=not isinstance(settings.privacy, NoPrivacy))
        beside[way] = plainly.about()
        if plainly.model is not None:
            bench.load(plainly.model)
            ways[way] = scores()
    pooled_rows = concatenate([silo.train for silo in data])
    trained(pooled_rows, "pooled", len(data))
    ways["pooled"] = scores()
    ways["majority"] = {name: bench.task.guess(pooled_rows.y, rows.y) for name, rows in tests.items()}
    alone: dict[str, dict[str, Scores]] = {}
    for name, silo in zip(names, data, strict=True):
        trained(silo.train, name)
        alone[name] = {"own": bench.score(silo.test), "everyone": bench.score(everyone)}

    comparison: dict[str, Any] = {
        "rows": {"train": len(pooled_rows), "test": len(everyone)},
        "classes": bench.task.classes,
        "silos": {
            name: {"train": len(silo.train), "test": len(silo.test), "labels": _label_counts(silo.train.y)}
            for name, silo in zip(names, data, strict=True)
        },
        "everyone": {
            **{way: found[""] for way, found in ways.items()},
            "alone": {name: alone[name]["everyone"] for name in names},
        },
        "own": {
            name: {**{way: found[name] for way, found in ways.items()}, "alone": alone[name]["own"]} for name in names
        },
    }
    return _written(folder, with_fairness(comparison | ({"plain": beside} if beside else {}), tuned))


def whole_course(settings: Settings, silos: int, rows: int) -> SgdTraining:
    """Return as one plan what some silos do in all rounds of a run, each taking part in its share of them.

    Under ``record_distributed`` that is one step a round, on the sampled share of the rows.

    Parameters
    ----------
    settings : Settings
        Of the run.
    silos : int
        How many silos' rows are trained on: more silos are more steps, but no more passes.
    rows : int
        How many those are.
    """
    plan, rounds = settings.training, settings.strategy.rounds * settings.strategy.fraction
    if isinstance(settings.privacy, RecordDistributedPrivacy):
        # Rounded up, that no epoch ends with a batch of a few rows.
        batch = max(1, math.ceil(settings.privacy.sampling_rate * rows))
        return dataclasses.replace(plan, steps=settings.strategy.rounds, batch_size=batch)
    if plan.steps:
        return dataclasses.replace(plan, steps=max(1, round(rounds * plan.steps * silos)))
    return dataclasses.replace(plan, epochs=max(1, round(rounds * plan.epochs)))


def _federated_only(
    data: Sequence[SiloData], names: Sequence[str], classes: int, federated: Mapping[str, Scores]
) -> dict[str, Any]:
    """Return what is known without any other model: the federated one on the test rows."""
    return {
        "rows": {"train": sum(len(silo.train) for silo in data), "test": sum(len(silo.test) for silo in data)},
        "classes": classes,
        "silos": {
            name: {"train": len(silo.train), "test": len(silo.test), "labels": _label_counts(silo.train.y)}
            for name, silo in zip(names, data, strict=True)
        },
        "everyone": {"federated": federated[""]},
        "own": {name: {"federated": federated[name]} for name in names},
    }


def _written(folder: Path, comparison: dict[str, Any]) -> dict[str, Any]:
    (folder / "comparison.json").write_text(json.dumps(comparison, indent=1), encoding="utf-8")
    return comparison


def _label_counts(y: np.ndarray) -> dict[str, int]:
    if y.dtype.kind == "f":  # a number is learned
        return {}
    labels, counts = np.unique(y, return_counts=True)
    return {str(label): int(count) for label, count in zip(labels.tolist(), counts.tolist(), strict=True)}
