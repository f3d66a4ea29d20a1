"""Which class a model says that rows are of."""

from __future__ import annotations

import numpy as np

from quire.clients.data.silo import Rows
from quire.clients.tasks.classification import Classification
from quire.clients.training import Workbench


def predicted(bench: Workbench, rows: Rows) -> np.ndarray:
    """Return the likeliest class of each row by the model on a bench, int64 of shape (n,).

    Parameters
    ----------
    bench : Workbench
        With a model that tells classes apart.
    rows : Rows
        At least one.

    Raises
    ------
    TypeError
        If the task is another one.
    """
    if not isinstance(bench.task, Classification):
        raise TypeError("the task tells no classes apart")
    return bench.task.predict(bench.logits(rows))
