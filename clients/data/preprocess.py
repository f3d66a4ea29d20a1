"""The last step before training, by name: what stands for a missing value, and how numeric features are scaled.

============  ======================================================  =================================
name          numeric features                                         fit for differential privacy
============  ======================================================  =================================
``public``    scaled by public bounds, missing: a public constant      yes: nothing of any row goes in
``per_silo``  standardised by the silo's own training rows             no
``federated`` standardised by all silos' training rows                 no: sums leave each silo
============  ======================================================  =================================

The last two start from the publicly scaled and clipped values, and put the mean where a value is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from quire.clients.data.consent.sieve import Sifted
from quire.clients.data.silo import Rows, SiloData
from quire.clients.tasks.moments import Statistics, combine, moments
from quire.conf.schema import Settings, SyntheticData
from quire.errors import DataError

PUBLIC, PER_SILO, FEDERATED = "public", "per_silo", "federated"


def preprocessing_of(settings: Settings) -> str:
    """Return the kind of preprocessing that the settings ask for; made-up rows need none, which is ``public``."""
    return PUBLIC if isinstance(settings.data, SyntheticData) else settings.data.preprocessing


@dataclass(frozen=True, eq=False)
class Loaded:
    """A silo's rows, scaled by public bounds, with NaN where a value is missing.

    Attributes
    ----------
    data : SiloData
    numeric : numpy.ndarray of bool, shape (d,)
        Which features are numbers.
    impute : numpy.ndarray of float32, shape (d,)
        What stands for a missing value under ``public``, in scaled units.
    digest : str
        Hash of the rows, those that consent leaves out included; empty for simulated ones, which cannot change.
    prepared : dict
        What :func:`prepare` last returned.
    sifted : Sifted or None
        What consent made of the rows; None for a silo that names no subjects.
    """

    data: SiloData
    numeric: np.ndarray
    impute: np.ndarray
    digest: str = ""
    prepared: dict[tuple[str, Statistics | None], SiloData] = field(default_factory=dict)
    sifted: Sifted | None = None

    def moments(self) -> dict[str, np.ndarray]:
        """Return the moments of the training rows; see :func:`quire.clients.tasks.moments.moments`."""
        return moments(self.data.train.x, self.numeric)


def prepare(loaded: Loaded, how: str, statistics: Statistics | None = None) -> SiloData:
    """Return a silo's rows as they are trained on.

    Parameters
    ----------
    loaded : Loaded
    how : str
        ``public``, ``per_silo`` or ``federated``.
    statistics : Statistics, optional
        Those of all silos, for ``federated``.

    Raises
    ------
    DataError
        If the statistics are not there, or are those of another form.
    """
    key = (how, statistics)
    if key not in loaded.prepared:
        prepared = _prepared(loaded, how, statistics)
        loaded.prepared.clear()  # one is kept, so that a server that sends others each round cannot fill the memory
        loaded.prepared[key] = prepared
    return loaded.prepared[key]


def _prepared(loaded: Loaded, how: str, statistics: Statistics | None) -> SiloData:
    if how == PUBLIC:
        return _each(loaded.data, lambda rows: _imputed(rows, loaded.impute))
    if how == PER_SILO:
        statistics = combine([loaded.moments()])
    if statistics is None or len(statistics.mean) != int(loaded.numeric.sum()):
        raise DataError("The server sent no statistics for data.preprocessing=federated, or those of other columns.")
    fitted = statistics
    return _each(loaded.data, lambda rows: _standardised(rows, loaded.numeric, fitted))


def _each(data: SiloData, step: Callable[[Rows], Rows]) -> SiloData:
    validation = data.validation
    return SiloData(step(data.train), step(data.test), step(validation) if validation is not None else None)


def _imputed(rows: Rows, impute: np.ndarray) -> Rows:
    missing = np.isnan(rows.x)
    return Rows(np.where(missing, impute, rows.x), rows.y) if missing.any() else rows


def _standardised(rows: Rows, numeric: np.ndarray, statistics: Statistics) -> Rows:
    x = rows.x.copy()
    values = (x[:, numeric].astype(np.float64) - np.array(statistics.mean)) / np.array(statistics.scale)
    x[:, numeric] = np.nan_to_num(values, nan=0.0)
    return Rows(x, rows.y)
