"""Public numbers that follow from settings, for whoever has to come to the same ones: rules, server and silos."""

from __future__ import annotations

import math

from quire.conf.schema import (
    FilesData,
    IidPartition,
    RecordDistributedPrivacy,
    SecureAggregation,
    Settings,
    SklearnData,
    SyntheticData,
)
from quire.errors import SettingsError

ROWS = {"breast_cancer": 569, "digits": 1797, "diabetes": 442}


def rows_of(data: SklearnData | SyntheticData) -> int:
    """Return the number of rows of a data set that is shared out over simulated silos."""
    return data.rows if isinstance(data, SyntheticData) else ROWS[data.dataset]


def colluders_of(secure: SecureAggregation, members: int) -> int:
    """Return how many of a roster's members may side with the server: as set, or a third of them."""
    if secure.colluders is not None:
        return secure.colluders
    return max(1, (members - 1) // 3) if members >= 4 else 0


def max_rows_of(settings: Settings, secure: SecureAggregation) -> int:
    """Return the rows beyond which a silo counts no more.

    Raises
    ------
    SettingsError
        If nobody can know without being told.
    """
    if secure.max_rows is not None:
        return secure.max_rows
    if isinstance(settings.data, FilesData):
        raise SettingsError(
            f"aggregation=secure needs aggregation.max_rows with data={settings.data.name}: a silo's number of rows "
            "stays under the mask, and the sum has room for weights up to a public limit."
        )
    return rows_of(settings.data)


def records_of(settings: Settings, privacy: RecordDistributedPrivacy) -> tuple[int, int]:
    """Return the declared records of all silos together, and of the largest of them.

    They decide what a sum is divided by and how wide it is; a wrong one costs accuracy, never privacy. Of a shipped
    data set they are its training rows, dealt out evenly, or, where the partition does not say so, all at one silo.

    Raises
    ------
    SettingsError
        If nobody can know without being told, or the two contradict each other.
    """
    data, silos = settings.data, settings.partition.silos
    records, largest = privacy.records, privacy.largest
    if isinstance(data, FilesData):
        if records is None or largest is None:
            raise SettingsError(
                f"privacy=record_distributed needs privacy.records and privacy.largest with data={data.name}: the "
                "declared records of all silos together, and of the largest of them."
            )
    elif records is None:
        records = max(silos, math.floor(rows_of(data) * (1.0 - data.test_fraction) * (1.0 - data.validation_fraction)))
    if largest is None:
        largest = math.ceil(records / silos) + 1 if isinstance(settings.partition, IidPartition) else records
    if not silos <= records <= silos * largest:
        raise SettingsError(
            f"privacy.records={records} of {silos} silos and privacy.largest={largest} of one of them contradict each "
            "other: the first lies between the number of silos and that many times the second."
        )
    return records, largest
