"""What each silo adds to the model: coalitions of silos are trained, each as a federation of its own.

Nothing but federations' models is used, and their scores as sums over silos: no single update, so that it is the same
under secure aggregation. A coalition that is too small for a sum to be opened trains no model, and is worth what the
first model is. See docs/fairness.md for what that tells, and whom.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.data.silo import concatenate
from quire.clients.tasks.local_layers import first_model
from quire.clients.training import Workbench
from quire.conf.asked import attack_on
from quire.conf.compose import compose
from quire.conf.numbers import colluders_of
from quire.conf.overrides import parse
from quire.conf.robust_schema import FEWEST
from quire.conf.schema import (
    InlineRuntime,
    NoPrivacy,
    RobustAggregation,
    SecureAggregation,
    Settings,
    SyntheticData,
)
from quire.errors import SettingsError
from quire.privacy.randomness import stream
from quire.privacy.secagg.params import thresholds
from quire.simulation.inline import run_inline
from quire.simulation.personal import final_model
from quire.simulation.plain import quietly
from quire.simulation.shapley import leave_one_out, sampled_shapley, shapley
from quire.simulation.silos import local_silos

#: Silos up to which all coalitions are trained: 1024 of them.
MOST_EXACT = 10
MOST_CYCLES = 10_000
SCORES = ("accuracy", "loss")
_LEFT_OUT = (
    "output",
    "tracking",
    "strategy.fraction_evaluate",
    "strategy.evaluate_every",
    "training.tuning_epochs",
    "training.tuning_lr",
)


@dataclass
class Game:
    """The federation as a game: a coalition is worth what its model scores on everyone's rows.

    Attributes
    ----------
    settings : Settings
        Of every coalition's run.
    names : tuple of str
        The silos.
    score : str
        ``accuracy``, or ``loss`` with its sign turned.
    least : int
        Fewest silos that a coalition is trained with.
    rows : int
        Rows that models are scored on.
    known : dict
        The values of the coalitions so far.
    """

    settings: Settings
    names: tuple[str, ...]
    score: str
    least: int
    rows: int
    tick: Callable[[int], None]
    scored: Callable[[dict[str, np.ndarray]], float]
    silos: Path | None
    known: dict[frozenset[int], float] = field(default_factory=dict)
    runs: int = 0

    def value(self, coalition: frozenset[int]) -> float:
        """Return what a coalition is worth, training it if need be."""
        if len(coalition) < self.least:
            coalition = frozenset()
        if coalition not in self.known:
            self.known[coalition] = self._trained(coalition)
        return self.known[coalition]

    def first(self, model: dict[str, np.ndarray]) -> None:
        """Take the first model as that of nobody."""
        self.known[frozenset()] = self.scored(model)

    def _trained(self, coalition: frozenset[int]) -> float:
        self.runs += 1
        self.tick(self.runs)
        absent = [name for place, name in enumerate(self.names) if place not in coalition]
        with tempfile.TemporaryDirectory(prefix="quire-coalition-") as scratch, quietly():
            result = run_inline(self.settings, Path(scratch) / "run", silos=self.silos, absent=absent)
            return self.scored(final_model(result.folder))


@dataclass(frozen=True)
class Contribution:
    """What each silo adds.

    Attributes
    ----------
    score : str
    names : tuple of str
    shapley, half_width, left_out : tuple of float
        By silo: the Shapley value, half the width of its 95 % interval (0 where it is exact), leave-one-out.
    nobody, everybody : float
        The value of the first model, and of the whole federation.
    least, rows, runs, orders, truncated : int
        ``orders`` is 0 where all coalitions were trained.
    overrides : str
        What `quire run` would be told for everybody.
    secure : bool
    attack : str
        Which attack the federations were under; empty where none.
    """

    score: str
    names: tuple[str, ...]
    shapley: tuple[float, ...]
    half_width: tuple[float, ...]
    left_out: tuple[float, ...]
    nobody: float
    everybody: float
    least: int
    rows: int
    runs: int
    orders: int
    truncated: int
    overrides: str
    secure: bool
    attack: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds; an interval from one order has no width that could be told."""
        return {
            "score": self.score,
            "overrides": self.overrides,
            **({"attacked": self.attack} if self.attack else {}),
            "rows": self.rows,
            "fewest_silos": self.least,
            "federations": self.runs,
            "orders": self.orders,
            "truncated": self.truncated,
            "nobody": self.nobody,
            "everybody": self.everybody,
            "silos": {
                name: {"shapley": value, "half_width": width if math.isfinite(width) else None, "leave_one_out": lost}
                for name, value, width, lost in zip(
                    self.names, self.shapley, self.half_width, self.left_out, strict=True
                )
            },
        }


