"""The finished model as each silo uses it: with its own layers, and tuned to its rows; and how even that is.

Only a simulator can ask: a silo's own layers and its tuned model never leave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.contract import MEMORY
from quire.clients.data.silo import Rows, SiloData
from quire.clients.tasks.local_layers import joined
from quire.clients.training import Workbench
from quire.clients.work import tuned
from quire.conf.schema import Settings
from quire.errors import DataError, QuireError
from quire.privacy.randomness import stream
from quire.simulation.inline import FIRST_NODE
from quire.strategies.checkpoint import Checkpoints
from quire.strategies.fairness import spreads

Arrays = dict[str, np.ndarray]
Scores = dict[str, float]

#: The model tuned to a silo's own rows, among the ways of ``comparison.json``.
TUNED = "tuned"


class Federated:
    """The model that a run came to, as each of its silos uses it.

    Parameters
    ----------
    settings : Settings
        Of the run.
    folder : pathlib.Path
        The run's folder.
    names : sequence of str
        Of the silos, in the order in which they were simulated.
    bench : Workbench

    Raises
    ------
    DataError
        If silos keep layers of their own, and the folder does not hold them.
    """

    def __init__(self, settings: Settings, folder: Path, names: Sequence[str], bench: Workbench) -> None:
        self._settings, self._bench, self._names = settings, bench, tuple(names)
        self._shared = final_model(folder)
        self._own = _own_layers(folder, names) if settings.training.local_layers else dict[str, Arrays]()

    def of(self, silo: str) -> Arrays:
        """Return the model that a silo uses."""
        return joined(self._bench.task, self._settings, self._shared, self._own.get(silo, {}))

    def scores(self, tests: Mapping[str, Rows]) -> dict[str, Scores]:
        """Score each silo's rows with the model that it uses; under the name '' everyone's.

        Where silos have layers of their own, everyone's score is the mean of theirs, weighted by rows.
        """
        found: dict[str, Scores] = {}
        for silo in self._names:
            self._bench.load(self.of(silo))
            found[silo] = self._bench.score(tests[silo])
        if self._own:
            found[""] = _mean(found, {silo: len(tests[silo]) for silo in self._names})
        else:
            found[""] = self._bench.score(tests[""])
        return found

    def tuned(self, data: Sequence[SiloData]) -> dict[str, Scores]:
        """Return each silo's scores on its own test rows by a copy tuned to its training rows; empty if none is."""
        if not self._settings.training.tuning_epochs:
            return {}
        found = {}
        for silo, rows in zip(self._names, data, strict=True):
            rng = stream(self._settings.seed, "tuned", silo)
            tuned(self._bench, self._settings, self.of(silo), rows.train, rng)
            scores = self._bench.score(rows.test)
            found[silo] = {name: value for name, value in scores.items() if np.isfinite(value)}  # as in the rounds
        return found


def with_fairness(comparison: dict[str, Any], tuned_scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return a comparison with the tuned models' scores, and how evenly every model serves the silos.

    Parameters
    ----------
    comparison : dict
        With ``own``: each silo's scores on its own test rows, by model.
    tuned_scores : mapping of str to dict
        As :meth:`Federated.tuned` returns them.
    """
    own = {
        silo: {**ways, **({TUNED: tuned_scores[silo]} if silo in tuned_scores else {})}
        for silo, ways in comparison["own"].items()
    }
    ways = dict.fromkeys(way for found in own.values() for way in found)
    fairness = {way: spreads({silo: found[way] for silo, found in own.items() if way in found}) for way in ways}
    return {**comparison, "own": own, "fairness": fairness}


def final_model(folder: Path) -> Arrays:
    """Read ``model.safetensors`` of a run folder.

    Raises
    ------
    QuireError
        If it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise QuireError(f"The model in '{folder / 'model.safetensors'}' cannot be read: {error}.") from error


def _own_layers(folder: Path, names: Sequence[str]) -> dict[str, Arrays]:
    checkpoint = Checkpoints(folder / "checkpoint").load()
    if checkpoint is None or checkpoint.silos is None:
        raise DataError(
            f"The layers that stayed in the silos are not in '{folder / 'checkpoint'}', so the model cannot be scored "
            "as the silos use it."
        )
    found: dict[str, Arrays] = {name: {} for name in names}
    for key, array in checkpoint.silos.items():
        node, record, name = key.split("/", 2)
        if record == MEMORY:
            found[names[int(node) - FIRST_NODE]][name] = array
    return found


def _mean(found: Mapping[str, Scores], rows: Mapping[str, int]) -> Scores:
    metrics = dict.fromkeys(name for scores in found.values() for name in scores)
    means = {}
    for name in metrics:
        parts = [(rows[silo], scores[name]) for silo, scores in found.items() if name in scores]
        means[name] = sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)
    return means
