"""Public numbers that follow from settings, for whoever has to come to the same ones: rules, server and silos."""

from __future__ import annotations

from quire.conf.schema import FilesData, SecureAggregation, Settings, SklearnData, SyntheticData
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
