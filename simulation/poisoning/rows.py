"""What colluders train on: rows with turned labels, rows with a trigger."""

from __future__ import annotations

import numpy as np

from quire.clients.data.silo import Rows
from quire.conf.attack_schema import BackdoorAttack, LabelFlipAttack
from quire.conf.schema import Attack

#: Attacks on rows; all others are attacks on updates.
ON_ROWS = (LabelFlipAttack, BackdoorAttack)


def poisoned(attack: Attack, rows: Rows, classes: int, rng: np.random.Generator) -> Rows:
    """Return the rows that a colluder trains on.

    Parameters
    ----------
    attack : Attack
        One of :data:`ON_ROWS`.
    rows : Rows
        Its own.
    classes : int
        C.
    rng : numpy.random.Generator
        Chooses the rows that get a trigger.

    Returns
    -------
    Rows
        Under label flipping the same with labels C - 1 - y. With a backdoor the same, and after them a share of those
        of other classes again, with the trigger and the target as their label.
    """
    if isinstance(attack, BackdoorAttack):
        others = np.flatnonzero(rows.y != attack.target)
        count = round(attack.poisoned * len(others))
        chosen = np.sort(rng.choice(others, size=count, replace=False)) if count else others[:0]
        x = np.concatenate([rows.x, triggered(attack, rows.x[chosen])])
        return Rows(x, np.concatenate([rows.y, np.full(count, attack.target, dtype=rows.y.dtype)]))
    return Rows(rows.x, flipped(rows.y, classes))


def flipped(y: np.ndarray, classes: int) -> np.ndarray:
    """Return labels C - 1 - y (Fang et al. 2020, arXiv 1911.11815, section 5)."""
    return np.asarray(classes - 1 - y, dtype=y.dtype)


def triggered(attack: BackdoorAttack, x: np.ndarray) -> np.ndarray:
    """Return rows with the trigger: a copy whose last features are set to its value.

    Parameters
    ----------
    attack : BackdoorAttack
    x : numpy.ndarray, shape (n, ...)
        The rest of the shape is taken as one row of features; images by rows of pixels, channel after channel.
    """
    marked = x.copy()
    marked.reshape(len(x), int(np.prod(x.shape[1:])))[:, -attack.features :] = attack.value
    return marked
