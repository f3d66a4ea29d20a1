"""All silos of a simulation, made from settings alone."""

from __future__ import annotations

from functools import lru_cache

from quire.clients.data import sklearn_sets, synthetic
from quire.clients.data.partition import Partition, partition
from quire.clients.data.silo import SiloData, hold_out, split
from quire.conf.schema import FilesData, Settings, SklearnData, SyntheticData
from quire.errors import DataError
from quire.privacy.randomness import stream


def federation(settings: Settings) -> tuple[SiloData, ...]:
    """Return the data of every simulated silo, in the order of their partition ids.

    The same settings and seed give the same rows in every process. Loaded once in a process.

    Raises
    ------
    DataError
        If the rows cannot be shared out as asked.
    """
    if isinstance(settings.data, FilesData):
        raise DataError("With data=files nothing is simulated: each silo reads its own rows.")
    return _federation(settings.data, settings.partition, settings.seed)


@lru_cache(maxsize=4)
def _federation(data: SklearnData | SyntheticData, how: Partition, seed: int) -> tuple[SiloData, ...]:
    rows = sklearn_sets.load(data) if isinstance(data, SklearnData) else synthetic.load(data, seed)
    parts = partition(rows.y, how, seed)
    silos = [
        split(rows.take(places), data.test_fraction, stream(seed, "split", silo)) for silo, places in enumerate(parts)
    ]
    return tuple(
        hold_out(data_of, data.validation_fraction, stream(seed, "validation", silo))
        for silo, data_of in enumerate(silos)
    )
