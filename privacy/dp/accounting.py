"""From events to epsilon, on dp-accounting: RDP as the figure of record, PLD as the tight estimate.

RDP is kept as one vector over :data:`ORDERS`, the same everywhere and for ever, because a ledger adds vectors of
runs that lie years apart. dp-accounting is imported where it is used: that costs most of a second.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import (
    DiscreteGaussian,
    Event,
    EventError,
    Gaussian,
    Geometric,
    NonPrivate,
    SampledDiscreteGaussian,
    SampledGaussian,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quire.privacy.dp.spending import Spending

GRID = "quire-orders-1"
"""The name of :data:`ORDERS`; it changes if ever the grid does, so that vectors of two grids cannot be added."""

ORDERS: tuple[float, ...] = (
    1.05,
    *(1 + step / 10 for step in range(1, 31)),
    *(4 + step / 4 for step in range(1, 17)),
    *(8 + step / 2 for step in range(1, 17)),
    *(float(order) for order in range(17, 65)),
    *map(float, (72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 768, 1024)),
)
"""Renyi orders: dense where epsilon is 0.1 to 50 at delta 1e-4 to 1e-9, every integer up to 64 for discrete noise."""


def rdp(event: Event) -> NDArray[np.float64]:
    """Return the Renyi differential privacy of an event at every order of :data:`ORDERS`.

    Parameters
    ----------
    event : Event
        All its repetitions together. Additive terms of delta are not in here, see :func:`failure`.

    Returns
    -------
    numpy.ndarray of float64, shape (len(ORDERS),)
        Never negative; infinite for :class:`~quire.privacy.dp.events.NonPrivate`.

    Raises
    ------
    EventError
        For anything that is not understood here. Nothing is ever counted as zero.

    Notes
    -----
    Gaussian: Mironov (2017), proposition 7. Sampled Gaussian: Mironov, Talwar and Zhang (2019), section 3.3, both as
    dp-accounting computes them. Discrete Gaussian: at most the Gaussian's RDP at every order (Canonne, Kamath and
    Steinke 2020, proposition 5). **Ours** is the sampled discrete Gaussian: the Gaussian's value at integer orders,
    on the chord between integers; the argument is in docs/accounting.md and checked numerically in tests.

    Noise that is no discrete Gaussian but within a factor exp(±x) of one (a sum of shares) adds
    ``x * (2 * order - 1) / (order - 1)`` per release: replacing P by P' and Q by Q' in the integral of P^a Q^(1-a)
    multiplies it by at most exp(a x) exp((a - 1) x).

    Geometric noise on a count: its privacy loss is epsilon or -epsilon and nothing between, so its RDP is that of
    randomised response (Mironov 2017, proposition 5), exactly.
    """
    orders = np.array(ORDERS)
    match event:
        case NonPrivate():
            return np.full(len(ORDERS), np.inf)
        case Gaussian(z, count):
            return np.asarray(count * one_step(float(z), 1.0))
        case SampledGaussian(z, rate, steps):
            return np.asarray(steps * one_step(float(z), float(rate)))
        case DiscreteGaussian() as one:
            surcharge = one.divergence * (2 * orders - 1) / (orders - 1)
            return np.asarray(one.count * (one_step(one.noise_multiplier, 1.0) + surcharge))
        case SampledDiscreteGaussian() as one:
            surcharge = one.divergence * (2 * orders - 1) / (orders - 1)
            vector = one_step(one.noise_multiplier, float(one.sampling_rate), discrete=True)
            return np.asarray(one.steps * (vector + surcharge))
        case Geometric(epsilon_of_one, count):
            return np.asarray(count * _two_outcomes(float(epsilon_of_one)))
        case _:
            raise EventError(f"{type(event).__name__} cannot be accounted: no formula is known for it here.")


def failure(event: Event) -> float:
    """Return the additive term of delta that comes with an event: the probability that a bound behind it fails."""
    return float(event.failure) if isinstance(event, DiscreteGaussian | SampledDiscreteGaussian) else 0.0


@lru_cache(maxsize=4096)
def one_step(noise_multiplier: float, sampling_rate: float, *, discrete: bool = False) -> NDArray[np.float64]:
    """Return the RDP of one (sampled, discrete) Gaussian release, by dp-accounting's RDP accountant.

    Parameters
    ----------
    noise_multiplier : float
        Above 0.
    sampling_rate : float
        In (0, 1].
    discrete : bool
        Whether only integer orders are known.

    Returns
    -------
    numpy.ndarray of float64, shape (len(ORDERS),)
        Read-only, and kept in memory: calibration asks again and again.
    """
    vector: NDArray[np.float64] = rdp_at(ORDERS, noise_multiplier, sampling_rate)
    known = np.isfinite(vector)
    if discrete and sampling_rate < 1:
        known &= np.array([order.is_integer() for order in ORDERS])
    if sampling_rate < 1:
        # (order - 1) * RDP is convex in the order and 0 at order 1 (it is a cumulant generating function; Wang, Balle
        # and Kasiviswanathan 2019, corollary 10): a chord bounds it where only its ends are known. That is so between
        # integers for discrete noise, and at orders near 1 where the library's series does not converge (sampling
        # rates about one half) and reports infinity. And sampling never costs more than taking everybody.
        above = np.array(ORDERS) - 1
        ends = np.concatenate([[0.0], above[known]])
        chord = np.interp(above, ends, np.concatenate([[0.0], above[known] * vector[known]])) / above
        vector = np.minimum(np.where(known, vector, chord), np.array(ORDERS) / (2 * noise_multiplier**2))
    vector = np.minimum.accumulate(vector[::-1])[::-1].copy()  # RDP grows with the order; rounding aside
    vector.flags.writeable = False
    return vector


def _two_outcomes(epsilon: float) -> NDArray[np.float64]:
    """Return the RDP of randomised response with this epsilon, at every order of :data:`ORDERS`."""
    above = np.array(ORDERS) - 1
    exact = (np.logaddexp(above * epsilon, -(above + 1) * epsilon) - np.log1p(np.exp(-epsilon))) / above
    # The rounding of the difference, then the two bounds of every epsilon: itself, and Bun and Steinke 2016, 1.4.
    upper = exact + 1e-14 * (1 + epsilon / above)
    return np.asarray(np.minimum(upper, np.minimum(epsilon, epsilon**2 * (above + 1) / 2)))


def rdp_at(orders: Sequence[float], noise_multiplier: float, sampling_rate: float) -> NDArray[np.float64]:
    """Return the RDP of one (sampled) Gaussian release at some orders, as dp-accounting computes it."""
    library = _library()
    accountant = library.rdp.RdpAccountant(orders)
    accountant.compose(_sampled(library, noise_multiplier, sampling_rate))
    vector: NDArray[np.float64] = np.maximum(np.asarray(accountant._rdp, dtype=np.float64), 0.0)  # -1e-17 is rounding
    return vector


def convert(orders: Sequence[float], vector: NDArray[np.float64], delta: float) -> tuple[float, float]:
    """Return the epsilon of an RDP vector at a delta, and the order that gives it, as dp-accounting does."""
    value, order = _library().rdp.compute_epsilon(orders, vector, delta)
    return max(0.0, float(value)), float(order)


def epsilon(spending: Spending, delta: float) -> float:
    """Return the epsilon of what was spent at a delta: the figure of record.

    Parameters
    ----------
    spending : Spending
        RDP over :data:`ORDERS` and the additive terms of delta, which are subtracted from ``delta`` first.
    delta : float
        In (0, 1).

    Returns
    -------
    float
        At least 0; infinite if what was spent has no bound, or if the additive terms alone reach ``delta``.

    Raises
    ------
    PrivacyError
        If ``delta`` is not in (0, 1).

    Notes
    -----
    The conversion is dp-accounting's: Canonne, Kamath and Steinke (2020), proposition 12, at the best order.
    """
    check_delta(delta)
    left = delta - spending.delta
    if left <= 0 or np.all(np.isinf(spending.rdp)):
        return math.inf
    return convert(ORDERS, spending.rdp, left)[0]


def tight_epsilon(events: Iterable[Event], delta: float, interval: float | None = None) -> float:
    """Return the epsilon of events by composing privacy loss distributions: the tight estimate, not for the ledger.

    Parameters
    ----------
    events : iterable of Event
        Composed together, in any order.
    delta : float
        In (0, 1); the events' additive terms are subtracted from it.
    interval : float, optional
        Width of the discretised privacy loss. Losses are rounded pessimistically: a finer one is tighter, and slower.
        By default 1e-4 where the figure of record is below 1, and 5e-4 above; both cost less than 1 % of epsilon up
        to 10,000 steps.

    Returns
    -------
    float
        At least 0, or infinite. An upper bound (up to floating point) for Gaussian noise; for discrete noise the
        Gaussian of the same parameter stands in, which is an estimate.

    Raises
    ------
    EventError
        For an event without a privacy loss distribution here.
    PrivacyError
        If ``delta`` is not in (0, 1).
    """
    check_delta(delta)
    released = tuple(events)
    left = delta - math.fsum(failure(event) for event in released)
    if left <= 0 or any(isinstance(event, NonPrivate) for event in released):
        return math.inf
    if interval is None:
        whole = np.sum([rdp(event) for event in released], axis=0) if released else np.zeros(len(ORDERS))
        interval = 1e-4 if convert(ORDERS, whole, left)[0] < 1 else 5e-4
    return _tight(released, left, interval)


@lru_cache(maxsize=1024)  # the silos of a card often have the same events
def _tight(events: tuple[Event, ...], delta: float, interval: float) -> float:
    accountant, divergence = _composed(events, interval)
    # (eps, delta) for P, Q turns into (eps + 2x, e^x delta) for P', Q' that are within exp(±x) of them.
    return max(0.0, float(accountant.get_epsilon(delta * math.exp(-divergence)))) + 2 * divergence


@lru_cache(maxsize=64)
def _composed(events: tuple[Event, ...], interval: float) -> tuple[Any, float]:
    """Return a PLD accountant that has composed the events, and the sum of their divergences."""
    library = _library()
    accountant = library.pld.PLDAccountant(value_discretization_interval=interval)
    divergence = 0.0
    for event in events:
        match event:
            case Gaussian(z, count):
                accountant.compose(library.GaussianDpEvent(z), count)
            case SampledGaussian(z, rate, count):
                accountant.compose(_sampled(library, z, rate), count)
            case DiscreteGaussian() as one:
                accountant.compose(library.GaussianDpEvent(one.noise_multiplier), one.count)
                divergence += one.count * one.divergence
            case SampledDiscreteGaussian() as one:
                accountant.compose(_sampled(library, one.noise_multiplier, one.sampling_rate), one.steps)
                divergence += one.steps * one.divergence
            case _:
                raise EventError(f"{type(event).__name__} cannot be accounted: no formula is known for it here.")
    return accountant, divergence


def _sampled(library: Any, noise_multiplier: float, sampling_rate: float) -> Any:
    event = library.GaussianDpEvent(noise_multiplier)
    return event if sampling_rate == 1 else library.PoissonSampledDpEvent(sampling_rate, event)


def default_delta(records: int) -> float:
    """Return the delta of the record unit for a public number of records: ``min(1e-5, 1 / (10 * records))``."""
    if records < 1:
        raise PrivacyError(f"A silo declares at least one record, not {records}.")
    return min(1e-5, 1 / (10 * records))


def check_delta(delta: float, records: int | None = None) -> None:
    """Refuse a delta that promises nothing.

    Parameters
    ----------
    delta : float
    records : int, optional
        The public number of records, for the record unit: a delta of 1/records would let a mechanism publish one
        record in full.

    Raises
    ------
    PrivacyError
        Unless 0 < delta < 1, and below 1/records where that is given.
    """
    if not 0 < delta < 1:
        raise PrivacyError(f"delta has to be above 0 and below 1, not {delta}.")
    if records is not None:
        if records < 1:
            raise PrivacyError(f"A silo declares at least one record, not {records}.")
        if delta >= 1 / records:
            raise PrivacyError(
                f"delta {delta:g} is not below 1/{records}, one over the number of records: it would allow one record "
                f"to be published; take at most {default_delta(records):g}."
            )


class _Repaired(logging.Filter):
    """Drop the library's warning about orders that :func:`_one_step` repairs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "_compute_log_a_frac failed to converge" not in record.getMessage()


@lru_cache(maxsize=1)
def _library() -> Any:
    """Import dp-accounting on first use."""
    import dp_accounting

    logging.getLogger("absl").addFilter(_Repaired())
    return dp_accounting
