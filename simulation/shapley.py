"""What a player adds to a game: Shapley values, exactly or from sampled orders, and leave-one-out.

Pure: a game is a function from coalitions to numbers. The Shapley value of a player is the mean, over all orders in
which players may join, of what it adds when it joins (Shapley 1953); sampled orders estimate it, and an order may be
left once the coalition is worth as much as everybody (Ghorbani & Zou 2019, arXiv 1904.02868, algorithm 1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Value = Callable[[frozenset[int]], float]


@dataclass(frozen=True, eq=False)
class Sampled:
    """What players added in sampled orders.

    Attributes
    ----------
    added : numpy.ndarray of float64, shape (cycles, players)
        What each player added when it joined, on average over the orders of a cycle.
    truncated : int
        How many times a player was taken to add nothing because its order was left.
    """

    added: np.ndarray
    truncated: int

    @property
    def mean(self) -> np.ndarray:
        """The estimates, shape (players,)."""
        return np.asarray(self.added.mean(axis=0))

    def half_width(self, confidence: float = 0.95) -> np.ndarray:
        """Return half the width of Student's interval for each estimate; infinite from a single cycle.

        It covers the choice of orders alone: not what a training would come to with another seed, and not what leaving
        an order early leaves out.
        """
        from scipy.stats import t

        cycles = len(self.added)
        if cycles < 2:
            return np.full(self.added.shape[1], math.inf)
        error = self.added.std(axis=0, ddof=1) / math.sqrt(cycles)
        return np.asarray(float(t.ppf((1.0 + confidence) / 2.0, cycles - 1)) * error)


def shapley(players: int, value: Value) -> np.ndarray:
    """Return the Shapley values from all 2^players coalitions.

    Parameters
    ----------
    players : int
    value : callable
        Of a coalition of players, who are counted from 0.

    Returns
    -------
    numpy.ndarray of float64, shape (players,)
        Sum |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)) over the coalitions S without i.
    """
    found = np.zeros(players)
    for player in range(players):
        others = [one for one in range(players) if one != player]
        for size in range(players):
            weight = 1.0 / (players * math.comb(players - 1, size))
            for chosen in itertools.combinations(others, size):
                without = frozenset(chosen)
                found[player] += weight * (value(without | {player}) - value(without))
    return found


def sampled_shapley(
    players: int, value: Value, cycles: int, tolerance: float, rng: np.random.Generator, least: int = 1
) -> Sampled:
    """Estimate Shapley values from orders that are drawn at random, a cycle at a time.

    An order is drawn, and taken with all its rotations: each is as likely as any order, and in a cycle every player
    joins once as the first, once as the second, and so on. Where the first few are worth nothing without the next,
    who that is depends on the place, and single orders would differ wildly.

    Parameters
    ----------
    players : int
    value : callable
    cycles : int
        At least 1; each is as many orders as there are players.
    tolerance : float
        An order is left once the coalition's value lies within this of everybody's: who joins later then adds nothing.
        0 leaves none.
    rng : numpy.random.Generator
    least : int
        A coalition of fewer players than this is not looked at for leaving: it has no value of its own.
    """
    nobody, everybody = value(frozenset()), value(frozenset(range(players)))
    added, truncated = np.zeros((cycles, players)), 0
    for row in added:
        drawn = rng.permutation(players).tolist()
        for start in range(players):
            before, joined = nobody, frozenset[int]()
            for place, player in enumerate(drawn[start:] + drawn[:start]):
                if place >= least and abs(everybody - before) < tolerance:
                    truncated += players - place
                    break
                joined |= {player}
                after = value(joined)
                row[player] += (after - before) / players
                before = after
    return Sampled(added, truncated)


def leave_one_out(players: int, value: Value) -> np.ndarray:
    """Return what everybody loses without each player, v(N) - v(N - i), float64 of shape (players,)."""
    everybody = frozenset(range(players))
    return np.array([value(everybody) - value(everybody - {player}) for player in range(players)])
