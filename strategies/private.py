"""``privacy=silo``: silos clip their whole update, a trusted server adds noise to the sum, once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import capped_weight
from quire.privacy.dp.release import add_noise, release_of
from quire.privacy.randomness import key
from quire.strategies.rounds import Aggregator, Arrays, Cohort, Update

#: Floating point at the silo may leave a clipped update longer than the clip by so much, relatively.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class NoisySum(Aggregator):
    """The sum of clipped updates plus noise, over a public denominator that no dropout changes.

    Silos send ``w * clip(update)``, with a public weight w in (0, 1]. The denominator is the sum of the weights of
    *all that were asked*: one taken over those who answered would be as private as who they are, and noise scaled for
    equal weights would not fit a mean by examples. What a dropout costs is a shorter step, not privacy.

    Attributes
    ----------
    clip : float
        L2 norm that no update may exceed; one that does is a dropout of its silo.
    noise_multiplier : float
        Standard deviation of the noise over the clip. 0 adds none.
    cap : int or None
        Records beyond which a silo counts no more; None: all count alike.
    seed : int or None
        A simulation's. None draws the noise from the operating system.
    """

    clip: float
    noise_multiplier: float
    cap: int | None = None
    seed: int | None = None

    def objection(self, update: Arrays) -> str | None:
        """A silo that does not clip has no say in the sum."""
        squares = sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values())
        return None if squares <= (self.clip * (1.0 + _TOLERANCE)) ** 2 else "its update is longer than the clip"

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return (sum of updates + noise) / (sum of the public weights of all that were asked)."""
        form = updates[0].arrays
        total = np.zeros(sum(array.size for array in form.values()))
        for update in updates:
            total += np.concatenate([array.reshape(-1).astype(np.float64) for array in update.arrays.values()])
        if self.noise_multiplier:
            release = release_of(len(total), self.clip * (1.0 + _TOLERANCE), self.noise_multiplier, "discrete")
            total = add_noise(total, release, self._source(cohort.round))
        total /= self.denominator(cohort.silos, cohort.records)
        parts, start = {}, 0
        for name, array in form.items():
            parts[name] = total[start : start + array.size].reshape(array.shape)
            start += array.size
        return parts

    def denominator(self, silos: Sequence[str], records: Mapping[str, int]) -> float:
        """Return the sum of the weights of some silos."""
        if self.cap is None:
            return float(len(silos))
        return sum(capped_weight(records[silo], self.cap) for silo in silos)

    def _source(self, round_number: int) -> Csprng:
        return Csprng(os.urandom(32) if self.seed is None else key(self.seed, "noise", round_number))
