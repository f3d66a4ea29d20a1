"""The losses of our tasks and how they move with a model's outputs, written out."""

from __future__ import annotations

import torch
from torch import Tensor

from quire.clients.tasks.base import Task
from quire.clients.tasks.classification import Classification
from quire.clients.tasks.regression import Regression

_DENSE = ("logistic", "linear", "mlp")


def is_ours(task: Task) -> bool:
    """Tell whether a task is one of ours with a model of ours: no row has a say in what is made of another one."""
    return type(task) in (Classification, Regression) and getattr(task, "plugin", None) is None


def is_dense(task: Task) -> bool:
    """Tell whether a task's model is dense layers of ours, with a loss that is known here."""
    return is_ours(task) and getattr(task, "model", "") in _DENSE


def slopes(task: Task, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's loss, and how it moves with the outputs: the task's ``loss``, by hand.

    Parameters
    ----------
    task : Task
        For which :func:`is_dense` holds.
    out : Tensor of float, shape (..., outputs)
    y : Tensor, shape (...)

    Returns
    -------
    losses : Tensor, shape (...)
    pull : Tensor, shape (..., outputs)
        Of each row's own loss, not of their mean.
    """
    if not task.classes:
        off = out[..., 0] - y.to(out.dtype)
        return off.square(), (2.0 * off)[..., None]
    if task.classes == 2:
        logit, label = out[..., 0], y.to(out.dtype)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="none")
        return losses, (torch.sigmoid(logit) - label)[..., None]
    logs = torch.log_softmax(out, -1)
    losses = -logs.gather(-1, y[..., None])[..., 0]
    pull = logs.exp_()
    return losses, pull.scatter_add_(-1, y[..., None], -torch.ones_like(pull[..., :1]))
