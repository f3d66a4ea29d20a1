"""What share of each class does a silo hold? Asked by the server, of what it has of the first rounds.

The server has rows of its own of the same population (here: the rows that silos keep for testing, which nobody trains
on). From these it makes up silos whose shares it knows, trains each from the global model as the settings say, under
``privacy=record`` and ``privacy=silo`` with that clipping and noise, and learns what shares do to an update. It looks
at the last layer alone, whose gradient is a sum over rows of what the model got wrong, class by class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows, concatenate
from quire.clients.entropy import Seeded
from quire.clients.local import train_locally
from quire.clients.private.plan import Plan, SharedPlan, plan_of
from quire.clients.private.work import private_update
from quire.clients.training import Workbench
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy
from quire.privacy.attacks.properties import Numbers, as_shares, distance, fit
from quire.privacy.attacks.roc import Rate, share
from quire.privacy.randomness import derive_seed, stream
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.attacks.tap import Seen
from quire.simulation.attacks.variants import Variant, facts, observed
from quire.simulation.silos import LocalSilos, local_silos

#: Silos that differ in what they hold.
DEFAULTS = (
    "task=digits partition=dirichlet partition.silos=10 partition.alpha=0.5 strategy.rounds=1 training.epochs=1 "
    "training.lr=0.1"
)
#: Made-up silos.
SHADOWS = 200
_ALPHAS = (0.1, 0.3, 1.0, 10.0)


@dataclass(frozen=True, eq=False)
class Guess:
    """What one run gave away.

    Attributes
    ----------
    silos : tuple of str
    truth, guessed : numpy.ndarray of float64, shape (silos, classes)
        Shares of classes among the training rows of each silo, and what the attack says of them.
    population : numpy.ndarray of float64, shape (classes,)
        The shares in the attacker's own rows: what it would say without the run.
    spent : dict
    """

    silos: tuple[str, ...]
    truth: Numbers
    guessed: Numbers
    population: Numbers
    spent: dict[str, object]


@dataclass(frozen=True, eq=False)
class Attacked:
    """One variant under attack, over all its runs."""

    variant: Variant
    runs: list[Guess]

    def error(self) -> Rate:
        """Return the mean distance of guessed from true shares, with its interval over silos."""
        return _mean(np.concatenate([distance(run.guessed, run.truth) for run in self.runs]))

    def chance(self) -> Rate:
        """Return the mean distance of the population's shares from the true ones."""
        return _mean(np.concatenate([distance(run.population[None], run.truth) for run in self.runs]))

    def top(self) -> Rate:
        """Return the share of silos whose most frequent class is named."""
        hits = np.concatenate([run.guessed.argmax(axis=1) == run.truth.argmax(axis=1) for run in self.runs])
        return share(int(hits.sum()), len(hits))

    def top_chance(self) -> Rate:
        """Return the same for who names the population's most frequent class each time."""
        hits = np.concatenate([run.population.argmax() == run.truth.argmax(axis=1) for run in self.runs])
        return share(int(hits.sum()), len(hits))


def attack(
    chosen: Sequence[Variant],
    runs: int,
    seed: int,
    shadows: int = SHADOWS,
    tell: Callable[[str], None] = lambda words: None,
) -> list[Attacked]:
    """Attack the first round of each variant.

    Parameters
    ----------
    chosen : sequence of Variant
    runs : int
        Of each variant, 1 to 64.
    seed : int
    shadows : int
        Silos that the attacker makes up, at least 20.
    tell : callable
        Is told in words what is done next.

    Raises
    ------
    AttackInput
    """
    check(runs, shadows)
    for variant in chosen:
        if (share_asked := compose(variant.overrides).strategy.fraction) < 1:
            raise AttackInput(f"strategy.fraction={share_asked:g} does not ask every silo: take strategy.fraction=1.")
    return [
        Attacked(variant, [looked(seen, shadows) for seen in observed(variant, runs, seed, tell)]) for variant in chosen
    ]


