"""What a run asks of a silo and what it costs its records, reckoned by the silo from its own public figures.

Nothing that a server claims goes into the noise: only the composed settings, and the number of records that the
operator declares. The number of rows that there really are goes in nowhere. No torch here: a policy is decided without
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

from quire.clients.secure.noise import noise_of
from quire.conf.schema import (
    DistributedPrivacy,
    NoPrivacy,
    RecordPrivacy,
    Settings,
    SgdTraining,
    SiloPrivacy,
)
from quire.privacy.dp.accounting import default_delta
from quire.privacy.dp.calibration import calibrate
from quire.privacy.dp.contract import PrivacyError, Unit, capped_weight
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.events import DiscreteGaussian, Event, NonPrivate, SampledDiscreteGaussian, SampledGaussian
from quire.privacy.dp.lattice import MAX_EPSILON
from quire.privacy.dp.release import FAILURE, silo_noise
from quire.privacy.dp.rounding import MAX_SUMMANDS
from quire.privacy.receipts import NOMINAL_DELTA

Privacy = NoPrivacy | RecordPrivacy | SiloPrivacy | DistributedPrivacy


@dataclass(frozen=True)
class Plan:
    """How a run is noised at one silo.

    Attributes
    ----------
    unit : Unit
    clip : float
        L2 norm of one unit's term.
    noise_multiplier : float
        Standard deviation of the noise over the clip; 0 is no noise, and costs everything.
    rate : float
        Probability of a record to be in a step, in (0, 1]; 1 for the silo unit.
    steps : int
        Noisy steps in one round; 1 for the silo unit.
    batch : int
        Public expected number of records in a step.
    discrete : bool
        Whether the noise is discrete.
    delta : float
        What the settings aim at.
    weight : float
        What the silo multiplies its clipped update by, in (0, 1]; 1 for the record unit.
    """

    unit: Unit
    clip: float
    noise_multiplier: float
    rate: float
    steps: int
    batch: int
    discrete: bool
    delta: float
    weight: float = 1.0

    def released(self, rounds: int) -> Event:
        """Return what so many rounds (at least 1) release, at the plan's own unit.

        Discrete noise is drawn with whole numbers as its parameters, for a model's number of parameters; their ratio
        never falls short of the multiplier that is accounted for here.
        """
        if self.noise_multiplier == 0.0:
            return NonPrivate()
        if self.unit is Unit.SILO:
            return self._whole_silo(self.noise_multiplier, rounds)
        steps = rounds * self.steps
        if not self.discrete:
            return SampledGaussian(self.noise_multiplier, self.rate, steps)
        return SampledDiscreteGaussian(Fraction(self.noise_multiplier) ** 2, 1, self.rate, steps, steps * FAILURE)

    def charged(self, rounds: int) -> Event:
        """Return what the same rounds cost the silo's *records*: what its ledger is charged.

        Where the unit is the silo, one record can move the clipped update anywhere in a ball of radius clip, so by
        at most twice the clip: the noise counts half.
        """
        if self.unit is Unit.SILO and self.noise_multiplier:
            return self._whole_silo(self.noise_multiplier / 2.0, rounds)
        return self.released(rounds)

    def _whole_silo(self, noise_multiplier: float, rounds: int) -> Event:
        return DiscreteGaussian(Fraction(noise_multiplier) ** 2, 1, rounds, rounds * FAILURE)


@dataclass(frozen=True)
class SharedPlan(Plan):
    """How a run is noised where silos share the noise; what it is charged follows from the silo's own assumptions.

    Attributes
    ----------
    noise : SharedNoise
        The run's public numbers.
    colluders : int
        That this silo reckons with: the more of its own policy's and the run's.
    """

    noise: SharedNoise = field(kw_only=True)
    colluders: int = field(kw_only=True)

    def released(self, rounds: int) -> Event:
        """Return what so many rounds release, at the plan's own unit."""
        return self.noise.released(rounds, self.colluders)

    def charged(self, rounds: int) -> Event:
        """Return what the same rounds cost the silo's records."""
        return self.noise.charged(rounds, self.colluders)


def plan_of(
    settings: Settings,
    records: int,
    told_clip: float | None = None,
    *,
    members: int | None = None,
    colluders: int = 0,
) -> Plan:
    """Calibrate the noise of a run for a public number of records; kept in memory.

    Parameters
    ----------
    settings : Settings
        With ``privacy`` other than none.
    records : int
        The operator's public count.
    told_clip : float, optional
        What the server says the clip is in a round, which only ``clipping=adaptive`` lets it say. The cost of a round
        is that of its noise multiplier, whatever the clip; see :mod:`quire.privacy.dp.adaptive` for the bits.

    members, colluders : int, optional
        Distributed noise: how many the pinned roster lists (by default, as many as the run has silos), and how many of
        them the silo's own policy reckons with.

    Raises
    ------
    PrivacyError
        If no noise reaches the target, batches cannot be drawn from so few records, or the clip is told that the
        settings have fixed; of distributed noise, if what the silo works out for itself is more than was promised, or
        its batches are larger than the run expects of any silo.
    """
    plan: Plan
    if isinstance(settings.privacy, DistributedPrivacy):
        plan = _shared_plan(settings.privacy, noise_of(settings, members), records, colluders)
    else:
        plan = _plan(settings.privacy, settings.training, settings.strategy.rounds, records)
    if told_clip is None or told_clip == plan.clip:
        return plan
    if not is_adaptive(settings.privacy) or not (math.isfinite(told_clip) and told_clip > 0.0):
        raise PrivacyError(f"The server tells a clip of {told_clip:g}, and the settings have {plan.clip:g}.")
    return replace(plan, clip=told_clip)


