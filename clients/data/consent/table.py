"""The consent table: read again whenever its file has changed; a database without a file, each time.

What cannot be read refuses: a silo never goes on with consent as it was.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.data.connectors import sql
from quire.clients.data.consent.ids import ids_of
from quire.clients.data.consent.section import WITHDRAWN, Table
from quire.errors import DataError

Stamp = tuple[tuple[str, int, int, int, int], ...]

_KEPT, _TRIES = 1024, 3
# The earliest place on earth: a withdrawal for a day counts as soon as it is that day anywhere.
_FIRST_ZONE = timedelta(hours=14)
_CACHE: OrderedDict[Path, tuple[tuple[Table, Stamp, date], Listing]] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Listing:
    """Whom a consent table lists, as it stands.

    Attributes
    ----------
    means : str
        ``withdrawn``: these are out. ``given``: only these are in.
    ids : frozenset of str
    mark : bytes
        Another one, another table.
    """

    means: str
    ids: frozenset[str]
    mark: bytes

    def allows(self, ids: Sequence[str | None]) -> np.ndarray:
        """Tell of each subject whether its rows may be trained on; one without an id never.

        Returns
        -------
        numpy.ndarray of bool, shape (n,)
        """
        listed, out = self.ids, self.means == WITHDRAWN
        return np.fromiter((one is not None and (one in listed) is not out for one in ids), bool, len(ids))


def listing_of(table: Table) -> Listing:
    """Return whom a consent table lists now.

    Raises
    ------
    DataError
        If it cannot be read, keeps changing while it is read, or holds what cannot be a table of consent.
    """
    place = table.source.entry.file
    for _ in range(_TRIES):
        stamp, day = _stamp(table), _today()
        now = (table, stamp, day)
        known = _CACHE.get(place)
        if known is not None and known[0] == now:
            _CACHE.move_to_end(place)
            return known[1]
        listing = _read(table, day, stamp)
        if not stamp:
            return listing
        if _stamp(table) == stamp:
            _CACHE[place] = (now, listing)
            while len(_CACHE) > _KEPT:
                _CACHE.popitem(last=False)
            return listing
    raise DataError(f"The consent table of {place} kept changing while it was read: put a new one in its place whole.")


def _stamp(table: Table) -> Stamp:
    """Return what changes with a file, also where its size and its time of change were kept.

    Nothing for a database: it is asked each time. Even where it is one file, that need not change with what is in it
    (SQLite's write-ahead log is another).
    """
    if table.connector is sql.CONNECTOR:
        return ()
    try:
        stats = [(str(path), path.stat()) for path in table.connector.files(table.source)]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return tuple((name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for name, one in stats)


def _today() -> date:
    return (datetime.now(UTC) + _FIRST_ZONE).date()


def _read(table: Table, day: date, stamp: Stamp) -> Listing:
    source = table.source
    where = f"{source.entry.file} (consent)"
    columns = table.connector.read(source).columns
    keys = ids_of(columns[table.key], table.key, where)
    if table.means == WITHDRAWN:
        if None in keys:
            raise DataError(
                f"{where}: the table has a withdrawal without a subject id in '{table.key}' (row {keys.index(None) + 1}"
                "), so nobody can tell whose it is."
            )
        begun = [True] * len(keys) if table.since is None else _begun(columns[table.since], table.since, day, where)
        chosen = {key for key, now in zip(keys, begun, strict=True) if now and key is not None}
    else:
        flags = [_said(value) in table.yes for value in columns[table.flag or ""].tolist()]
        chosen = {key for key, yes in zip(keys, flags, strict=True) if yes and key is not None}
        refused = {key for key, yes in zip(keys, flags, strict=True) if not yes}
        if both := len(chosen & refused):
            raise DataError(f"{where}: the table says yes and something else of one subject ({both} of them).")
    told = repr((stamp, day)) if stamp else "\n".join(f"{len(one)} {one}" for one in sorted(chosen))
    mark = hashlib.sha256(f"{table.means} {told}".encode("utf-8", "surrogatepass")).digest()
    return Listing(table.means, frozenset(chosen), mark)


def _begun(values: np.ndarray, name: str, day: date, where: str) -> list[bool]:
    import pandas as pd

    found = []
    for row, value in enumerate(pd.Series(values).tolist(), start=1):  # a moment as such, not as a number
        try:
            found.append((since := _day(value)) is None or since <= day)
        except (TypeError, ValueError):
            raise DataError(
                f"{where}: the column '{name}' has a value that is no date as in 2026-11-22 (row {row})."
            ) from None
    return found


def _day(value: Any) -> date | None:
    """Return a day; None where there is none, which means at once."""
    import pandas as pd

    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if not isinstance(value, str):
        raise TypeError
    text = value.strip()
    return datetime.fromisoformat(text).date() if text else None


def _said(value: Any) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip().lower()
