"""What is learned: a closed registry of tasks, found by name and never by import path.

Importing this package costs no torch: only building a task does.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from math import isqrt
from typing import TYPE_CHECKING, Any

from quire.clients.plugins import MODELS, PLUGINS_VARIABLE, TASKS, Kind, load_plugin
from quire.clients.tasks.schema import Schema
from quire.conf.schema import FilesData, Settings, SyntheticData
from quire.errors import DataError, SettingsError

if TYPE_CHECKING:
    from quire.clients.tasks.base import Task
    from quire.clients.tasks.classification import Classification
    from quire.clients.tasks.regression import Regression

__all__ = ["Classification", "Regression", "Task", "shipped_form", "task_of"]

_HOMES = {
    "Classification": "quire.clients.tasks.classification",
    "Regression": "quire.clients.tasks.regression",
    "Task": "quire.clients.tasks.base",
}

# Features and classes of the data sets inside scikit-learn; the target's public bounds where it is a number.
_SKLEARN: dict[str, tuple[int, int]] = {"breast_cancer": (30, 2), "digits": (64, 10), "diabetes": (10, 0)}
_DIGITS_IMAGE = (1, 8, 8)
DIABETES_BOUNDS = (25.0, 346.0)


def task_of(settings: Settings, schema: Schema | None = None, approved: Collection[str] | None = None) -> Task:
    """Return the task that the settings name.

    Parameters
    ----------
    settings : Settings
    schema : Schema, optional
        The agreed form of the rows, where silos read their own.
    approved : collection of str, optional
        Plug-ins that the operator approves in ``silo.yaml``; else those that ``QUIRE_PLUGINS`` lists, as for a server.

    Raises
    ------
    DataError
        If silos read their own rows and there is no schema, or if model or task is a plug-in that cannot be used.
    SettingsError
        If the model cannot learn what the schema describes.
    """
    from quire.clients.tasks import models
    from quire.clients.tasks.base import TaskPlugin
    from quire.clients.tasks.classification import Classification
    from quire.clients.tasks.regression import Regression

    name, model = settings.task.name, settings.task.model
    if name == "plugin":
        if schema is None:
            raise DataError("task=plugin needs the agreed form of the rows, a schema.yaml.")
        return _plugin(TASKS, settings.task.plugin, TaskPlugin, approved).task(schema, settings.task.hidden)
    hidden = settings.task.hidden if model in ("mlp", "cnn") else ()
    plugin = _plugin(MODELS, settings.task.plugin, models.Model, approved) if model == "plugin" else None
    if isinstance(settings.data, FilesData):
        if schema is None:
            raise DataError(f"task={name} needs the agreed form of the rows, a schema.yaml.")
        _check_model(settings, schema)
        target, shape = schema.target, schema.image
        if target.kind == "regression":
            return Regression(name, schema.features, model, hidden, target.low, target.high, plugin)
        image = (shape.channels, shape.height, shape.width) if shape is not None else None
        return Classification(name, schema.features, len(target.classes), model, hidden, image, plugin)
    if isinstance(settings.data, SyntheticData):
        side = isqrt(settings.data.features)  # a square for a cnn, which conf.rules sees to
        form = (1, side, side) if model == "cnn" else None
        return Classification(name, settings.data.features, settings.data.classes, model, hidden, form, plugin)
    features, classes = _SKLEARN[settings.data.dataset]
    if not classes:
        return Regression(name, features, model, hidden, *DIABETES_BOUNDS, plugin)
    return Classification(name, features, classes, model, hidden, _DIGITS_IMAGE if features == 64 else None, plugin)


def _plugin(group: str, name: str, kind: type[Kind], approved: Collection[str] | None) -> Kind:
    if approved is None:
        approved = [part.strip() for part in os.environ.get(PLUGINS_VARIABLE, "").split(",")]
    return load_plugin(group, name, kind, approved)


def shipped_form(dataset: str) -> tuple[int, int]:
    """Return features and classes (0 where a number is learned) of a data set that ships with Quire.

    Raises
    ------
    DataError
        If none has this name.
    """
    if dataset not in _SKLEARN:
        raise DataError(f"No data set '{dataset}' ships with Quire; there are {', '.join(_SKLEARN)}.")
    return _SKLEARN[dataset]


def numeric_features(settings: Settings, schema: Schema | None = None) -> int:
    """Return how many features of a row are numbers, and not indicators of a category."""
    if schema is not None:
        return int(schema.numeric.sum())
    if isinstance(settings.data, SyntheticData):
        return settings.data.features
    return 0 if isinstance(settings.data, FilesData) else _SKLEARN[settings.data.dataset][0]


def _check_model(settings: Settings, schema: Schema) -> None:
    name, model = settings.task.name, settings.task.model
    if (schema.image is not None) != (name == "images"):
        raise SettingsError(f"task={name} does not fit the schema: images are task=images, columns task=tabular.")
    if model == "logistic" and schema.target.kind == "regression":
        raise SettingsError(
            "task.model=logistic tells classes apart, the schema's target is a number: take linear or mlp."
        )


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
