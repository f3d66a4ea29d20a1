"""How far a ledger was once seen by somebody else, as the silo found out: for the override, which has to go beyond it.

What the silo signed earlier and was shown again lies on no file of its own. Without this note an override would begin
below it, and be taken for an old copy once more.
"""

from __future__ import annotations

import os
from pathlib import Path

from quire.clients.store import files
from quire.clients.store.errors import StoreDamaged, StoreError
from quire.clients.store.lines import BadLine, Signed
from quire.clients.store.scan import Place

TAG = "quire/ledger/shown/1"
MAX_BYTES = 64 * 1024
#: The largest number of an entry that is believed; receipts name none above it either.
MOST = 2**53


def note(place: Place, count: int) -> None:
    """Write down, signed, that entry number `count` was seen, unless a higher one was noted.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    try:
        if noted(place) >= count:
            return
    except StoreDamaged:
        pass  # it is written anew
    body = {"store": place.store, "population": place.population, "count": count}
    files.replace(_path(place), Signed(TAG, place.public, place.private).close(body))


def noted(place: Place) -> int:
    """Return the number of the highest entry that was seen elsewhere; 0 if nothing is noted.

    Raises
    ------
    StoreDamaged
        If the note is not what was written.
    """
    path = _path(place)
    data = files.read(path, MAX_BYTES)
    if data is None:
        return 0
    try:
        body = Signed(TAG, place.public).open(data)
    except BadLine:
        body = {}
    count = body.get("count")
    whose = (body.get("store"), body.get("population"))
    if whose != (place.store, place.population) or type(count) is not int or not 0 < count < MOST:
        raise StoreDamaged(f"{path.name} is not what was written.")
    return count


def forget(place: Place) -> None:
    """Remove the note: the ledger has gone beyond it."""
    try:
        _path(place).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{_path(place)} cannot be removed: {os.strerror(error.errno or 0)}.") from error


def _path(place: Place) -> Path:
    return place.folder / f"{place.population}:shown.json"  # `:` cannot occur in a population's name
