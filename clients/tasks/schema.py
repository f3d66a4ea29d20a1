"""The agreed form of the rows: ``schema.yaml``, a public file of which every party holds a copy.

It says which columns a row has, between which public bounds or in which categories, and what is to be learned. It
holds nothing that was computed from anybody's rows. Its hash travels, so that a silo with another form is found
out before the first round. Imports no torch: a silo that only says who it is reads it too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from quire.conf.strict_yaml import Entry, read_yaml

Label = str | float

MAX_CATEGORIES = 10_000
MAX_SIDE = 4096


@dataclass(frozen=True)
class Numeric:
    """A column of numbers.

    Attributes
    ----------
    low, high : float
        Public bounds; values outside are clipped to them.
    missing : bool
        Whether a value may be missing.
    impute : float
        What stands for a missing value under public preprocessing; the middle of the bounds by default.
    """

    name: str
    low: float
    high: float
    missing: bool
    impute: float


@dataclass(frozen=True)
class Categorical:
    """A column of categories, encoded as one feature for each of them.

    A missing value, where it may be missing, and an unknown one, where ``unknown`` is ``ignore``, become zeros.
    """

    name: str
    categories: tuple[Label, ...]
    missing: bool
    unknown: str


@dataclass(frozen=True)
class Target:
    """What is learned.

    Attributes
    ----------
    name : str
        Of the column, or for folders of images of the class.
    kind : str
        ``classification`` or ``regression``.
    classes : tuple
        Labels in the order of the classes; empty for regression.
    at_least : float or None
        Class 1 is every value from here on, class 0 every value below; then ``classes`` are only names.
    low, high : float
        Public bounds of a regression target, which is scaled by them and never clipped.
    """

    name: str
    kind: str
    classes: tuple[Label, ...] = ()
    at_least: float | None = None
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Image:
    """The form of an image: sides in pixels, and one channel (grey) or three (red, green, blue)."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class Schema:
    """The form of the rows: either columns or an image, and the target."""

    columns: tuple[Numeric | Categorical, ...]
    image: Image | None
    target: Target

    @cached_property
    def features(self) -> int:
        """Number of features after encoding."""
        if self.image is not None:
            return self.image.channels * self.image.height * self.image.width
        return len(self.numeric)

    @cached_property
    def numeric(self) -> np.ndarray:
        """Which features are numbers and not indicators of a category: bool, shape (features,)."""
        if self.image is not None:
            return np.ones(self.features, dtype=bool)
        widths = [1 if isinstance(column, Numeric) else len(column.categories) for column in self.columns]
        return np.repeat([isinstance(column, Numeric) for column in self.columns], widths)

    @cached_property
    def sha256(self) -> str:
        """Hash (hex) of what the schema says; comments and layout of the file do not count."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_schema(file: Path) -> Schema:
    """Read a ``schema.yaml``; a file that has not changed since is not parsed again.

    Raises
    ------
    DataError
        If the file cannot be read or says something that a schema does not have.
    """
    try:
        status = file.stat()
        return _read(file, status.st_size, status.st_mtime_ns)
    except OSError:
        return _parse(read_yaml(file))  # says why it cannot be read


@lru_cache(maxsize=64)
def _read(file: Path, size: int, changed: int) -> Schema:
    return _parse(read_yaml(file))


def _parse(root: Entry) -> Schema:
    found = root.mapping(["target"], ["columns", "image"])
    if ("columns" in found) == ("image" in found):
        root.fail("a schema has either 'columns' or 'image'")
    target = _target(found["target"])
    if "image" in found:
        if target.kind != "classification":
            found["target"].fail("images can only be told apart: kind must be classification")
        return Schema((), _image(found["image"]), target)
    columns = tuple(_column(entry) for entry in found["columns"].entries().values())
    if not columns:
        found["columns"].fail("there must be at least one column")
    if target.name in {column.name for column in columns}:
        found["target"].fail(f"the target '{target.name}' must not be one of the columns")
    return Schema(columns, None, target)


def _image(entry: Entry) -> Image:
    found = entry.mapping(["height", "width"], ["channels"])
    channels = found["channels"].whole(1, 3) if "channels" in found else 1
    if channels == 2:
        found["channels"].fail("an image has 1 channel or 3")
    return Image(found["height"].whole(1, MAX_SIDE), found["width"].whole(1, MAX_SIDE), channels)


def _column(entry: Entry) -> Numeric | Categorical:
    found = entry.mapping((), ["low", "high", "impute", "categories", "unknown", "missing"])
    missing = found["missing"].truth() if "missing" in found else False
    if "categories" in found:
        for key in ("low", "high", "impute"):
            if key in found:
                found[key].fail(f"a categorical column has no '{key}'")
        unknown = found["unknown"].text() if "unknown" in found else "error"
        if unknown not in ("error", "ignore"):
            found["unknown"].fail("'unknown' must be error or ignore")
        return Categorical(entry.key, _labels(found["categories"], 1), missing, unknown)
    if "low" not in found or "high" not in found:
        entry.fail(f"'{entry.key}' must have 'low' and 'high', or 'categories'")
    if "unknown" in found:
        found["unknown"].fail("only a categorical column has 'unknown'")
    low, high = _bounds(found["low"], found["high"])
    impute = found["impute"].number() if "impute" in found else (low + high) / 2
    if not low <= impute <= high:
        found["impute"].fail(f"'impute' must lie between {low:g} and {high:g}")
    return Numeric(entry.key, low, high, missing, impute)


def _target(entry: Entry) -> Target:
    found = entry.mapping(["name", "kind"], ["classes", "positive", "low", "high"])
    name, kind = found["name"].text(), found["kind"].text()
    if kind == "regression":
        found = entry.mapping(["name", "kind", "low", "high"])
        low, high = _bounds(found["low"], found["high"])
        return Target(name, kind, low=low, high=high)
    if kind != "classification":
        found["kind"].fail("'kind' must be classification or regression")
    found = entry.mapping(["name", "kind", "classes"], ["positive"])
    classes = _labels(found["classes"], 2)
    if "positive" not in found:
        return Target(name, kind, classes)
    at_least = found["positive"].mapping(["at_least"])["at_least"].number()
    if len(classes) != 2:
        found["positive"].fail("'positive' tells two classes apart: name two in 'classes'")
    return Target(name, kind, classes, at_least=at_least)


def _bounds(low: Entry, high: Entry) -> tuple[float, float]:
    if not low.number() < high.number():
        high.fail("'high' must be greater than 'low'")
    return low.number(), high.number()


def _labels(entry: Entry, fewest: int) -> tuple[Label, ...]:
    labels = entry.labels()
    if not fewest <= len(labels) <= MAX_CATEGORIES:
        entry.fail(f"'{entry.key}' must have from {fewest} to {MAX_CATEGORIES} entries, not {len(labels)}")
    if len({str(label) for label in labels}) != len(labels):
        entry.fail(f"'{entry.key}' has an entry twice")
    if len({type(label) for label in labels}) != 1:
        entry.fail(f"'{entry.key}' must be all numbers or all texts: put numbers in quotes to make them texts")
    return labels
