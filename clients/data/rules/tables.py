"""Whole tables, all columns of them, for a person who asks what they hold: of a silo's file, or a file by itself."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import yaml

from quire.clients.data.connectors import BUILT_IN, Source
from quire.clients.data.rules.patterns import PATTERNS, is_person
from quire.clients.data.silo_file import read_silo
from quire.clients.tasks.schema import Schema, Target
from quire.conf.strict_yaml import Entry
from quire.errors import DataError

SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".csv.gz", ".tsv.gz", ".parquet")
_MISSING = frozenset({"?", "NA", "NaN", "nan", "null", "NULL"})
_START = yaml.Mark("", 0, 0, 0, "", 0)


@dataclass(frozen=True)
class Table:
    """A table as it lies there.

    Attributes
    ----------
    columns : dict of str to numpy.ndarray
    target : str or None
        What is learned, where a schema says so.
    wanted : tuple of str or None
        The columns that the schema asks for; None without one.
    missing : frozenset of str
        Marks of missing values.
    """

    columns: dict[str, np.ndarray]
    target: str | None
    wanted: tuple[str, ...] | None
    missing: frozenset[str]


@dataclass(frozen=True, eq=False)
class _Everything(Source):
    """A source that wants all columns that there are, as soon as the connector has told which."""

    there: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> list[str]:
        return self.there or super().wanted

    def check_columns(self, there: Sequence[str], where: object) -> None:
        self.there[:] = there


def read_table(path: Path, separator: str | None = None, header: bool | None = None) -> Table:
    """Read all columns of the table of a ``silo.yaml``, or of a CSV or Parquet file.

    Parameters
    ----------
    path : pathlib.Path
    separator : str or None
        Of a CSV file, one character, or a tab as it is typed, ``\\t``; None: the one of ``,``, ``;`` and tab that its
        first line has most of.
    header : bool or None
        Whether a CSV file begins with the names of its columns; None: it does, unless one of them looks like a value.

    Raises
    ------
    DataError
        If it cannot be read, or the first line of a CSV file seems to hold a value in the place of a name.
    """
    if path.suffix in (".yaml", ".yml"):
        return _of_silo(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path} is neither a silo's YAML file nor one of {', '.join(SUFFIXES)}.")
    if path.suffix == ".parquet":
        return Table(_all_of(path, "parquet", {}), None, None, _MISSING)
    separator, names = _first_row(path, _separator(separator))
    if header is None:
        _refuse_values(path, names)
    said: dict[str, str | list[str]] = {"separator": separator}
    if header is False:
        said["names"] = [f"column {place}" for place in range(1, len(names) + 1)]
    columns = _all_of(path, "csv", said)
    if header is None:  # once more, as the connector has read them
        _refuse_values(path, list(columns))
    return Table(columns, None, None, _MISSING)


def _all_of(path: Path, name: str, said: dict[str, str | list[str]]) -> dict[str, np.ndarray]:
    """Read all columns of a file by a connector, as if a ``silo.yaml`` beside it said so."""
    options = {key: Entry(path, _node(value), key) for key, value in (("path", path.name), *said.items())}
    source = _Everything(Entry(path, _node([]), "data"), options, Schema((), None, Target("", "regression")))
    return dict(BUILT_IN[name].read(source).columns)


def _node(value: str | list[str]) -> yaml.Node:
    """Return what YAML would read for a value: not by way of YAML, which cannot spell every name of a file."""
    if isinstance(value, str):
        return yaml.ScalarNode("tag:yaml.org,2002:str", value, _START, _START)
    return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(item) for item in value], _START, _START)


def _of_silo(path: Path) -> Table:
    silo = read_silo(path)
    section, schema = silo.data, silo.schema
    if schema.image is not None:
        raise DataError(f"{path} reads images, which have no columns.")
    source = section.source
    raw = section.connector.read(_Everything(source.entry, source.options, schema))
    wanted = (*(column.name for column in schema.columns), schema.target.name)
    marks = frozenset(f"{mark:g}" if isinstance(mark, float) else mark for mark in section.missing)
    return Table(dict(raw.columns), schema.target.name, wanted, marks)


def _separator(typed: str | None) -> str | None:
    separator = "\t" if typed == "\\t" else typed
    if separator is not None and (len(separator) != 1 or separator in '\0\r\n"'):
        raise DataError("A separator is one character, as in --separator ';', and no quote or end of a line.")
    return separator


def _first_row(path: Path, separator: str | None) -> tuple[str, list[str]]:
    """Return the separator of a CSV file, and the cells of the first of its lines that is not empty."""
    import gzip

    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as lines:
            first = next((line for line in lines if line.strip()), "")
            separator = separator or max(",;\t", key=first.count)
            rows = csv.reader(chain([first], lines), delimiter=separator, skipinitialspace=True)
            return separator, [name.strip() for name in next(rows, [])]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as a text in UTF-8 ({type(error).__name__}).") from error
    except csv.Error as error:
        raise DataError(f"The first line of {path} cannot be read as CSV: {error}.") from error


def _refuse_values(path: Path, names: Sequence[str]) -> None:
    """Refuse names one of which looks like a value: shown as names, values would be printed."""
    for place, name in enumerate(names):
        if _is_value(name) or (name and name in names[:place]):
            raise DataError(
                f"The first line of {path} has what looks like a value in the place of a name (column {place + 1}): "
                "say --no-header if it holds values, or --header if you have looked and they are names."
            )


def _is_value(name: str) -> bool:
    """Tell whether a name has the form of a value; names of people have that of titles, and are not noticed."""
    try:
        float(name.replace(",", "."))  # an infinite one is no name either
    except ValueError:
        return any(test(name) for *_, test in PATTERNS if test is not is_person)
    return True
