"""What colluders send, from the updates that they see: the mathematics of each attack on updates.

An update is the silo's new model minus the global one, as one flat vector, so that ``-update`` drives the model up the
loss. n silos take part in a round, f of them collude. Statistics are taken over the honest updates that the colluders
see: with ``knows=all`` those of the n - f honest silos, with ``knows=own`` those that the colluders themselves trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from quire.conf.attack_schema import (
    AlieAttack,
    BackdoorAttack,
    FreeRiderAttack,
    GiantAttack,
    InnerProductAttack,
    MinMaxAttack,
    NotFiniteAttack,
    ScalingAttack,
    SignFlipAttack,
)
from quire.conf.schema import Attack


def crafted(
    attack: Attack, own: np.ndarray, others: np.ndarray, generators: Sequence[np.random.Generator]
) -> np.ndarray:
    """Return what the colluders send in one round.

    Parameters
    ----------
    attack : Attack
    own : numpy.ndarray, shape (f, d)
        What each colluder trained: honestly, or on poisoned rows where the attack is one on rows.
    others : numpy.ndarray, shape (n - f, d)
        What the honest silos of the round send.
    generators : sequence of numpy.random.Generator
        One for each colluder.

    Returns
    -------
    numpy.ndarray of float64, shape (f, d)
    """
    count, size = own.shape
    if isinstance(attack, SignFlipAttack):
        return -attack.scale * own.astype(np.float64)
    if isinstance(attack, ScalingAttack):
        return attack.factor * own.astype(np.float64)
    if isinstance(attack, BackdoorAttack):
        return attack.boost * own.astype(np.float64)
    if isinstance(attack, NotFiniteAttack):
        return np.full((count, size), np.nan)
    if isinstance(attack, GiantAttack):
        return np.full((count, size), attack.value)
    if isinstance(attack, FreeRiderAttack):
        return np.stack([attack.noise * rng.standard_normal(size) for rng in generators])
    if isinstance(attack, AlieAttack | InnerProductAttack | MinMaxAttack):
        seen = others if attack.knows == "all" and len(others) else own
        return np.tile(_together(attack, seen, len(own) + len(others), count), (count, 1))
    return own.astype(np.float64)  # label flipping: the rows are all that is poisoned


def _together(
    attack: AlieAttack | InnerProductAttack | MinMaxAttack, seen: np.ndarray, silos: int, f: int
) -> np.ndarray:
    if isinstance(attack, AlieAttack):
        return alie(seen, z_max(silos, f) if attack.z is None else attack.z)
    if isinstance(attack, InnerProductAttack):
        return np.asarray(-attack.epsilon * seen.mean(axis=0, dtype=np.float64))
    return min_max(seen, attack.direction)


def z_max(silos: int, colluders: int) -> float:
    """Return how many standard deviations colluders may lie off so that enough honest ones lie farther out.

    Baruch et al. 2019, arXiv 1902.06156, algorithm 3: s = floor(n / 2 + 1) - f supporters are needed, and
    z_max is the largest z with Phi(z) < (n - f - s) / (n - f).

    Parameters
    ----------
    silos, colluders : int
        n and f, with 0 < f < n.

    Returns
    -------
    float
        At least 0: where there are too few honest silos on either side, the mean itself is sent. Where the colluders
        are a majority by themselves no supporter is needed; the quantile is then that of all honest silos but half of
        one, in place of infinity.
    """
    honest = silos - colluders
    supporters = silos // 2 + 1 - colluders
    share = min((honest - supporters) / honest, 1.0 - 0.5 / honest)
    return max(0.0, NormalDist().inv_cdf(share)) if share > 0.0 else 0.0


def alie(seen: np.ndarray, z: float) -> np.ndarray:
    """Return mean - z * standard deviation, coordinate by coordinate, float64 of shape (d,).

    Parameters
    ----------
    seen : numpy.ndarray, shape (k, d)
    z : float
    """
    return np.asarray(seen.mean(axis=0, dtype=np.float64) - z * seen.std(axis=0, dtype=np.float64))


def min_max(seen: np.ndarray, direction: str) -> np.ndarray:
    """Return mean + gamma * p with the largest gamma at which it is no farther from any update than two of them are.

    Shejwalkar and Houmansadr 2021, section IV.B.2, equation 8. They search for gamma; it is the smallest of the
    positive roots of |mean + gamma * p - u_i|^2 = D^2, where D is the largest distance of two updates.

    Parameters
    ----------
    seen : numpy.ndarray, shape (k, d)
        At least one update.
    direction : {"std", "unit", "sign"}

    Returns
    -------
    numpy.ndarray of float64, shape (d,)
        The mean itself where all updates are the same, or p is zero.
    """
    wide = seen.astype(np.float64)
    mean = np.asarray(wide.mean(axis=0))
    if direction == "std":
        p = -wide.std(axis=0)
    elif direction == "unit":
        p = -mean / (float(np.linalg.norm(mean)) or 1.0)
    else:
        p = -np.sign(mean)
    away = mean - wide
    squares = np.einsum("ij,ij->i", away, away)
    largest = _largest_square(wide)
    a = float(p @ p)
    if a == 0.0 or largest == 0.0:
        return mean
    b = away @ p
    # largest >= squares: the mean lies within the ball of radius D around every update
    gamma = (-b + np.sqrt(b * b + a * np.maximum(largest - squares, 0.0))) / a
    return np.asarray(mean + max(float(gamma.min()), 0.0) * p)


def _largest_square(rows: np.ndarray) -> float:
    """Return the largest squared distance of two rows."""
    largest = 0.0
    for place in range(len(rows) - 1):
        apart = rows[place + 1 :] - rows[place]
        largest = max(largest, float(np.einsum("ij,ij->i", apart, apart).max()))
    return largest
