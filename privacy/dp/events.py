"""What was released, as frozen events: the language between mechanisms, accountants, ledgers and cards.

An event says which mechanism ran how often, in public numbers only. It does not know how it is accounted; an
accountant that does not understand an event has to raise :class:`EventError`, never to count it as nothing (the shape
of Google's dp-accounting).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from quire.privacy.dp.contract import PrivacyError

MAX_COUNT = 10**12


class EventError(PrivacyError):
    """An event that is malformed, or that an accountant does not know."""


def _noise(value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, float | int) or not (math.isfinite(value) and value > 0):
        raise EventError(
            f"A noise multiplier has to be a finite number above 0, not {value!r}: without noise the event is "
            "NonPrivate."
        )


def _rate(value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value <= 1:
        raise EventError(f"A sampling rate has to be in (0, 1], not {value!r}.")


def _count(value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise EventError(f"An event counts whole releases from 1 to {MAX_COUNT}, not {value!r}.")


def _small(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 <= value < 1:
        raise EventError(f"{name} has to be in [0, 1), not {value!r}.")


def _exact(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | Fraction) or value <= 0:
        raise EventError(f"{name} has to be an exact number (int or Fraction) above 0, not {value!r}.")


@dataclass(frozen=True)
class NonPrivate:
    """Something left without noise: it costs everything, at every order."""


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian mechanism over everybody (no sampling), ``count`` times.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation over the L2 sensitivity.
    count : int
        Number of releases.
    """

    noise_multiplier: float
    count: int = 1

    def __post_init__(self) -> None:
        _noise(self.noise_multiplier)
        _count(self.count)


@dataclass(frozen=True)
class SampledGaussian:
    """The Gaussian mechanism over a Poisson sample, ``steps`` times: one step of DP-SGD each.

    Attributes
    ----------
    noise_multiplier : float
        Standard deviation over the clip.
    sampling_rate : float
        Probability with which each record, independently and in secret, is in a step.
    steps : int
        Number of steps.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        _noise(self.noise_multiplier)
        _rate(self.sampling_rate)
        _count(self.steps)


@dataclass(frozen=True)
class DiscreteGaussian:
    """The discrete Gaussian mechanism on integer vectors, over everybody, ``count`` times.

    Attributes
    ----------
    sigma_squared : int or Fraction
        The parameter of the noise that the observer does not know, in squared integer units: the *sum* of the
        parameters of the shares that count.
    delta2_squared : int or Fraction
        Squared L2 sensitivity, in squared integer units.
    count : int
        Number of releases.
    failure : float
        Probability, over all releases together, that a bound behind ``delta2_squared`` does not hold (steps * 2**-60
        for unconditional stochastic rounding). It is an additive term of delta.
    divergence : float
        How far the noise is from one discrete Gaussian, per release: the largest absolute log-ratio of the two
        probabilities, tau * dimension for a sum of shares (Kairouz, Liu and Steinke 2021); 0 for one share.
    """

    sigma_squared: Fraction | int
    delta2_squared: Fraction | int
    count: int = 1
    failure: float = 0.0
    divergence: float = 0.0

    def __post_init__(self) -> None:
        _exact("The squared noise parameter", self.sigma_squared)
        _exact("The squared sensitivity", self.delta2_squared)
        _count(self.count)
        _small("A failure probability", self.failure)
        _small("A divergence", self.divergence)

    @property
    def noise_multiplier(self) -> float:
        """Noise parameter over sensitivity, rounded down."""
        return _ratio(self.sigma_squared, self.delta2_squared)


@dataclass(frozen=True)
class SampledDiscreteGaussian:
    """The discrete Gaussian mechanism over a Poisson sample, ``steps`` times; see :class:`DiscreteGaussian`.

    Attributes
    ----------
    sigma_squared, delta2_squared : int or Fraction
        As in :class:`DiscreteGaussian`.
    sampling_rate : float
        As in :class:`SampledGaussian`.
    steps : int
        Number of steps.
    failure : float
        As in :class:`DiscreteGaussian`, over all steps together.
    divergence : float
        As in :class:`DiscreteGaussian`, per step.
    """

    sigma_squared: Fraction | int
    delta2_squared: Fraction | int
    sampling_rate: float
    steps: int
    failure: float = 0.0
    divergence: float = 0.0

    def __post_init__(self) -> None:
        _exact("The squared noise parameter", self.sigma_squared)
        _exact("The squared sensitivity", self.delta2_squared)
        _rate(self.sampling_rate)
        _count(self.steps)
        _small("A failure probability", self.failure)
        _small("A divergence", self.divergence)

    @property
    def noise_multiplier(self) -> float:
        """Noise parameter over sensitivity, rounded down."""
        return _ratio(self.sigma_squared, self.delta2_squared)


@dataclass(frozen=True)
class Geometric:
    """The two-sided geometric mechanism on a count, over everybody, ``count`` times: noise P(k) ~ exp(-epsilon |k|).

    The count moves by at most one with a record (Ghosh, Roughgarden and Sundararajan 2009, definition 2.2).

    Attributes
    ----------
    epsilon : int or Fraction
        Of one release, exact; pure, without a delta.
    count : int
        Number of releases.
    """

    epsilon: Fraction | int
    count: int = 1

    def __post_init__(self) -> None:
        _exact("The epsilon of geometric noise", self.epsilon)
        if not Fraction(1, 10**9) <= self.epsilon <= 1000:
            raise EventError(f"The epsilon of geometric noise is from 1e-9 to 1000, not {str(self.epsilon)[:40]}.")
        _count(self.count)

    @property
    def noise_multiplier(self) -> float:
        """Standard deviation of the noise; the sensitivity is 1."""
        epsilon = float(self.epsilon)
        return math.sqrt(2 * math.exp(-epsilon)) / -math.expm1(-epsilon)


Event = NonPrivate | Gaussian | SampledGaussian | DiscreteGaussian | SampledDiscreteGaussian | Geometric

KINDS: dict[str, type[Event]] = {
    "non_private": NonPrivate,
    "gaussian": Gaussian,
    "sampled_gaussian": SampledGaussian,
    "discrete_gaussian": DiscreteGaussian,
    "sampled_discrete_gaussian": SampledDiscreteGaussian,
    "geometric": Geometric,
}
_NAMES = {kind: name for name, kind in KINDS.items()}
_EXACT = ("sigma_squared", "delta2_squared", "epsilon")
_WHOLE = ("count", "steps")


def _ratio(sigma_squared: Fraction | int, delta2_squared: Fraction | int) -> float:
    """Return sqrt(sigma^2 / delta2^2) as a float that is not above the exact value."""
    exact = Fraction(sigma_squared) / Fraction(delta2_squared)
    root = math.sqrt(exact)
    while Fraction(root) ** 2 > exact:
        root = math.nextafter(root, 0.0)
    return root


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as a JSON object; exact numbers as strings ("4096" or "5/2"), floats as they are.

    Raises
    ------
    EventError
        If this is no event.
    """
    name = _NAMES.get(type(event))
    if name is None:
        raise EventError(f"{type(event).__name__} is no event that can be written down.")
    values = {item.name: getattr(event, item.name) for item in fields(event)}
    return {"kind": name} | {key: str(value) if key in _EXACT else value for key, value in values.items()}


