"""From what a connector found to rows: every value checked against the schema, features scaled by public bounds.

Messages name columns and count values; they never quote one, for a log is read by more people than a record is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quire.clients.data.connectors import Raw
from quire.clients.data.silo import Rows
from quire.clients.tasks.schema import Categorical, Label, Numeric, Schema, Target
from quire.errors import DataError

Marks = tuple[Label, ...]


def to_rows(raw: Raw, schema: Schema, missing: Marks, missing_in: Mapping[str, Marks], where: object) -> Rows:
    """Encode rows.

    Parameters
    ----------
    raw : Raw
        Columns as found, at least those of the schema.
    schema : Schema
    missing : tuple
        Marks of a missing value in every column. Nothing at all (an empty text, null) is always missing.
    missing_in : mapping of str to tuple
        Further marks, by column.
    where : object
        What the rows came from, for messages.

    Returns
    -------
    Rows
        Numeric features scaled from their public bounds to [-1, 1], clipped, NaN where missing; each category a
        feature of 0 or 1; pixels scaled to [-1, 1].

    Raises
    ------
    DataError
        If there are no rows, or values that the schema does not allow.
    """
    target = schema.target
    cells = _Cells(raw.columns, target.name, missing, where)
    if len(cells) == 0:
        raise DataError(f"{where} holds no rows.")
    y = _target(cells, target)
    if schema.image is not None:
        if raw.pixels is None or raw.pixels.dtype != np.uint8 or len(raw.pixels) != len(y):
            raise DataError(f"{where}: the connector gave no images, or another number of them than of labels.")
        if raw.pixels.shape[1:] != (schema.image.channels, schema.image.height, schema.image.width):
            raise DataError(f"{where}: the images have another form than the schema's.")
        pixels = raw.pixels.reshape(len(y), -1)
        return Rows(np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1.0), y)
    features = []
    for column in schema.columns:
        cells = _Cells(raw.columns, column.name, (*missing, *missing_in.get(column.name, ())), where)
        if len(cells) != len(y):
            raise DataError(f"{where}: the column '{column.name}' has another number of rows than '{target.name}'.")
        if not column.missing:
            cells.refuse(cells.missing, "missing values, which the schema does not allow")
        features.append(_numbers(cells, column) if isinstance(column, Numeric) else _indicators(cells, column))
    return Rows(np.concatenate(features, axis=1, dtype=np.float32), y)


class _Cells:
    """One column: its values as numbers and as texts, and which of them are missing."""

    def __init__(self, columns: Mapping[str, np.ndarray], name: str, marks: Marks, where: object) -> None:
        if name not in columns:
            raise DataError(f"{where} has no column '{name}', which the schema asks for.")
        self.name, self.where = name, where
        values = np.asarray(columns[name])
        if values.ndim != 1:
            raise DataError(f"{where}: the column '{name}' does not hold single values.")
        if values.dtype.kind in "iufb":
            self.numbers = values.astype(np.float64)
            self.missing = np.isnan(self.numbers)
            self.texts: list[str] | None = None
        else:
            self._read(values)
        for mark in marks:
            if isinstance(mark, float):
                self.missing = self.missing | (self.numbers == mark)
            elif self.texts is not None:
                self.missing = self.missing | np.array([text == mark for text in self.texts], dtype=bool)
            elif (number := _as_number(mark)) is not None:  # a quoted "-9" is -9 in a column of numbers
                self.missing = self.missing | (self.numbers == number)

    def __len__(self) -> int:
        return len(self.numbers)

    def _read(self, values: np.ndarray) -> None:
        import pandas as pd

        objects = values.astype(object)
        self.texts = ["" if cell is None else str(cell).strip() for cell in objects]
        self.missing = np.asarray(pd.isna(objects), dtype=bool) | np.array([text == "" for text in self.texts], bool)
        series = pd.Series(self.texts, dtype=object)
        self.numbers = np.asarray(pd.to_numeric(series, errors="coerce"), dtype=np.float64)

    def refuse(self, wrong: np.ndarray, words: str) -> None:
        """Raise if any value is wrong."""
        count = int(np.count_nonzero(wrong))
        if count:
            first = int(np.argmax(wrong)) + 1
            rows = f"in row {first}" if count == 1 else f"in {count} rows, the first of them row {first}"
            raise DataError(f"{self.where}: the column '{self.name}' has {words} ({rows}).")

    def places(self, labels: tuple[Label, ...]) -> np.ndarray:
        """Return the place of each value among some labels, -1 where it is none of them: int64, shape (n,)."""
        if all(isinstance(label, float) for label in labels):
            keys, values = np.array(labels, dtype=np.float64), self.numbers
            order = np.argsort(keys)
            spots = np.minimum(np.searchsorted(keys[order], np.nan_to_num(values)), len(keys) - 1)
            found = order[spots]
            return np.where(keys[found] == values, found, -1).astype(np.int64)
        known = {str(label): place for place, label in enumerate(labels)}
        texts = self.texts if self.texts is not None else [as_text(number) for number in self.numbers.tolist()]
        return np.array([known.get(text, -1) for text in texts], dtype=np.int64)


def as_text(number: float) -> str:
    """Write a number as a text file would: 1234567, not 1.23457e+06; 7 for 7.0."""
    return str(int(number)) if number.is_integer() else repr(float(number))


def _as_number(mark: str) -> float | None:
    try:
        return float(mark)
    except ValueError:
        return None


def _numbers(cells: _Cells, column: Numeric) -> np.ndarray:
    wrong = ~cells.missing & np.isnan(cells.numbers)
    cells.refuse(wrong, "values that are not numbers; declare it categorical, or name the mark of missing values")
    cells.refuse(~cells.missing & np.isinf(cells.numbers), "infinite values")
    unit = (np.clip(cells.numbers, column.low, column.high) - column.low) / (column.high - column.low)
    return np.where(cells.missing, np.nan, 2.0 * unit - 1.0)[:, None]


def _indicators(cells: _Cells, column: Categorical) -> np.ndarray:
    places = cells.places(column.categories)
    places[cells.missing] = -1
    if column.unknown == "error":
        cells.refuse(~cells.missing & (places < 0), "values that are none of the schema's categories")
    return np.asarray(places[:, None] == np.arange(len(column.categories)), dtype=np.float64)


def _target(cells: _Cells, target: Target) -> np.ndarray:
    cells.refuse(cells.missing, "missing values, but it is the target")
    if target.kind == "regression" or target.at_least is not None:
        cells.refuse(~np.isfinite(cells.numbers), "values that are not finite numbers")
    if target.kind == "regression":
        return np.asarray(2.0 * (cells.numbers - target.low) / (target.high - target.low) - 1.0, dtype=np.float32)
    if target.at_least is not None:
        return (cells.numbers >= target.at_least).astype(np.int64)
    places = cells.places(target.classes)
    cells.refuse(places < 0, "values that are none of the schema's classes")
    return places
