"""Whole tables, all columns of them, for a person who asks what they hold: of a silo's file, or a file by itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import yaml

from quire.clients.data.connectors import BUILT_IN, Source
from quire.clients.data.rules.cells import as_number
from quire.clients.data.rules.patterns import PATTERNS
from quire.clients.data.rules.words import DIRECT
from quire.clients.data.silo_file import read_silo
from quire.clients.tasks.schema import Schema, Target
from quire.conf.strict_yaml import Entry
from quire.errors import DataError

SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".csv.gz", ".tsv.gz", ".parquet")
_MISSING = frozenset({"?", "NA", "NaN", "nan", "null", "NULL"})


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


def read_table(path: Path, separator: str | None = None, header: bool = True) -> Table:
    """Read all columns of the table of a ``silo.yaml``, or of a CSV or Parquet file.

    Parameters
    ----------
    path : pathlib.Path
    separator : str or None
        Of a CSV file; None: the one of ``,``, ``;`` and tab that its first line has most of.
    header : bool
        Whether a CSV file begins with the names of its columns.

    Raises
    ------
    DataError
        If it cannot be read, or the first line of a CSV file holds values and not names.
    """
    if path.suffix in (".yaml", ".yml"):
        return _of_silo(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path} is neither a silo's YAML file nor one of {', '.join(SUFFIXES)}.")
    options: dict[str, object] = {"path": path.name}
    name = "parquet" if path.suffix == ".parquet" else "csv"
    if name == "csv":
        first = _first_line(path)
        options["separator"] = separator or max(",;\t", key=first.count)
        names = next(csv.reader([first], delimiter=str(options["separator"])), [])
        if header and _are_values([name.strip() for name in names]):
            raise DataError(f"The first line of {path} holds values and not names: say --no-header.")
        if not header:
            options["names"] = [f"column {place}" for place in range(1, len(names) + 1)]
    entry = Entry(path, cast(yaml.Node, yaml.compose(json.dumps(options))), "data")  # JSON is YAML
    source = _Everything(entry, entry.entries(), Schema((), None, Target("", "regression")))
    found = BUILT_IN[name].read(source)
    return Table(dict(found.columns), None, None, _MISSING)


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


def _first_line(path: Path) -> str:
    import gzip

    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            return lines.readline(1_000_000).removeprefix("\ufeff")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a text in UTF-8 ({type(error).__name__}).") from error


def _are_values(names: Sequence[str]) -> bool:
    """Tell whether what should be names are values: shown as names, they would be printed."""
    tests = [test for kind, _, _, test in PATTERNS if kind == DIRECT]
    values = [name for name in names if as_number(name) is not None or any(test(name) for test in tests[:-1])]
    return 2 * len(values) > len(names) or len(set(names)) < len(names)
