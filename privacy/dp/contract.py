"""What is promised to whom: the unit, when two data sets are neighbours, and the sensitivity that follows.

Nobody types a sensitivity: it is derived here from the clip, the unit and the weights. A combination for which the
derivation does not hold is refused in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class PrivacyError(ValueError):
    """A promise that cannot be kept, or a number with which none can be made; its text is one sentence."""


class Unit(StrEnum):
    """What one promise protects. A record is one row: a person with several rows is not one unit."""

    RECORD = "record"
    SILO = "silo"


class Relation(StrEnum):
    """When two data sets are neighbours, that is, what an observer must hardly be able to tell apart.

    ``ADD_REMOVE``: one has one record more than the other. ``ZERO_OUT``: who takes part is public and the same, and
    one silo's update is replaced by zero (Kairouz et al. 2021, "Practical and private (deep) learning without
    sampling or shuffling", definition 1.1).
    """

    ADD_REMOVE = "add_remove"
    ZERO_OUT = "zero_out"


class Weights(StrEnum):
    """How the clipped terms of a sum are weighted: alike, or by public record counts capped to [0, 1]."""

    UNIFORM = "uniform"
    CAPPED = "capped"


RELATIONS = {Unit.RECORD: Relation.ADD_REMOVE, Unit.SILO: Relation.ZERO_OUT}


@dataclass(frozen=True)
class Contract:
    """A unit, its neighbouring relation, and the bound from which the sensitivity of one release follows.

    Attributes
    ----------
    unit : Unit
    relation : Relation
        ``ADD_REMOVE`` for records, ``ZERO_OUT`` for silos; nothing else has a derivation here.
    clip : float
        L2 norm that one unit's term is clipped to *before* it is weighted and added; above 0, finite.
    weights : Weights
        Records are always weighted alike: an example weight would be a private number, and clip times the largest
        weight the sensitivity.

    Raises
    ------
    PrivacyError
        For a combination whose sensitivity cannot be derived.
    """

    unit: Unit
    relation: Relation
    clip: float
    weights: Weights = Weights.UNIFORM

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise PrivacyError(f"The clip has to be a number above 0, not {self.clip}: it bounds what one unit adds.")
        if self.relation is not RELATIONS[self.unit]:
            raise PrivacyError(
                f"The {self.unit} unit is accounted under the relation {RELATIONS[self.unit]}, not {self.relation}."
            )
        if self.unit is Unit.RECORD and self.weights is not Weights.UNIFORM:
            raise PrivacyError("Records are weighted alike under differential privacy: example weights are private.")

    @classmethod
    def of(cls, unit: Unit, clip: float, weights: Weights = Weights.UNIFORM) -> Contract:
        """Return the contract of a unit, under the relation that belongs to it."""
        return cls(unit, RELATIONS[unit], clip, weights)

    @property
    def sensitivity(self) -> float:
        """The L2 distance between the *sums* that two neighbours lead to.

        One unit's term is w * x with ||x|| <= clip and a public 0 <= w <= 1; removing it, or replacing it by zero,
        moves the sum by at most clip. (Replacing a record by another one would move it by 2 * clip: a relation that
        is not used here.)
        """
        return self.clip

    def sensitivity_of_mean(self, denominator: float) -> float:
        """Return the L2 sensitivity of the sum divided by a public, fixed denominator.

        Parameters
        ----------
        denominator : float
            Record unit: sampling rate times the *public* number of records, never the realised size of a batch.
            Silo unit: the public sum of weights. It must not depend on anything private, or the sensitivity of a
            mean would be that of a ratio.

        Returns
        -------
        float
            ``clip / denominator``.

        Raises
        ------
        PrivacyError
            If the denominator is not a number above 0.
        """
        if not (math.isfinite(denominator) and denominator > 0):
            raise PrivacyError(f"The denominator of a noisy mean has to be a public number above 0, not {denominator}.")
        return self.sensitivity / denominator

    def noise(self, noise_multiplier: float, denominator: float = 1.0) -> float:
        """Return the standard deviation of the noise on the sum (or on the mean, with its denominator).

        The noise multiplier is in units of the sensitivity, whichever of the two is released.
        """
        return noise_multiplier * self.sensitivity_of_mean(denominator)


def capped_weight(records: int, cap: int) -> float:
    """Return the weight of a silo with this *public* number of records: ``min(records, cap) / cap``, in (0, 1].

    It multiplies the update after clipping, so the sensitivity of the sum stays the clip (a weight applied before
    the clip would be undone by it).
    """
    if records < 1 or cap < 1:
        raise PrivacyError(f"A capped weight needs at least one record and a cap of at least 1, not {records}, {cap}.")
    return min(records, cap) / cap
