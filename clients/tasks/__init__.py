"""What is learned: a closed registry of tasks, found by name and never by import path."""

from __future__ import annotations

from quire.clients.tasks.classification import Classification
from quire.conf.schema import Settings, SyntheticData

__all__ = ["Classification", "task_of"]


def task_of(settings: Settings) -> Classification:
    """Return the task that the settings name."""
    if isinstance(settings.data, SyntheticData):
        features, classes = settings.data.features, settings.data.classes
    else:
        features, classes = 30, 2
    return Classification(
        name=settings.task.name,
        features=features,
        classes=classes,
        model=settings.task.model,
        hidden=settings.task.hidden if settings.task.model == "mlp" else (),
    )