def from_json(value: Mapping[str, Any]) -> Event:
    """Read an event, strictly: every field there, none unknown, every type as written by :func:`to_json`.

    Raises
    ------
    EventError
        Naming what is wrong; nothing is guessed or defaulted.
    """
    if not isinstance(value, Mapping):
        raise EventError(f"An event is an object with a kind, not {type(value).__name__}.")
    kind = KINDS.get(value.get("kind", "")) if isinstance(value.get("kind"), str) else None
    if kind is None:
        raise EventError(f"Unknown kind of event {value.get('kind')!r}; known are {', '.join(KINDS)}.")
    expected = {item.name for item in fields(kind)}
    found = set(value) - {"kind"}
    if found != expected:
        wrong = ", ".join(sorted(map(str, found ^ expected)))
        raise EventError(f"The event {value['kind']} has missing or unknown fields: {wrong}.")
    return kind(**{name: _read(name, value[name]) for name in expected})


def _read(name: str, value: object) -> Any:
    if name in _EXACT:
        return _read_exact(name, value)
    if isinstance(value, bool) or not isinstance(value, int if name in _WHOLE else float | int):
        raise EventError(f"The event's {name} is not a number of the right kind: {value!r}.")
    return value if name in _WHOLE else float(value)


def _read_exact(name: str, value: object) -> Fraction | int:
    """Read "4096" or "5/2", in lowest terms: one number has one spelling, so that hashes of events agree."""
    if isinstance(value, str) and len(value) <= 400:
        parts = value.split("/")
        if len(parts) <= 2 and all(part.isascii() and part.isdigit() for part in parts) and set(parts[-1]) != {"0"}:
            exact = Fraction(*map(int, parts))
            whole: Fraction | int = int(exact) if exact.denominator == 1 else exact
            if str(whole) == value:
                return whole
    raise EventError(f"The event's {name} has to be a string such as '4096' or '5/2', in lowest terms.")
