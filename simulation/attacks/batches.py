"""Which rows were behind what was seen: drawn once more from the simulation's seed, to mark an attack by.

Nothing of this is known to any observer; an attack is over before it is asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quire.clients.data.silo import Rows
from quire.clients.entropy import Seeded
from quire.clients.private.plan import plan_of
from quire.clients.training import steps
from quire.conf.schema import RecordDistributedPrivacy, RecordPrivacy, Settings
from quire.privacy.csprng import Csprng


def drawn(settings: Settings, silo: str, rows: Rows) -> Rows:
    """Return the rows of a silo that its part in the first round was made of, each once.

    Parameters
    ----------
    settings : Settings
    silo : str
    rows : Rows
        The silo's training rows.
    """
    return rows.take(_places(settings, silo, len(rows)))


def _places(settings: Settings, silo: str, count: int) -> NDArray[np.int64]:
    entropy, privacy = Seeded(settings.seed), settings.privacy
    if isinstance(privacy, RecordPrivacy):
        plan = plan_of(settings, count)
        source = Csprng(entropy.key("private", 1, silo))
        if plan.steps > 1:
            return np.arange(count)  # noise is drawn between two batches: any row may have been in one
        return np.asarray(source.poisson_sample(count, plan.rate), np.int64)
    if isinstance(privacy, RecordDistributedPrivacy):
        source = Csprng(entropy.key("batch", 1, 1, silo))
        return np.asarray(source.poisson_sample(count, privacy.sampling_rate), np.int64)
    labels = ("batches", 1, silo) if settings.privacy.name != "silo_distributed" else ("batches", 1, 1, silo)
    order = entropy.generator(*labels).permutation(count)
    return order[: min(count, steps(settings.training, count) * settings.training.batch_size)]
