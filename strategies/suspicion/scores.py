"""How far each update of a round lies from the others: by its size, and by its direction.

Both are robust z-scores: the distance from the median in units of 1.4826 times the median absolute deviation, which for
normal scores is the standard deviation (Rousseeuw and Croux 1993), and never less than a floor: silos that are nearly
alike do not make a small difference a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quire.strategies.robust.coordinates import median
from quire.strategies.rounds import Arrays

#: A size of a fifth off, in log, is never more than one deviation; nor is a cosine 0.05 off. With 0.1 honest silos were
#: suspected whose updates were again and again four times as large as usual, as happens once most have little to learn.
SIZE_FLOOR, DIRECTION_FLOOR = 0.2, 0.05
_MAD = 1.4826
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Score:
    """How one update lies to the others of its round.

    Attributes
    ----------
    norm : float
        Euclidean norm of the update.
    times : float
        That as a multiple of the median norm of those compared with.
    cosine : float
        Of the angle to the coordinate-wise median of those; 0 where either is zero.
    size_z : float
        Robust z-score of log norm: positive where the update is larger than usual.
    direction_z : float
        Robust z-score of the cosine: positive where it points farther away than usual.
    """

    norm: float
    times: float
    cosine: float
    size_z: float
    direction_z: float

    @property
    def z(self) -> float:
        """The larger of both: small updates do no harm, and none is suspected for pointing where most do."""
        return max(self.size_z, self.direction_z)

    @property
    def reason(self) -> str:
        """What speaks against the update most, in words."""
        if self.size_z >= self.direction_z:
            return f"its update is {self.times:.3g} times as large as usual ({self.size_z:.3g} deviations)"
        return f"its update points away from most (cosine {self.cosine:.2f}, {self.direction_z:.3g} deviations)"


def scored(updates: Sequence[Arrays], compared: Sequence[bool], allowance: float) -> list[Score]:
    """Score the updates of a round.

    Where more than a sixth, and less than half, lies farther out than the allowance, all are scored anew against the
    others alone: so many bad updates would widen the spread, and hide in it. Fewer hardly move a median.

    Parameters
    ----------
    updates : sequence of dict of str to numpy.ndarray
        Finite, all of one form; numbers of at most 1e140.
    compared : sequence of bool
        Which of them say what is usual; at least one. While fewer than half of those are bad, the bad ones move what is
        usual no farther than to other honest values.
    allowance : float
        Robust deviations.

    Returns
    -------
    list of Score
    """
    found = _once(updates, compared)
    kept = [one and score.z <= allowance for one, score in zip(compared, found, strict=True)]
    beyond, count = sum(compared) - sum(kept), sum(compared)
    return _once(updates, kept) if count < 6 * beyond < 3 * count else found


def _once(updates: Sequence[Arrays], compared: Sequence[bool]) -> list[Score]:
    usual = [update for update, taken in zip(updates, compared, strict=True) if taken]
    centre = median(usual)
    length = _norm(centre)
    norms = np.array([_norm(update) for update in updates])
    inner = np.array([_product(update, centre) for update in updates])
    whole = norms * length
    cosines = np.divide(inner, whole, out=np.zeros(len(norms)), where=whole > 0.0)
    taken = np.asarray(compared, dtype=bool)
    logs = np.log(np.maximum(norms, _SMALLEST))
    sizes = _robust(logs, taken, SIZE_FLOOR)
    directions = -_robust(cosines, taken, DIRECTION_FLOOR) if length > 0.0 else np.zeros(len(norms))
    typical = max(float(np.median(norms[taken])), _SMALLEST)
    return [
        Score(float(norm), float(norm) / typical, float(cosine), float(size), float(direction))
        for norm, cosine, size, direction in zip(norms, cosines, sizes, directions, strict=True)
    ]


def _robust(values: np.ndarray, taken: np.ndarray, floor: float) -> np.ndarray:
    middle = np.median(values[taken])
    spread = _MAD * float(np.median(np.abs(values[taken] - middle)))
    return np.asarray((values - middle) / max(spread, floor))


def _norm(update: Arrays) -> float:
    return float(np.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in update.values())))


def _product(update: Arrays, centre: Arrays) -> float:
    return sum(float(np.vdot(part.astype(np.float64), centre[name])) for name, part in update.items())
