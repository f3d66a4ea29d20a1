"""Apply a silo's rules to what a connector found, before anything else sees a row.

Messages name columns and count rows; they never quote a value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np

from quire.clients.data.connectors import Raw
from quire.clients.data.rules.cells import Function, Value, as_number, as_text, guarded
from quire.clients.data.rules.columns import Columns
from quire.clients.data.rules.keys import column_key, secret_of
from quire.clients.tasks.schema import Label
from quire.errors import DataError

Marks = tuple[Label, ...]
_SAMPLE = 1000  # values that are looked at for two that are alike


def redacted(raw: Raw, columns: Columns | None, missing: Marks, missing_in: Mapping[str, Marks], where: object) -> Raw:
    """Leave out the columns that are not allowed, and put what its rule makes of it in the place of every value.

    Parameters
    ----------
    raw : Raw
        Columns as found; none of them is changed.
    columns : Columns or None
        None: everything stays as it is.
    missing : tuple
        Marks of a missing value in every column. What is missing stays missing.
    missing_in : mapping of str to tuple
        Further marks, by column.
    where : object
        What the rows came from, for messages.

    Returns
    -------
    Raw
        As many rows, in the same order. A column with a rule holds texts or numbers, None or NaN where missing.

    Raises
    ------
    DataError
        If a value has no place in its rule, or the key of a hash cannot be had.
    """
    if columns is None:
        return raw
    rules, kept = dict(columns.rules), {}
    secret = secret_of(columns) if columns.hashes else b""
    for name, values in raw.columns.items():
        if not columns.lets(name):
            continue
        rule = rules.get(name)
        if rule is None:
            kept[name] = values
            continue
        marks = (*missing, *missing_in.get(name, ()))
        function = guarded(rule, rule.function(column_key(secret, name) if secret else b""), marks)
        made = _applied(np.asarray(values), function, marks, f"{where}: the column '{name}'", rule.wrong)
        kept[name] = made.astype(np.float64) if rule.numeric else made
    return Raw(kept, raw.pixels)


def _applied(values: np.ndarray, function: Function, marks: Marks, what: str, wrong: str) -> np.ndarray:
    if values.ndim != 1:
        raise DataError(f"{what} does not hold single values.")
    texts, places = _texts(values)
    numbers = {mark for mark in marks if isinstance(mark, float)}
    gone = {"", *(mark for mark in marks if isinstance(mark, str))}
    if values.dtype.kind in "iufb":  # a quoted "-9" is -9 in a column of numbers
        numbers |= {number for word in gone if (number := as_number(word)) is not None}
    if numbers:
        gone |= {text for text in texts if as_number(text) in numbers}
    made, refused = _made(texts, function, gone)
    count = int(np.count_nonzero(refused[places]))
    if count:
        raise DataError(f"{what} has {wrong} (in {count} {'row' if count == 1 else 'rows'}).")
    array = np.empty(len(made), dtype=object)
    array[:] = made
    return np.asarray(array[places])


def _made(texts: list[str], function: Function, gone: set[str]) -> tuple[list[Value], np.ndarray]:
    """Return what stands for each text, None where it is missing; and which of them have no place in the rule."""
    made: list[Value] = [None] * len(texts)
    refused = np.zeros(len(texts), dtype=bool)
    if gone.isdisjoint(texts):
        with contextlib.suppress(ValueError):
            return list(map(function, texts)), refused
    for place, text in enumerate(texts):
        if text not in gone:
            try:
                made[place] = function(text)
            except ValueError:
                refused[place] = True
    return made, refused


def _texts(values: np.ndarray) -> tuple[list[str], np.ndarray | slice]:
    """Return texts, and which of them each row has: all of them in their order, where hardly two are alike.

    To look for equal ones costs about half of what a hash does, and is for nothing in a column of numbers of patients.
    """
    if values.dtype.kind not in "Miufb" and len(values):
        sample = values[:: -(-len(values) // _SAMPLE)].tolist()
        if all(isinstance(value, str) for value in sample) and len(set(sample)) == len(sample):
            objects = _objects(values)
            return list(map(str.strip, objects.tolist())), slice(None)
    return distinct(values)


def distinct(values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the values that there are as texts, nothing for what is missing; and of each row which one it has.

    Some may be there twice, if they differ by spaces around them only.
    """
    import pandas as pd

    if values.dtype.kind == "M":
        found, places = np.unique(values.astype("datetime64[us]"), return_inverse=True)
        return ["" if text == "NaT" else text for text in np.datetime_as_string(found).tolist()], places
    if values.dtype.kind in "iufb":
        found, places = np.unique(values, return_inverse=True)
        return [_text(value) for value in found.tolist()], places
    places, known = pd.factorize(_objects(values))
    return [text.strip() for text in known.tolist()], places


def _objects(values: np.ndarray) -> np.ndarray:
    """Return the values of a column of objects as texts, nothing for what is missing."""
    import pandas as pd

    objects = values.astype(object, copy=False)
    if pd.api.types.infer_dtype(objects, skipna=False) == "string":
        return objects
    gone = pd.isna(objects)
    texts = ["" if none else _text(value) for value, none in zip(objects.tolist(), gone.tolist(), strict=True)]
    objects = np.empty(len(texts), dtype=object)
    objects[:] = texts
    return objects


def _text(value: object) -> str:
    """Return a value as a text file has it; nothing for no number."""
    if isinstance(value, float):
        return "" if value != value else as_text(float(value)) or ""
    return str(value).strip()
