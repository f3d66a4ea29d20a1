"""What has been spent, as something that can be added, written down exactly, and held against a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quire.privacy.dp import accounting
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import Event

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SpendingError(PrivacyError):
    """Something that cannot be a spending, or a budget that cannot be one."""


@dataclass(frozen=True)
class Budget:
    """What may be spent on one population: epsilon (at least 0, maybe infinite) at a delta in (0, 1)."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if math.isnan(self.epsilon) or self.epsilon < 0:
            raise SpendingError(f"A budget's epsilon has to be at least 0, not {self.epsilon}.")
        accounting.check_delta(self.delta)

    def fits(self, spending: Spending) -> bool:
        """Whether the spending's epsilon, at this budget's delta, is within this budget's epsilon."""
        return spending.epsilon(self.delta) <= self.epsilon


@dataclass(frozen=True, eq=False)
class Spending:
    """Renyi differential privacy over the fixed grid of orders, and the sum of additive terms of delta.

    Spendings add: the composition of mechanisms, adaptively chosen too, costs at most the sum at every order
    (Mironov 2017, proposition 1), and failure probabilities add by the union bound.

    Attributes
    ----------
    rdp : numpy.ndarray of float64, shape (len(ORDERS),)
        Read-only; at least 0, maybe infinite.
    delta : float
        Sum of the additive terms; at least 0.

    Raises
    ------
    SpendingError
        For a vector of another length, a negative number or NaN.
    """

    rdp: NDArray[np.float64]
    delta: float = 0.0

    def __post_init__(self) -> None:
        vector = np.array(self.rdp, dtype=np.float64)
        if vector.shape != (len(accounting.ORDERS),):
            raise SpendingError(f"A spending has {len(accounting.ORDERS)} orders, not the shape {vector.shape}.")
        if not np.all(vector >= 0) or not self.delta >= 0:
            raise SpendingError("A spending is never negative and never NaN.")
        vector.flags.writeable = False
        object.__setattr__(self, "rdp", vector)
        object.__setattr__(self, "delta", float(self.delta))

    @classmethod
    def zero(cls) -> Spending:
        """Return what nothing costs."""
        return cls(np.zeros(len(accounting.ORDERS)))

    @classmethod
    def of(cls, *events: Event) -> Spending:
        """Return what events cost together.

        Raises
        ------
        EventError
            For an event that cannot be accounted.
        """
        return cls.sum(cls(accounting.rdp(event), accounting.failure(event)) for event in events)

    @classmethod
    def sum(cls, spendings: Iterable[Spending]) -> Spending:
        """Add spendings, from the first to the last."""
        total = cls.zero()
        for spending in spendings:
            total = total + spending
        return total

    def __add__(self, other: Spending) -> Spending:
        if not isinstance(other, Spending):
            return NotImplemented
        return Spending(self.rdp + other.rdp, self.delta + other.delta)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spending):
            return NotImplemented
        return bool(np.array_equal(self.rdp, other.rdp)) and self.delta == other.delta

    def __hash__(self) -> int:
        return hash((self.rdp.tobytes(), self.delta))

    def epsilon(self, delta: float) -> float:
        """Return the epsilon at a delta in (0, 1); see :func:`quire.privacy.dp.accounting.epsilon`."""
        return accounting.epsilon(self, delta)

    def fits(self, budget: Budget) -> bool:
        """Whether this is within a budget."""
        return budget.fits(self)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which :meth:`from_json` reads the very same numbers.

        Finite floats are written by their shortest exact form, as Python's json does; infinity, which JSON has not,
        as the string "inf".
        """
        numbers = [_write(value) for value in self.rdp.tolist()]
        return {"grid": accounting.GRID, "rdp": numbers, "delta": _write(self.delta)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spending:
        """Read what :meth:`to_json` wrote, strictly.

        Raises
        ------
        SpendingError
            For another grid of orders, missing or unknown fields, or something that is no number.
        """
        if not isinstance(value, Mapping) or set(value) != {"grid", "rdp", "delta"}:
            raise SpendingError("A spending is an object with grid, rdp and delta, and nothing else.")
        if value["grid"] != accounting.GRID:
            raise SpendingError(f"This spending is on the grid {value['grid']!r}; only {accounting.GRID} can be added.")
        if not isinstance(value["rdp"], list):
            raise SpendingError("The rdp of a spending is a list of numbers.")
        return cls(np.array([_read(number) for number in value["rdp"]], dtype=np.float64), _read(value["delta"]))


def _write(value: float) -> float | str:
    return "inf" if value == math.inf else value


def _read(value: object) -> float:
    if value == "inf" and isinstance(value, str):
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpendingError(f"A spending consists of finite numbers and 'inf', not {value!r}.")
    return float(value)
