"""The charter that a run is under, as its server has it: named by the operator, in force when the run begins."""

from __future__ import annotations

import time
from pathlib import Path

from quire.charter.chain import expired, read_chain
from quire.charter.document import Charter
from quire.conf.schema import Settings
from quire.errors import RunFailed

#: Names the folder of the charter's versions, or the file of the only one, to a ServerApp; a key of its node config.
CHARTER_VARIABLE, CHARTER_KEY = "QUIRE_CHARTER", "charter"


def charter_of_run(named: str | None, settings: Settings) -> Charter | None:
    """Return the charter that a run is under; None if it is under none.

    Silos hold the run to the charter that is in force there, whatever the server has: this finds out beforehand, and
    lets run folder and log say which it was.

    Parameters
    ----------
    named : str or None
        Where the server's charter is.
    settings : Settings
        Of the run: ``charter`` is the hash that silos compare.

    Raises
    ------
    CharterError
        If what is named is no charter, or does not hold.
    RunFailed
        If it is not in force, or not the one that the settings name.
    """
    if not named:
        if settings.charter is None:
            return None
        raise RunFailed(
            f"The settings name a charter ({settings.charter[:16]}), and this server has none: set {CHARTER_VARIABLE} "
            "to the folder of its versions before the SuperLink starts."
        )
    now = int(time.time())
    charter = read_chain(Path(named)).in_force(now)
    if expired(charter, now):
        raise RunFailed(f"{charter.label[:1].upper()}{charter.label[1:]}, has expired: have the members sign another.")
    if settings.charter != charter.hash:
        told = "no charter" if settings.charter is None else settings.charter[:16]
        raise RunFailed(
            f"The settings name {told}, and {charter.label}, is in force at this server: submit a new run with "
            f"charter={charter.hash}."
        )
    return charter
