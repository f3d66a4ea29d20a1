"""How many rows a silo says that it has: declared, rounded, or with noise; never the number itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from quire.catalog.errors import BadOffer, CatalogError
from quire.catalog.form import closed
from quire.privacy.dp.counting import error_bound

DECLARED, ROUNDED, NOISY, KEPT = "declared", "rounded", "dp", "kept"
MOST = 10**12
_EPSILON = re.compile(r"(?:0|[1-9][0-9]?)(?:\.[0-9]{1,4})?")
_LEAST, _MOST = Fraction(1, 1000), Fraction(10)


@dataclass(frozen=True)
class Count:
    """A number of rows in the form that it is told in.

    Attributes
    ----------
    form : {"declared", "rounded", "dp"}
    rows : int
    to : int or None
        Of a rounded one: the power of ten that it is a multiple of.
    epsilon : str or None
        Of a noisy one, as it was given: decimal, as ``0.5``.
    """

    form: str
    rows: int
    to: int | None = None
    epsilon: str | None = None

    @property
    def words(self) -> str:
        """What it says, as a person reads it."""
        if self.form == DECLARED:
            return f"{self.rows:,} rows, declared"
        if self.form == ROUNDED:
            return f"about {self.rows:,} rows, rounded to {self.to:,}"
        off = error_bound(Fraction(self.epsilon or "1"))
        return f"about {self.rows:,} rows, with noise for epsilon {self.epsilon} (within {off:,} in 19 of 20 cases)"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"form": self.form, "rows": self.rows, "to": self.to, "epsilon": self.epsilon}

    @classmethod
    def from_json(cls, value: Any) -> Count:
        """Read what :meth:`to_json` returned, strictly.

        Raises
        ------
        BadOffer
            If it cannot have been that.
        """
        found = closed(value, {"form", "rows", "to", "epsilon"}, "The number of rows")
        form, rows, to, epsilon = found["form"], found["rows"], found["to"], found["epsilon"]
        if type(rows) is not int or not 0 <= rows <= MOST:
            raise BadOffer(f"The number of rows is a whole number from 0 to {MOST}.")
        if form not in (DECLARED, ROUNDED, NOISY) or (to is None) != (form != ROUNDED):
            raise BadOffer("A number of rows is declared, rounded or dp, and only a rounded one says to what.")
        if (epsilon is None) != (form != NOISY) or (epsilon is not None and _spent(epsilon) is None):
            raise BadOffer("A number of rows with noise, and no other, says its epsilon: 0.001 to 10.")
        if form == ROUNDED and (type(to) is not int or to != grid(to) or rows % to or rows > 10 * to):
            raise BadOffer("A rounded number of rows is a power of ten, at least ten, times 0 to 10.")
        return cls(form, rows, to, epsilon)


def grid(rows: int) -> int:
    """Return what a number of rows is rounded to: the power of ten of its first digit, and at least ten."""
    return max(10, int(10 ** (len(str(rows)) - 1)))


def rounded(rows: int) -> Count:
    """Return a number of rows by its first digit: 303 as 300, 1350 as 1000, 7 as 10. No differential privacy."""
    to = grid(rows)
    return Count(ROUNDED, (2 * rows + to) // (2 * to) * to, to)


@dataclass(frozen=True)
class Asked:
    """What ``--count`` asks for.

    Attributes
    ----------
    form : {"declared", "rounded", "dp", "kept"}
    text : str
        What follows the colon: an epsilon, or a file.
    """

    form: str
    text: str = ""

    @property
    def epsilon(self) -> Fraction:
        """Of a noisy one."""
        return Fraction(self.text)

    @classmethod
    def of(cls, text: str) -> Asked:
        """Read ``declared``, ``rounded``, ``dp:0.5`` or ``kept:offer.json``.

        Raises
        ------
        CatalogError
            If it is none of them.
        """
        form, colon, rest = text.partition(":")
        if form in (DECLARED, ROUNDED) and not colon:
            return cls(form)
        if form == KEPT and rest:
            return cls(form, rest)
        if form == NOISY and _spent(rest) is not None:
            return cls(form, rest)
        if form == NOISY:
            raise CatalogError(
                "--count dp:EPSILON takes a number from 0.001 to 10 with at most four decimals, as in dp:0.5."
            )
        raise CatalogError("--count takes declared, rounded, dp:EPSILON, or kept:FILE with an earlier offer.")


def _spent(text: Any) -> Fraction | None:
    """Read the epsilon of a count; None if it is none."""
    if not isinstance(text, str) or not _EPSILON.fullmatch(text):
        return None
    return found if _LEAST <= (found := Fraction(text)) <= _MOST else None
