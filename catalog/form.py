"""The form of the rows, a schema, as a JSON object that travels; and back, read strictly from bytes of strangers.

What is written is all of :class:`quire.clients.tasks.schema.Schema` and no more, so that its hash can be taken anew.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from quire.catalog.errors import BadOffer
from quire.clients.tasks.schema import (
    MAX_CATEGORIES,
    MAX_SIDE,
    Categorical,
    Image,
    Label,
    Numeric,
    Schema,
    Target,
)

CLASSIFICATION, REGRESSION, IMAGES = "classification", "regression", "images"
KINDS = (CLASSIFICATION, REGRESSION, IMAGES)
MAX_NAME = 1000

_NUMERIC = {"kind", "name", "low", "high", "missing", "impute"}
_CATEGORICAL = {"kind", "name", "categories", "missing", "unknown"}
_TARGET = {"name", "kind", "classes", "at_least", "low", "high"}


def kind_of(schema: Schema) -> str:
    """Return what can be learned from rows of this form: one of :data:`KINDS`."""
    return IMAGES if schema.image is not None else schema.target.kind


def to_json(schema: Schema) -> dict[str, Any]:
    """Return a schema as a JSON object; columns in their order."""
    columns = [
        {"kind": "numeric" if isinstance(column, Numeric) else "categorical", **asdict(column)}
        for column in schema.columns
    ]
    image = None if schema.image is None else asdict(schema.image)
    found: dict[str, Any] = _lists({"columns": columns, "image": image, "target": asdict(schema.target)})
    return found


def from_json(value: Any) -> Schema:
    """Read a schema.

    Raises
    ------
    BadOffer
        If it is not what :func:`to_json` wrote of a schema that could be read from a file.
    """
    found = closed(value, {"columns", "image", "target"}, "The schema")
    if not isinstance(found["columns"], list) or bool(found["columns"]) == (found["image"] is not None):
        raise BadOffer("The schema has either columns or an image.")
    columns = tuple(_column(item) for item in found["columns"])
    target = _target(found["target"])
    names = [column.name for column in columns]
    if len({*names, target.name}) != len(names) + 1:
        raise BadOffer("The schema has two columns of one name.")
    if found["image"] is not None and target.kind != CLASSIFICATION:
        raise BadOffer("Images can only be told apart.")
    return Schema(columns, None if found["image"] is None else _image(found["image"]), target)


def closed(value: Any, keys: set[str], what: str) -> dict[str, Any]:
    """Return a JSON object that has exactly these keys.

    Raises
    ------
    BadOffer
        If it has others.
    """
    if not isinstance(value, dict) or set(value) != keys:
        raise BadOffer(f"{what} has exactly the keys {', '.join(sorted(keys))}.")
    return dict(value)


def _column(value: Any) -> Numeric | Categorical:
    if not isinstance(value, dict) or value.get("kind") not in ("numeric", "categorical"):
        raise BadOffer("A column is numeric or categorical.")
    if value["kind"] == "numeric":
        found = closed(value, _NUMERIC, "A numeric column")
        low, high = _bounds(found)
        impute = _number(found["impute"])
        if not low <= impute <= high:
            raise BadOffer("What stands for a missing value lies outside the bounds.")
        return Numeric(_name(found["name"]), low, high, _truth(found["missing"]), impute)
    found = closed(value, _CATEGORICAL, "A categorical column")
    if found["unknown"] not in ("error", "ignore"):
        raise BadOffer("An unknown category is an error or ignored.")
    return Categorical(
        _name(found["name"]), _labels(found["categories"], 1), _truth(found["missing"]), found["unknown"]
    )


def _target(value: Any) -> Target:
    found = closed(value, _TARGET, "The target")
    if found["kind"] not in (CLASSIFICATION, REGRESSION):
        raise BadOffer("The target is a class or a number.")
    low, high = _bounds(found)
    at_least = None if found["at_least"] is None else _number(found["at_least"])
    if found["kind"] == REGRESSION:
        if found["classes"] != [] or at_least is not None:
            raise BadOffer("A target that is a number has no classes.")
        return Target(_name(found["name"]), REGRESSION, low=low, high=high)
    classes = _labels(found["classes"], 2)
    if (low, high) != (0.0, 1.0) or (at_least is not None and len(classes) != 2):
        raise BadOffer("A target that is a class has no bounds, and a threshold tells two classes apart.")
    return Target(_name(found["name"]), CLASSIFICATION, classes, at_least)


def _image(value: Any) -> Image:
    found = closed(value, {"height", "width", "channels"}, "The image")
    if any(type(side) is not int or not 1 <= side <= MAX_SIDE for side in found.values()):
        raise BadOffer(f"The sides of an image are whole numbers from 1 to {MAX_SIDE}.")
    if found["channels"] not in (1, 3):
        raise BadOffer("An image has 1 channel or 3.")
    return Image(**found)


def _labels(value: Any, fewest: int) -> tuple[Label, ...]:
    if not isinstance(value, list) or not fewest <= len(value) <= MAX_CATEGORIES:
        raise BadOffer(f"There are from {fewest} to {MAX_CATEGORIES} categories or classes.")
    kinds = {type(item) for item in value}
    if len(kinds) != 1 or not kinds <= {str, float} or len({str(item) for item in value}) != len(value):
        raise BadOffer("Categories and classes are all texts or all numbers, none twice.")
    return tuple(_number(item) if isinstance(item, float) else item for item in value)


def _bounds(found: dict[str, Any]) -> tuple[float, float]:
    low, high = _number(found["low"]), _number(found["high"])
    if not low < high:
        raise BadOffer("A lower bound is below the upper one.")
    return low, high


def _number(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise BadOffer("Bounds and numbers of a schema are finite, and written with a point or an exponent.")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise BadOffer(f"A column has a name of 1 to {MAX_NAME} characters.")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadOffer("Whether values may be missing is true or false.")
    return value


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
