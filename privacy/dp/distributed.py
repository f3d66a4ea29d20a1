"""Noise that nobody adds alone: every silo adds a share, and only the sum of vectors and shares is ever seen.

With ``n`` members on the roster, ``c`` of which may side with a lying server, at least ``U_min`` vectors are in any sum
that is opened. Whoever looks at the sum may know or miss ``k = c + 1`` shares of its noise: those of the colluders, who
may have left theirs out, and its own. So each share has the parameter

    sigma_c^2 = ceil((z Delta2)^2 / (U_min - c - 1))

and what is left unknown has at least ``(z Delta2)^2`` (Kairouz, Liu and Steinke 2021, https://arxiv.org/abs/2102.06387,
for sums of discrete Gaussian shares). All numbers here are public: each party works them out for itself from settings,
roster and declared counts, before any model is seen.

A run has one ``z``, for the strictest of its silos' targets. What a silo is charged it works out from the colluders
that *it* reckons with and the survivors that *it* insists on (:meth:`SharedNoise.released`); by these, less noise than
it was promised shows as a larger epsilon.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from quire.privacy.dp.calibration import calibrate
from quire.privacy.dp.contract import Contract, PrivacyError, Unit
from quire.privacy.dp.discrete_gaussian import TV_EXPONENT
from quire.privacy.dp.events import DiscreteGaussian, Event, NonPrivate, SampledDiscreteGaussian
from quire.privacy.dp.lattice import MAX_EPSILON
from quire.privacy.dp.probes import PROBES
from quire.privacy.dp.rounding import MAX_SUMMANDS, ROUNDING_FAILURE
from quire.privacy.dp.spending import Budget, Spending
from quire.privacy.secagg.params import MAX_COHORT, MAX_LENGTH, Thresholds, thresholds

#: What the sampler's distance from exact adds to delta in one release, for the longest vector and largest roster there
#: can be. A distance t adds (1 + e^epsilon) t, and e^44 is below 2^64.
DISTANCE_FAILURE = MAX_COHORT * MAX_LENGTH * 2.0 ** (TV_EXPONENT + 64)
#: How far the sum of shares is from one discrete Gaussian, as the largest log-ratio over all coordinates: tau d with
#: tau = 10 sum_k exp(-2 pi^2 sigma_c^2 k / (k + 1)), which for sigma_c of at least 16 is below the least float.
DIVERGENCE = sys.float_info.min * MAX_LENGTH


@dataclass(frozen=True)
class SharedNoise:
    """The public numbers of distributed noise in one run; :meth:`plan` chooses z.

    Attributes
    ----------
    unit : Unit
    clip : float
        L2 norm that one unit's term is clipped to: a record's gradient, or a silo's whole update.
    members, colluders, min_survivors : int
        Of the roster: n, c and U_min; see :func:`quire.privacy.secagg.params.thresholds`.
    parties : int
        How many vectors are added at most: the silos that are asked in a round.
    noise_multiplier : float
        z; 0 is no noise, and costs everything.
    sampling_rate : float
        Probability of a record to be in a round's batch, the same at all silos; 1 for the silo unit.
    rounds : int
        Of the whole run; each is one noisy step.
    denominator : float
        What the sum is divided by, public and fixed: the records expected in a round's batches, or the silos asked.
    batch : int
        Records expected in the largest silo's batch, rounded up; 1 for the silo unit.
    probes : int
        All-zero coordinates at the end of every vector.
    kappa : float or None
        Lattice points per root mean square coordinate of a vector at the clip; None for 16, and more where the model
        is so small that the clip would be fewer than 4,096 of them.

    Raises
    ------
    CohortTooSmall
        If the thresholds cannot be kept.
    PrivacyError
        If no share of the noise is unknown to everybody, or the numbers do not go together.
    """

    unit: Unit
    clip: float
    members: int
    colluders: int
    min_survivors: int
    parties: int
    noise_multiplier: float
    sampling_rate: float
    rounds: int
    denominator: float
    batch: int = 1
    probes: int = PROBES
    kappa: float | None = None

    def __post_init__(self) -> None:
        contract = Contract.of(self.unit, self.clip)
        contract.sensitivity_of_mean(self.denominator)
        limits = thresholds(self.members, self.colluders, self.min_survivors)
        if limits.min_survivors != self.min_survivors or not self.min_survivors <= self.parties <= self.members:
            raise PrivacyError(
                f"{self.parties} silos asked and {self.min_survivors} survivors do not go with a roster of "
                f"{self.members} and {self.colluders} colluders, where {limits.min_survivors} have to survive."
            )
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0 and self.rounds >= 1):
            raise PrivacyError("Distributed noise has a finite multiplier of at least 0, and a run at least one round.")
        if not 0 < self.sampling_rate <= 1 or (self.unit is Unit.SILO and self.sampling_rate != 1):
            raise PrivacyError(f"The sampling rate of a run is in (0, 1], and 1 for silos, not {self.sampling_rate}.")
        if not 1 <= self.batch <= MAX_SUMMANDS:
            raise PrivacyError(
                f"A silo's batch of {self.batch} records is outside 1 to {MAX_SUMMANDS}, beyond which rounding in "
                "their sum would not stay within what is accounted for: lower the sampling rate."
            )
        self.unknown()

    @classmethod
    def plan(
        cls,
        unit: Unit,
        clip: float,
        limits: Thresholds,
        *,
        rounds: int,
        targets: Sequence[Budget],
        sampling_rate: float = 1.0,
        records: int = 0,
        largest: int = 0,
        parties: int | None = None,
        kappa: float | None = None,
        probes: int = PROBES,
    ) -> SharedNoise:
        """Calibrate the noise of a run for the strictest of its silos.

        Parameters
        ----------
        unit, clip, rounds, sampling_rate, kappa, probes
            As in the class; :func:`quire.privacy.dp.shares.probes_for` says how many probes it takes.
        limits : Thresholds
            Of the roster.
        targets : sequence of Budget
            What each silo aims at; epsilon may be infinite.
        records, largest : int
            Record unit: the sum of all members' declared numbers of records, and the largest of them. They decide what
            the sum is divided by, where it is clamped and how long it may be; a wrong one costs accuracy or ends the
            run, and never costs privacy. Silo unit: unused.
        parties : int, optional
            By default all members.

        Raises
        ------
        CalibrationError
            If no noise reaches a target.
        PrivacyError
            As the class raises; or if counts are missing, or an epsilon is beyond what is accounted for.
        """
        asked = limits.members if parties is None else parties
        if not targets or any(MAX_EPSILON < target.epsilon < math.inf for target in targets):
            raise PrivacyError(
                f"Distributed noise needs a target for each silo, with an epsilon of at most {MAX_EPSILON:g}, up to "
                "which what is accounted for holds; or inf, which claims nothing."
            )
        denominator, batch = float(asked), 1
        if unit is Unit.RECORD:
            if not limits.members <= records <= limits.members * largest:
                raise PrivacyError(
                    f"{limits.members} members cannot declare {records} records between them, and {largest} at most: "
                    "the record unit divides its sum by what is expected of all of them."
                )
            denominator = sampling_rate * records * asked / limits.members
            batch = math.ceil(sampling_rate * largest)
        failure = rounds * _failure(unit)
        multiplier = max(
            calibrate(
                target.epsilon,
                target.delta,
                rounds,
                sampling_rate,
                unit,
                discrete=unit is Unit.RECORD,
                failure=failure,
            )
            for target in set(targets)
        )
        return cls(
            unit,
            clip,
            limits.members,
            limits.colluders,
            limits.min_survivors,
            asked,
            multiplier,
            sampling_rate,
            rounds,
            denominator,
            batch,
            probes,
            kappa,
        )

    @property
    def shares(self) -> int:
        """How many shares carry z together: U_min - c_dp, with c_dp = c + 1."""
        return self.min_survivors - self.colluders - 1

    def unknown(self, colluders: int | None = None, survivors: int | None = None) -> int:
        """Return how many shares of the noise an observer neither knows nor can have made others omit.

        Parameters
        ----------
        colluders : int, optional
            That a silo reckons with; by default the run's. One share more is known: the observer's own.
        survivors : int, optional
            The fewest in a sum that may be opened; by default the run's.

        Raises
        ------
        PrivacyError
            If there is none.
        """
        against = self.colluders if colluders is None else colluders
        left = (self.min_survivors if survivors is None else survivors) - against - 1
        if against < 0 or left < 1:
            raise PrivacyError(
                f"With {against} colluders and an observer that knows its own share, no noise is left unknown of "
                f"{left + against + 1} shares: more silos have to survive, or fewer collude."
            )
        return left

    def multiplier(self, colluders: int | None = None, survivors: int | None = None) -> float:
        """Return the noise multiplier that is left, ``z sqrt(unknown / shares)``; see :meth:`unknown`."""
        return self.noise_multiplier * math.sqrt(self.unknown(colluders, survivors) / self.shares)

    def released(self, rounds: int, colluders: int | None = None, survivors: int | None = None) -> Event:
        """Return what so many rounds release of one unit, to be accounted for.

        Parameters
        ----------
        rounds : int
            At least 1; an attempt that is repeated counts as one more.
        colluders, survivors : int, optional
            A silo's own; see :meth:`unknown`.

        Notes
        -----
        Whole numbers of lattice points, as a model of some size has them, are rounded towards more noise: the event is
        the same for every model, and never cheaper than the truth.

        Silo unit: the integers' norm is checked, so their sensitivity is certain, and the noise is a discrete Gaussian
        but for ``DIVERGENCE``. Record unit: in addition each round's batch is a Poisson sample, accounted for at
        integer orders (ours; docs/accounting.md), and the sensitivity of the rounded sum fails with probability 2^-60.

        The batch of a repeated attempt has to be drawn anew: two releases of the *same* sample cost more than two
        samples do.
        """
        return self._event(rounds, Fraction(self.unknown(colluders, survivors), self.shares))

    def released_alone(self, rounds: int) -> Event:
        """Return the same if all other silos are dishonest: a silo's own share of the noise is the only one left."""
        return self._event(rounds, Fraction(1, self.shares))

    def charged(self, rounds: int, colluders: int | None = None, survivors: int | None = None) -> Event:
        """Return what the same rounds cost a silo's *records*: what its ledger is charged.

        Where the unit is the silo, one record can move the clipped update, and its integers, from any point of a ball
        to any other: twice as far as taking the update away does.
        """
        share = Fraction(self.unknown(colluders, survivors), self.shares)
        return self._event(rounds, share / 4 if self.unit is Unit.SILO else share)

    def epsilon(self, delta: float, colluders: int | None = None, survivors: int | None = None) -> float:
        """Return the epsilon of the whole run at a delta, the figure of record; see :meth:`released`."""
        return Spending.of(self.released(self.rounds, colluders, survivors)).epsilon(delta)

    def epsilon_alone(self, delta: float) -> float:
        """Return the same if all other silos are dishonest.

        It holds up to ``MAX_EPSILON``; a larger one says only that little is left.
        """
        return Spending.of(self.released_alone(self.rounds)).epsilon(delta)

    def excess(self, survivors: int) -> float:
        """Return the noise on a sum of so many survivors over what z asks for: sqrt(survivors / shares)."""
        return math.sqrt(survivors / self.shares)

    def noise(self, survivors: int | None = None) -> float:
        """Return the standard deviation of the noise on a coordinate of the mean, without the rounding's small part.

        Parameters
        ----------
        survivors : int, optional
            By default all parties.
        """
        count = self.parties if survivors is None else survivors
        return self.noise_multiplier * self.clip * self.excess(count) / self.denominator

    def _event(self, rounds: int, share: Fraction) -> Event:
        if self.noise_multiplier == 0.0:
            return NonPrivate()
        sigma_squared, failure = Fraction(self.noise_multiplier) ** 2 * share, rounds * _failure(self.unit)
        if self.unit is Unit.SILO:
            return DiscreteGaussian(sigma_squared, 1, rounds, failure, DIVERGENCE)
        return SampledDiscreteGaussian(sigma_squared, 1, self.sampling_rate, rounds, failure, DIVERGENCE)


def _failure(unit: Unit) -> float:
    return DISTANCE_FAILURE + (ROUNDING_FAILURE if unit is Unit.RECORD else 0.0)
