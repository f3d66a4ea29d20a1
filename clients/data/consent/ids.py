"""Subject ids as exact text: white space around them is taken off, and nothing else is made equal.

``007`` and ``7`` are two subjects. Guessing would put one person's withdrawal on another's rows.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

from quire.errors import DataError

#: Characters of an id. More is a column of something else.
MAX_ID = 256
_EXACT = 2.0**53  # from here on a float no longer tells neighbouring integers apart


def ids_of(values: np.ndarray, name: str, where: object, missing: Collection[str] = ()) -> list[str | None]:
    """Return the ids of a column.

    Parameters
    ----------
    values : numpy.ndarray of shape (n,)
        As a connector found them.
    name : str
        Of the column, for messages; they never quote an id.
    where : object
        What it came from, for messages.
    missing : collection of str
        Marks of a missing value, beside nothing at all and the empty text.

    Returns
    -------
    list of str or None
        None where there is no id.

    Raises
    ------
    DataError
        If a value is neither a text nor a whole number that is known exactly, or is too long for an id.
    """
    if values.ndim != 1:
        raise DataError(f"{where}: the column '{name}' does not hold single values.")
    found: list[str | None] = []
    for row, value in enumerate(values.tolist(), start=1):
        text = value.strip() if type(value) is str else _text(value)
        if text is None:
            raise DataError(
                f"{where}: the column '{name}' has a subject id that is neither a text nor an exact whole number (row "
                f"{row}); store ids as texts."
            )
        if len(text) > MAX_ID:
            raise DataError(f"{where}: the column '{name}' has an id of more than {MAX_ID} characters (row {row}).")
        found.append(text if text and text not in missing else None)
    return found


def one_id(text: str, where: object) -> str:
    """Return a single id that a person gave.

    Raises
    ------
    DataError
        If there is none, more than one line, it is too long, or has characters that nobody can see.
    """
    found = text.strip()
    if not found or len(found) > MAX_ID or len(found.splitlines()) != 1 or not found.isprintable():
        raise DataError(f"{where} does not hold one subject id: one line of 1 to {MAX_ID} printable characters.")
    return found


def _text(value: Any) -> str | None:
    """Return an id as text, an empty one where there is none; None where it cannot be one."""
    if value is None or _is_nothing(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return str(int(value)) if abs(int(value)) < 10**MAX_ID else None
    if isinstance(value, float | np.floating):
        return str(int(value)) if abs(float(value)) < _EXACT and float(value).is_integer() else None
    if isinstance(value, Decimal):
        whole = value.is_finite() and abs(value) < Decimal(10) ** MAX_ID and value == value.to_integral_value()
        return str(int(value)) if whole else None
    return str(value) if isinstance(value, UUID) else None


def _is_nothing(value: Any) -> bool:
    import pandas as pd

    return value is pd.NA or value is pd.NaT or (isinstance(value, float | np.floating) and bool(np.isnan(value)))