def contribution(
    overrides: str,
    cycles: int = 4,
    tolerance: float = 0.01,
    exact: bool = False,
    score: str = "accuracy",
    tick: Callable[[int], None] = lambda runs: None,
    silos: Path | None = None,
) -> Contribution:
    """Find out what each silo adds to the model.

    Parameters
    ----------
    overrides : str
        Settings, as for `quire run`.
    cycles : int
        Cycles of orders that are drawn, 2 to 10,000: in each every silo comes once at every place.
    tolerance : float
        See :func:`quire.simulation.shapley.sampled_shapley`.
    exact : bool
        Train all coalitions instead.
    score : {"accuracy", "loss"}
    tick : callable
        Told the number of every federation that is about to be trained.
    silos : pathlib.Path, optional
        Of the silos' files, where they read their own rows.

    Raises
    ------
    SettingsError
        If the settings cannot be asked this.
    QuireError
        If a federation cannot be trained.
    """
    if not 2 <= cycles <= MOST_CYCLES:
        raise SettingsError(f"--cycles={cycles} must be a whole number from 2 to {MOST_CYCLES}.")
    if not 0.0 <= tolerance < math.inf:
        raise SettingsError(f"--tolerance={tolerance:g} must be a number that is not negative.")
    if score not in SCORES:
        raise SettingsError(f"--score must be {' or '.join(SCORES)}.")
    given = compose(overrides)
    _check(given, exact)
    kept = [str(item) for item in parse(given.overrides) if not _is_left_out(item.key)]
    settings = compose(" ".join([*kept, "strategy.fraction_evaluate=0"]))
    local = local_silos(settings, silos)
    bench, data = Workbench(local.task(settings)), local.data(settings)
    rows = concatenate([silo.scored for silo in data])
    if score == "accuracy" and not bench.task.classes:
        raise SettingsError(f"task={settings.task.name} learns a number, of which there is no accuracy: --score loss.")

    def scored(model: dict[str, np.ndarray]) -> float:
        bench.load(model)
        found = bench.score(rows)
        return found["accuracy"] if score == "accuracy" else -found["loss"]

    game = Game(settings, local.names, score, fewest(settings), len(rows), tick, scored, silos)
    game.first(first_model(bench.task, settings))
    players = len(game.names)
    left_out = leave_one_out(players, game.value)
    if exact:
        values, widths, drawn, truncated = shapley(players, game.value), np.zeros(players), 0, 0
    else:
        rng = stream(settings.seed, "contribution")
        found = sampled_shapley(players, game.value, cycles, tolerance, rng, game.least)
        values, widths, drawn, truncated = found.mean, found.half_width(), cycles * players, found.truncated
    return Contribution(
        score,
        game.names,
        tuple(values.tolist()),
        tuple(widths.tolist()),
        tuple(left_out.tolist()),
        game.known[frozenset()],
        game.value(frozenset(range(players))),
        game.least,
        game.rows,
        game.runs,
        drawn,
        truncated,
        settings.overrides,
        isinstance(settings.aggregation, SecureAggregation),
        attack_on(settings.as_dict()),
    )


def fewest(settings: Settings) -> int:
    """Return how few silos a coalition may have: never fewer than the federation itself opens a sum, or a mean, of."""
    aggregation, silos = settings.aggregation, settings.partition.silos
    if isinstance(aggregation, SecureAggregation):
        return thresholds(silos, colluders_of(aggregation, silos), settings.strategy.min_silos).min_survivors
    least = settings.strategy.min_silos
    if isinstance(aggregation, RobustAggregation) and aggregation.name in FEWEST:
        least = max(least, FEWEST[aggregation.name](getattr(aggregation, "byzantine", 0)))
    return least


def _check(settings: Settings, exact: bool) -> None:
    """Refuse what a contribution cannot be told of."""
    if not isinstance(settings.privacy, NoPrivacy):
        raise SettingsError(
            "A contribution is the difference of exact scores on private rows, of which "
            f"privacy={settings.privacy.name} charges none, and each silo would be charged for every coalition that it "
            "is in: take privacy=none, among parties who may know it."
        )
    if not isinstance(settings.runtime, InlineRuntime):
        raise SettingsError(
            f"runtime={settings.runtime.name} would start Ray for every coalition: take runtime=inline or batched."
        )
    if settings.runtime.faults:
        raise SettingsError("runtime.faults would strike coalitions unlike: leave them out.")
    if settings.training.local_layers:
        raise SettingsError(
            "training.local_layers leaves no one model that a coalition could be scored by on everyone's rows: leave "
            "them out."
        )
    if not isinstance(settings.data, SyntheticData) and settings.data.preprocessing == "federated":
        raise SettingsError(
            "data.preprocessing=federated scales everyone's rows by what the coalition has, so that no two coalitions "
            "are scored on the same: take public or per_silo."
        )
    if isinstance(settings.aggregation, SecureAggregation) and settings.strategy.fraction != 1.0:
        raise SettingsError(
            f"strategy.fraction={settings.strategy.fraction:g} asks too few of a coalition for a sum to be opened: "
            "with aggregation=secure set strategy.fraction=1."
        )
    if isinstance(settings.aggregation, SecureAggregation) and settings.aggregation.groups is not None:
        raise SettingsError(
            f"aggregation.groups={settings.aggregation.groups} sums silos in groups that a coalition has too few "
            "silos for: leave it out."
        )
    if exact and settings.partition.silos > MOST_EXACT:
        raise SettingsError(
            f"--exact trains 2^{settings.partition.silos} coalitions of partition.silos={settings.partition.silos}: it "
            f"is for {MOST_EXACT} silos at most; leave it out, and orders are sampled."
        )


def _is_left_out(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _LEFT_OUT)
