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
#: Strata in which rows are set aside; one where a number is learned.
CLASSES = {"breast_cancer": 2, "digits": 10, "diabetes": 1}


def rows_of(data: SklearnData | SyntheticData) -> int:
    """Return the number of rows of a data set that is shared out over simulated silos."""
    return data.rows if isinstance(data, SyntheticData) else ROWS[data.dataset]


def colluders_of(secure: SecureAggregation, members: int) -> int:
    """Return how many of a roster's members may side with the server: as set, or a third of them.

    With groups it is how many of any one group, and always set: a third of a roster may all be in one group of it.
    """
    if secure.colluders is not None:
        return secure.colluders
    return max(1, (members - 1) // 3) if members >= 4 else 0


def parties_of(settings: Settings, secure: SecureAggregation, members: int) -> int:
    """Return how many vectors are added to one sum at most: all that are asked, or with groups the largest of them.

    Parameters
    ----------
    settings : Settings
    secure : SecureAggregation
    members : int
        Of the roster.
    """
    return min(settings.silos_asked, -(-members // (secure.groups or 1)))


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


def _most_trained(data: SklearnData | SyntheticData, silos: int) -> int:
    """Return how many training rows a simulated silo has at most, where rows are dealt out evenly.

    Rows are set aside class by class, and rounded for each.
    """
    classes = data.classes if isinstance(data, SyntheticData) else CLASSES[data.dataset]
    most = dealt = math.ceil(rows_of(data) / silos)
    for share in filter(None, (data.test_fraction, data.validation_fraction)):
        most = math.floor((1.0 - share) * most + classes * max(0.5, share) + 1e-9)
    return min(most, dealt)


def records_of(settings: Settings, privacy: RecordDistributedPrivacy) -> tuple[int, int]:
    """Return the declared records of all silos together, and of the largest of them.

    They decide what a sum is divided by, how wide it is and how long it may be; a wrong one costs accuracy or ends the
    run, and never costs privacy. Of a shipped data set they are its training rows, dealt out evenly, or, where the
    partition does not say so, all at one silo.

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
        largest = records
        if isinstance(settings.partition, IidPartition):
            most = 0 if isinstance(data, FilesData) else _most_trained(data, silos)
            largest = max(math.ceil(records / silos) + 1, most)
    if not silos <= records <= silos * largest:
        raise SettingsError(
            f"privacy.records={records} of {silos} silos and privacy.largest={largest} of one of them contradict each "
            "other: the first lies between the number of silos and that many times the second."
        )
    return records, largest
