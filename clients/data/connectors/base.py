"""What a connector is: a name, the keys that it reads in ``silo.yaml``, and a function from there to columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.tasks.schema import Schema
from quire.conf.strict_yaml import Entry
from quire.errors import DataError


@dataclass(frozen=True, eq=False)
class Raw:
    """Rows as a connector found them.

    Attributes
    ----------
    columns : mapping of str to numpy.ndarray, each of shape (n,)
        Numbers, or objects: texts, numbers, None where a value is missing. More than the schema asks for is fine.
    pixels : numpy.ndarray of uint8, shape (n, channels, height, width), or None
        For images.
    """

    columns: Mapping[str, np.ndarray]
    pixels: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """One ``data:`` or ``test:`` section of a ``silo.yaml``, as a connector sees it.

    Attributes
    ----------
    entry : Entry
        The section.
    options : dict of str to Entry
        Its keys that belong to the connector.
    schema : Schema
        The agreed form of the rows.
    also : tuple of str
        Columns that the silo's own file asks for beside those of the schema.
    """

    entry: Entry
    options: dict[str, Entry]
    schema: Schema
    also: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the ``silo.yaml``: relative paths begin here."""
        return self.entry.file.parent

    @property
    def wanted(self) -> list[str]:
        """Names of the columns that the schema asks for, the target last; then those of the silo's own file."""
        return [*(column.name for column in self.schema.columns), self.schema.target.name, *self.also]

    def text(self, key: str, default: str | None = None) -> str:
        """Return an option that is a text; one without a default must be there."""
        if key in self.options:
            return self.options[key].text()
        if default is None:
            self.entry.fail(f"the connector needs the key '{key}'")
        return default

    def path(self, key: str = "path") -> Path:
        """Return an option that names a file or folder, which must exist."""
        path = self.folder / self.text(key)
        if not path.exists():
            self.options[key].fail(f"there is no {path}")
        return path

    def flag(self, key: str, default: bool) -> bool:
        """Return an option that is true or false."""
        return self.options[key].truth() if key in self.options else default

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an option that is a list of texts, an empty one where it is not there."""
        return self.options[key].texts() if key in self.options else ()

    def plain(self) -> dict[str, Any]:
        """Return all options as plain values: for a connector of one's own."""
        return {key: entry.plain() for key, entry in self.options.items()}

    def check_columns(self, there: Sequence[str], where: object) -> None:
        """Refuse a table that lacks a column of the schema, or has it twice: which one is meant, nobody can tell."""
        for name in self.wanted:
            if list(there).count(name) > 1:
                raise DataError(f"{where} has more than one column '{name}': leave it one.")
            if name not in there:
                asks = f"{self.entry.file}" if name in self.also else "the schema"
                raise DataError(f"{where} has no column '{name}', which {asks} asks for.")


def no_files(source: Source) -> tuple[Path, ...]:
    """Name no files: for what is not read from any."""
    return ()


def one_file(source: Source) -> tuple[Path, ...]:
    """Name the file at ``path``."""
    return (source.path(),)


@dataclass(frozen=True)
class Connector:
    """A way to read rows.

    Attributes
    ----------
    name : str
        What ``connector:`` in ``silo.yaml`` says. For a plug-in: also the name of its entry point.
    keys : frozenset of str
        The keys that it understands.
    read : callable
        From a :class:`Source` to :class:`Raw`. What goes wrong in an expected way is a ``DataError``.
    files : callable
        From a :class:`Source` to the files it reads, which must not change during a run.
    """

    name: str
    keys: frozenset[str]
    read: Callable[[Source], Raw]
    files: Callable[[Source], Sequence[Path]] = field(default=no_files)
