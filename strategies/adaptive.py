"""``privacy=silo privacy.clipping=adaptive``: the clip follows a quantile of the norms (Andrew et al. 2021).

Algorithm 1 of arXiv 1905.03871: beside its clipped update every silo sends one bit, whether the update was within the
clip. The server adds noise to the sum of updates and to the sum of bits, and moves the clip geometrically by the noisy
share of updates that were within. Both releases together cost what a round costs with a fixed clip.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from quire.clients.contract import CLIP, WITHIN
from quire.errors import RunFailed
from quire.privacy.csprng import Csprng
from quire.privacy.dp.adaptive import Split, next_clip, noisy_share, split
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.discrete_gaussian import sample
from quire.privacy.randomness import key
from quire.strategies.private import NoisySum
from quire.strategies.rounds import Aggregator, Arrays, Cohort, RoundState, Update


@dataclass(frozen=True)
class AdaptiveSum(Aggregator):
    """A :class:`quire.strategies.private.NoisySum` whose clip moves from round to round.

    Attributes
    ----------
    clip : float
        The clip of this round: of the first until :meth:`at` says otherwise.
    noise_multiplier : float
        Of the whole round, updates and bits together; above 0.
    quantile : float
        Share of the updates that should be within the clip, in (0, 1). Every silo's bit counts alike, whatever weight
        its update has: the bits are about norms before weighting, which is what is clipped.
    cap : int or None
    seed : int or None
        As those of the fixed sum.
    """

    clip: float
    noise_multiplier: float
    quantile: float
    cap: int | None = None
    seed: int | None = None

    def at(self, state: RoundState) -> AdaptiveSum:
        """Return the aggregator with the clip that the rounds so far have led to."""
        return replace(self, clip=float(state.memory[CLIP])) if CLIP in state.memory else self

    def client_config(self, cohort: Cohort) -> Mapping[str, float | int]:
        """Tell the clip, once it is sure that the noise can be shared out over such a cohort."""
        self._shares(cohort)
        return {CLIP: self.clip}

    def reply_form(self, form: Arrays) -> Arrays:
        """The update, and the bit."""
        return {**form, WITHIN: np.zeros((), np.float64)}

    def objection(self, update: Arrays) -> str | None:
        """A bit is plus or minus a half: any other number would weigh more than one silo's."""
        if float(update[WITHIN]) not in (0.5, -0.5):
            return "its bit about the clip is neither 1/2 nor -1/2"
        return self._fixed(self.noise_multiplier).objection(_without_bit(update))

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the noisy mean update, as with a fixed clip but for the noise that pays for the bits."""
        rest = [replace(update, arrays=_without_bit(update.arrays)) for update in updates]
        return self._fixed(self._shares(cohort).update_noise).mean(rest, cohort)

    def combine(self, updates: Sequence[Update], cohort: Cohort) -> tuple[Arrays, Arrays]:
        """Return the noisy mean update, and where the noisy share of bits moves the clip."""
        units = len(cohort.silos)
        bits = sum(float(update.arrays[WITHIN]) for update in updates)  # multiples of 1/2: exact
        share = noisy_share(bits, self._bit_noise(units, cohort.round), units)
        try:
            clip = next_clip(self.clip, share, self.quantile)
        except PrivacyError as error:
            raise RunFailed(f"Round {cohort.round} failed: {error}") from error
        return self.mean(updates, cohort), {CLIP: np.array(clip), WITHIN: np.array(share)}

    def released(self, memory: Arrays) -> dict[str, float]:
        """Return the round's clip, and the noisy share of updates within it."""
        return {"clip": self.clip, "within": float(memory[WITHIN])}

    def _fixed(self, noise_multiplier: float) -> NoisySum:
        return NoisySum(self.clip, noise_multiplier, self.cap, self.seed)

    def _shares(self, cohort: Cohort) -> Split:
        try:
            return split(self.noise_multiplier, len(cohort.silos))
        except PrivacyError as error:
            raise RunFailed(f"Round {cohort.round} failed: {error}") from error

    def _bit_noise(self, units: int, round_number: int) -> float:
        """Draw the noise on the sum of bits: exactly, in halves, on integers that bits are multiples of."""
        halves = Fraction(units, 10) ** 2  # twice the standard deviation of units / 20, squared
        seed = os.urandom(32) if self.seed is None else key(self.seed, "noise", "bits", round_number)
        return int(sample(halves, 1, Csprng(seed))[0]) / 2


def check_clips(clip: float, quantile: float, rounds: Sequence[object]) -> None:
    """Check that the clips in a journal follow from the shares in it, for whoever verifies a run.

    Parameters
    ----------
    clip : float
        Of the first round.
    quantile : float
    rounds : sequence of object
        What a journal says that each round released, in order; see :meth:`AdaptiveSum.released`.

    Raises
    ------
    PrivacyError
        With the first round whose clip is another one.
    """
    for number, released in enumerate(rounds, start=1):
        share = released.get("within") if isinstance(released, Mapping) else None
        if not isinstance(released, Mapping) or released.get("clip") != clip or not isinstance(share, float):
            raise PrivacyError(f"the clip of round {number} is not the one that follows from the rounds before it")
        clip = next_clip(clip, share, quantile)


def _without_bit(update: Arrays) -> Arrays:
    return {name: array for name, array in update.items() if name != WITHIN}