def is_adaptive(privacy: Privacy) -> bool:
    """Tell whether the server moves the clip from round to round, and needs every silo's bit for it."""
    return isinstance(privacy, SiloPrivacy) and privacy.clipping == "adaptive"


def steps_in_round(training: SgdTraining, records: int) -> int:
    """Return the number of noisy steps that a silo with so many records takes in one round."""
    return training.steps or training.epochs * math.ceil(records / training.batch_size)


def delta_of(privacy: Privacy, records: int) -> float:
    """Return the delta that settings aim at: their own, or the record unit's default, ``min(1e-5, 1/(10 N))``."""
    if isinstance(privacy, NoPrivacy):
        return 0.0
    return privacy.delta if privacy.delta is not None else default_delta(records)


@lru_cache(maxsize=4096)
def _plan(privacy: Privacy, training: SgdTraining, rounds: int, records: int) -> Plan:
    if not isinstance(privacy, NoPrivacy) and MAX_EPSILON < privacy.epsilon < math.inf:
        raise PrivacyError(
            f"privacy.epsilon={privacy.epsilon:g} is more than {MAX_EPSILON:g}, up to which what is accounted for "
            "holds; it would protect nobody: lower it, or take inf, which claims nothing."
        )
    if isinstance(privacy, RecordPrivacy):
        return _record_plan(privacy, training, rounds, records)
    if isinstance(privacy, SiloPrivacy):
        noise = silo_noise(privacy.epsilon, privacy.delta, rounds)
        weight = capped_weight(records, privacy.cap) if privacy.weights == "capped" else 1.0
        return Plan(Unit.SILO, privacy.clip, noise, 1.0, 1, 1, True, privacy.delta or 0.0, weight)
    raise PrivacyError("Without privacy there is nothing to plan.")


@lru_cache(maxsize=4096)
def _shared_plan(privacy: DistributedPrivacy, noise: SharedNoise, records: int, colluders: int) -> SharedPlan:
    delta, against = delta_of(privacy, records), max(colluders, noise.colluders)
    if noise.unit is Unit.RECORD:
        _hides_a_record(privacy.name, records, delta)
    plan = SharedPlan(
        noise.unit,
        noise.clip,
        noise.multiplier(against),
        noise.sampling_rate,
        1,
        math.ceil(noise.sampling_rate * records) if noise.unit is Unit.RECORD else 1,
        True,
        delta,
        noise=noise,
        colluders=against,
    )
    if noise.epsilon(delta or NOMINAL_DELTA, against) > privacy.epsilon:
        why = (
            f"{against} colluders, as this silo's policy has it, where aggregation.colluders={noise.colluders}"
            if against > noise.colluders
            else f"delta {delta:g}, which {records} declared records call for: privacy.largest is too small"
        )
        raise PrivacyError(
            f"The noise of the run does not keep to privacy.epsilon={privacy.epsilon:g} here, with {why}."
        )
    # By the silo's own count: what the run says of its largest silo is a claim of the server's.
    _adds_up(plan.batch, "lower privacy.sampling_rate")
    if plan.batch > noise.batch:
        # It would pass by itself, and with others make a sum that all take for a forged one; see dp/plausible.py.
        raise PrivacyError(
            f"{records} declared records are {plan.batch} in a batch, more than the {noise.batch} that the run expects "
            "of its largest silo: raise privacy.largest, and privacy.records with it."
        )
    return plan


def _adds_up(batch: int, remedy: str) -> None:
    """Refuse a batch so large that two float64 sums might differ in rounding by more than is accounted for."""
    if batch > MAX_SUMMANDS:
        raise PrivacyError(
            f"A batch of {batch} expected records is more than {MAX_SUMMANDS}, beyond which rounding in their sum "
            f"would not stay within what is accounted for: {remedy}."
        )


def _hides_a_record(name: str, records: int, delta: float) -> None:
    if records < 2:
        raise PrivacyError(f"A silo of one record cannot hide it among others: privacy={name} needs at least two.")
    if delta >= 1.0 / records:
        raise PrivacyError(
            f"privacy.delta={delta:g} is not below 1/{records}, one over the silo's records: publishing a record at "
            "random would keep to it; lower it, or leave it out for the default."
        )


def _record_plan(privacy: RecordPrivacy, training: SgdTraining, rounds: int, records: int) -> Plan:
    delta = delta_of(privacy, records)
    _hides_a_record(privacy.name, records, delta)
    if training.batch_size > records:
        raise PrivacyError(
            f"training.batch_size={training.batch_size} is larger than the silo's {records} records, out of which "
            "privacy=record draws its batches: lower it."
        )
    _adds_up(training.batch_size, "lower training.batch_size")
    steps, rate = steps_in_round(training, records), training.batch_size / records
    discrete = privacy.noise == "discrete"
    failure = rounds * steps * FAILURE if discrete else 0.0
    noise = calibrate(privacy.epsilon, delta, rounds * steps, rate, Unit.RECORD, discrete=discrete, failure=failure)
    return Plan(Unit.RECORD, privacy.clip, noise, rate, steps, training.batch_size, discrete, delta)