def check(runs: int, shadows: int) -> None:
    """Refuse numbers with which nothing could be said, or no machine would be done.

    Raises
    ------
    AttackInput
    """
    if not 1 <= runs <= 64:
        raise AttackInput(f"Property inference takes 1 to 64 runs of each kind, not {runs}: change --runs.")
    if not 20 <= shadows <= 100_000:
        raise AttackInput(f"Property inference takes 20 to 100,000 made-up silos, not {shadows}: change --shadows.")


def looked(seen: Seen, shadows: int) -> Guess:
    """Attack one run."""
    local = local_silos(seen.settings)
    bench = Workbench(local.task(seen.settings))
    data = local.data(seen.settings)
    classes = bench.task.classes
    own = concatenate([silo.test for silo in data])  # the attacker's
    rng = stream(seen.settings.seed, "attack", "property")
    features, shares = _shadows(seen, local, bench, own, shadows, rng)
    model = fit(features, shares)
    given = [seen.means[0] if seen.sums_only() else seen.updates[0].get(name) for name in local.names]
    if any(one is None for one in given):
        raise AttackInput("Not every silo answered in the first round: try again.")
    looks = np.stack([_features(one, list(seen.models[0])) for one in given if one is not None])
    truth = np.stack([_shares(silo.train.y, classes) for silo in data])
    return Guess(local.names, truth, as_shares(model.predict(looks)), _shares(own.y, classes), facts(seen))


def _shadows(
    seen: Seen, local: LocalSilos, bench: Workbench, own: Rows, shadows: int, rng: np.random.Generator
) -> tuple[Numbers, Numbers]:
    """Make up silos, train them, and return what their updates look like and the shares behind them."""
    settings, classes = seen.settings, bench.task.classes
    size = round(np.mean([len(silo.train) for silo in local.data(settings)]))  # silos' rows weigh in a mean in clear
    plan = None if isinstance(settings.privacy, NoPrivacy) else plan_of(settings, size)
    plain = replace(settings.training, steps=1) if isinstance(plan, SharedPlan) else settings.training
    bare = replace(settings, training=plain)
    features, shares = [], []
    for number in range(shadows):
        wanted = rng.dirichlet(np.full(classes, _ALPHAS[number % len(_ALPHAS)]))
        rows = _drawn(own, wanted, size, rng)
        if isinstance(plan, Plan):
            source = Seeded(derive_seed(settings.seed, "attack", "shadow", number))
            update, _ = private_update(settings, bench.task, rows, plan, source, "shadow", seen.models[0], 1)
        else:
            update = train_locally(bench, rows, bare, rng, seen.models[0], {}, {}).update
        features.append(_features(update, list(seen.models[0])))
        shares.append(_shares(rows.y, classes))
    return np.stack(features), np.stack(shares)


def _drawn(own: Rows, wanted: Numbers, size: int, rng: np.random.Generator) -> Rows:
    """Draw rows, with replacement, whose classes have about these shares."""
    weights = wanted[own.y] / np.maximum(np.bincount(own.y, minlength=len(wanted)), 1)[own.y]
    return own.take(rng.choice(len(own), size, p=weights / weights.sum()))


def _features(update: Arrays, names: Sequence[str]) -> Numbers:
    """Return what is looked at: the last layer's bias, and the sum of its weights for each class."""
    weight, bias = update[names[-2]].astype(np.float64), update[names[-1]].astype(np.float64)
    return np.concatenate([bias, weight.reshape(len(bias), -1).sum(axis=1)])


def _shares(labels: NDArray[np.int64], classes: int) -> Numbers:
    return np.bincount(labels, minlength=classes) / max(len(labels), 1)


def _mean(values: Numbers) -> Rate:
    reach = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 1.0
    value = float(values.mean())
    return Rate(value, max(0.0, value - reach), min(1.0, value + reach))
