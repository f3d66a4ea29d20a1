"""Which pictures did the silos train on? Asked by the server, of what it has of the first round and nothing else.

The server knows the model, the settings and so how many rows are behind what it sees, and the range of a pixel. It is
given one silo's update where updates come in clear, and else the mean that the opened sum came to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from quire.clients.arrays import Arrays
from quire.clients.data.silo import Rows, concatenate
from quire.clients.training import Workbench, steps
from quire.conf.compose import compose
from quire.conf.schema import Settings
from quire.privacy.attacks import reconstruction as rec
from quire.privacy.attacks.roc import Rate, share
from quire.privacy.randomness import stream
from quire.simulation.attacks.batches import drawn
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.attacks.tap import Seen
from quire.simulation.attacks.variants import Variant, facts, observed
from quire.simulation.silos import LocalSilos, local_silos

#: One step on eight digits at each of ten silos: what gives most away.
DEFAULTS = (
    "task=digits task.model=mlp partition=iid partition.silos=10 strategy.rounds=1 training.steps=1 "
    "training.batch_size=8 training.lr=0.1"
)
#: Correlation from which a picture counts as recognised. Other digits are that alike in a thousandth of all cases.
ALIKE = 0.98
IMAGE = (8, 8)
#: Draws of other digits that chance is measured by.
DRAWS = 50
#: More rows than this are not searched for.
MOST_ROWS = 512
_LOW, _HIGH = -1.0, 1.0


@dataclass(frozen=True, eq=False)
class Pictures:
    """What one run gave away.

    Attributes
    ----------
    truth, found : numpy.ndarray of float64, shape (n, 64)
        The rows behind what was seen, and the guess for each: of division or search, whichever is more like it.
    similarity, by_division, by_search : numpy.ndarray of float64, shape (n,)
    chance : numpy.ndarray of float64, shape (draws, n)
        The same where as many digits of other people are the guesses.
    beside : numpy.ndarray of float64, shape (n, 64)
        The guesses of the first draw.
    distance : float
        Of the search: one minus the cosine of the two gradients.
    rows : int
        How many rows were looked for.
    spent : dict
    """

    truth: rec.Images
    found: rec.Images
    similarity: NDArray[np.float64]
    by_division: NDArray[np.float64]
    by_search: NDArray[np.float64]
    chance: NDArray[np.float64]
    beside: rec.Images
    distance: float
    rows: int
    spent: dict[str, object]


@dataclass(frozen=True, eq=False)
class Attacked:
    """One variant under attack, over all its runs."""

    variant: Variant
    runs: list[Pictures]

    def recognised(self, attack: str = "similarity") -> Rate:
        """Return the share of the true rows that were recognised; by ``by_division`` or ``by_search`` alone."""
        values = np.concatenate([getattr(run, attack) for run in self.runs])
        return share(int((values >= ALIKE).sum()), len(values))

    def chance(self) -> Rate:
        """Return the share that digits of other people are recognised by."""
        values = np.concatenate([run.chance.ravel() for run in self.runs])
        return share(int((values >= ALIKE).sum()), len(values))

    def luck(self) -> float:
        """Return the probability to recognise as many rows, or more, by chance alone, at its upper bound."""
        values = np.concatenate([run.similarity for run in self.runs])
        return float(binom.sf(int((values >= ALIKE).sum()) - 1, len(values), self.chance().high))

    def mean(self) -> tuple[float, float]:
        """Return the mean similarity of the attack, and that of chance."""
        own = np.concatenate([run.similarity for run in self.runs])
        return float(own.mean()), float(np.concatenate([run.chance.ravel() for run in self.runs]).mean())


def attack(
    chosen: Sequence[Variant],
    runs: int,
    seed: int,
    search: rec.Search | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> list[Attacked]:
    """Attack the first round of each variant.

    Parameters
    ----------
    chosen : sequence of Variant
        Of ``task=digits``.
    runs : int
        Of each variant, at least one, with one seed after the other.
    seed : int
    search : quire.privacy.attacks.reconstruction.Search, optional
    tell : callable
        Is told in words what is done next.

    Raises
    ------
    AttackInput
    """
    search = search or rec.Search()
    check(runs, search)
    search = rec.Search(_LOW, _HIGH, search.steps, search.tries, search.rate, search.smooth)
    for variant in chosen:
        _can_be_attacked(compose(variant.overrides))
    return [
        Attacked(variant, [looked(seen, search) for seen in observed(variant, runs, seed, tell)]) for variant in chosen
    ]


def searching(steps: int, tries: int) -> rec.Search:
    """Return a search of so many steps and tries."""
    return rec.Search(steps=steps, tries=tries)


def check(runs: int, search: rec.Search) -> None:
    """Refuse numbers with which nothing could be said, or no machine would be done.

    Raises
    ------
    AttackInput
    """
    if not 1 <= runs <= 64:
        raise AttackInput(f"Inversion takes 1 to 64 runs of each kind, not {runs}: change --runs.")
    if not 1 <= search.steps <= 100_000 or not 1 <= search.tries <= 100:
        raise AttackInput(
            f"A search takes 1 to 100,000 steps and 1 to 100 tries, not {search.steps} and {search.tries}: change "
            "--steps or --tries."
        )


def looked(seen: Seen, search: rec.Search) -> Pictures:
    """Attack one run, and mark the attack by the rows that were really there."""
    local = local_silos(seen.settings)
    bench = Workbench(local.task(seen.settings))
    update, count = _given(seen, local)
    rng = stream(seen.settings.seed, "attack", "inversion")
    divided, searched, distance = reconstruct(bench, seen.models[0], update, count, _scale(seen, local), search, rng)
    truth, others = _truth(seen, local)
    by_division, by_search = rec.matched(divided, truth), rec.matched(searched, truth)
    found = np.where(
        (by_division.similarity > by_search.similarity)[:, None],
        _taken(divided, by_division),
        _taken(searched, by_search),
    )
    chance, beside = [], np.zeros_like(truth)
    for draw in range(DRAWS):
        pool = _others(others, (len(divided), count), rng)
        some = [rec.matched(part, truth) for part in pool]
        chance.append(np.maximum(some[0].similarity, some[1].similarity))
        beside = _taken(pool[1], some[1]) if draw == 0 else beside
    return Pictures(
        truth,
        found,
        np.maximum(by_division.similarity, by_search.similarity),
        by_division.similarity,
        by_search.similarity,
        np.stack(chance),
        beside,
        distance,
        count,
        facts(seen),
    )


def _can_be_attacked(settings: Settings) -> None:
    """Refuse what has no pictures, or too many, before anything is run."""
    if settings.task.name != "digits":
        raise AttackInput(f"task={settings.task.name} has no pictures: inversion takes task=digits.")
    counts = [_rows(settings, len(silo.train)) for silo in local_silos(settings).data(settings)]
    count = sum(counts) if settings.aggregation.seen == "secure" else counts[0]
    if count > MOST_ROWS:
        raise AttackInput(
            f"Behind what is seen are {count} rows, and at most {MOST_ROWS} are searched for: lower "
            "training.batch_size, training.steps or partition.silos."
        )


def reconstruct(
    bench: Workbench,
    model: Arrays,
    update: Arrays,
    count: int,
    scale: float,
    search: rec.Search,
    rng: np.random.Generator,
) -> tuple[rec.Images, rec.Images, float]:
    """Guess the rows behind an update, from what a server has and nothing else.

    Parameters
    ----------
    bench : Workbench
    model : dict of str to numpy.ndarray
        The global model that the update is of.
    update : dict of str to numpy.ndarray
    count : int
        Rows behind it, as the settings say.
    scale : float
        Learning rate times steps: what a gradient was multiplied by.
    search : quire.privacy.attacks.reconstruction.Search
    rng : numpy.random.Generator

    Returns
    -------
    divided, searched : numpy.ndarray of float64
    distance : float
    """
    bench.load(model)
    names, task = list(model), bench.task
    with torch.no_grad():
        grey = rng.uniform(_LOW, _HIGH, (256, task.features)).astype(np.float32)
        guessed = torch.softmax(bench.model(torch.from_numpy(grey)), dim=1).mean(dim=0).numpy()
    labels = rec.labels_from(-update[names[-1]] / scale, guessed, count)

    def gradient(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(task.loss(bench.model(x), y), bench.parameters, create_graph=True)

    divided = np.zeros((0, task.features))
    if update[names[0]].ndim == 2:  # a linear layer comes first
        divided = rec.by_division(update[names[0]], update[names[1]], count, _LOW, _HIGH)
    target = [-update[name] for name in names]
    searched, distance = rec.by_search(gradient, target, labels, task.features, rng, IMAGE, search)
    return divided, searched, distance


def _given(seen: Seen, local: LocalSilos) -> tuple[Arrays, int]:
    """Return what the server has of the first round, and how many rows are behind it, as the settings say."""
    counts = [_rows(seen.settings, len(silo.train)) for silo in local.data(seen.settings)]
    if seen.sums_only():
        return seen.means[0], sum(counts)
    first = local.names[0]
    if first not in seen.updates[0]:
        raise AttackInput(f"{first} was not asked in the first round: take strategy.fraction=1.")
    return seen.updates[0][first], counts[0]


def _rows(settings: Settings, held: int) -> int:
    rate = getattr(settings.privacy, "sampling_rate", None)
    if rate is not None:
        return max(1, round(float(rate) * held))
    taken: int = settings.training.batch_size * steps(settings.training, held)
    return min(held, taken)


def _scale(seen: Seen, local: LocalSilos) -> float:
    rows = max(len(silo.train) for silo in local.data(seen.settings))
    shared = getattr(seen.settings.privacy, "sampling_rate", None) is not None
    return seen.settings.training.lr * (1 if shared else steps(seen.settings.training, rows))


def _truth(seen: Seen, local: LocalSilos) -> tuple[rec.Images, rec.Images]:
    """Return the rows behind what was seen, and rows that nobody trained on."""
    data = local.data(seen.settings)
    silos = list(zip(local.names, data, strict=True))[: None if seen.sums_only() else 1]
    rows: Rows = concatenate([drawn(seen.settings, name, silo.train) for name, silo in silos])
    if not len(rows):
        raise AttackInput(f"No row was drawn into the first batch with seed={seen.settings.seed}: take another seed.")
    return rows.x.astype(np.float64), concatenate([silo.test for silo in data]).x.astype(np.float64)


def _others(pool: rec.Images, counts: tuple[int, int], rng: np.random.Generator) -> list[rec.Images]:
    return [pool[rng.permutation(len(pool))[:count]] for count in counts]


def _taken(guesses: rec.Images, matched: rec.Matched) -> rec.Images:
    if not len(guesses):
        return np.full((len(matched.guess), IMAGE[0] * IMAGE[1]), _LOW)
    return np.where((matched.guess >= 0)[:, None], guesses[matched.guess], _LOW)
