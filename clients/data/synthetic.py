"""Gaussian blobs of any size: one centre for each class, made from the run's seed."""

from __future__ import annotations

import numpy as np

from quire.clients.data.silo import Rows
from quire.conf.schema import SyntheticData
from quire.privacy.randomness import stream


def load(settings: SyntheticData, seed: int) -> Rows:
    """Draw the rows: classes as equal in number as can be, unit noise around random centres of norm about 2."""
    rng = stream(seed, "synthetic")
    centres = rng.standard_normal((settings.classes, settings.features)) * (2.0 / np.sqrt(settings.features))
    y = rng.permutation(np.arange(settings.rows) % settings.classes).astype(np.int64)
    x = rng.standard_normal((settings.rows, settings.features), dtype=np.float32)
    x += centres.astype(np.float32)[y]
    return Rows(x, y)
