"""What a silo's charter says of the code: held against the bundle itself, before anything of it runs."""

from __future__ import annotations

from pathlib import Path

from quire.clients.contract import Code
from quire.clients.gate.bundle import Bundle
from quire.clients.gate.working import Refused


def hold_to_charter(silo: Path, bundle: Bundle) -> None:
    """See to it that a charter which lists releases lists this bundle, by the hash of all its files.

    Parameters
    ----------
    silo : pathlib.Path
        The silo's own file.
    bundle : Bundle
        Approved by the operator.

    Raises
    ------
    Refused
        If the charter does not list it, does not hold, or is not in force; if the silo has been under a later version;
        or if the silo's file may name a charter and is not such as it should be.
    """
    try:
        text = silo.read_bytes()
    except OSError:
        return  # the code finds it missing, in words
    if b"charter" not in text and b"\\" not in text:  # nothing is imported for a silo that has none
        return  # in YAML in UTF-8 only an escape could spell the key otherwise
    from quire.charter.chain import expired, read_chain
    from quire.clients.data.silo_file import read_operator_of
    from quire.clients.policy.chartered import look_back, moment
    from quire.errors import QuireError

    try:
        operator = read_operator_of(silo)
        pin = operator.charter
        if pin is None:
            return
        chain, now = read_chain(pin.file, pin.sha256), moment()
    except QuireError as error:
        raise Refused(Code.CHARTER_REFUSED, str(error)) from error
    try:
        charter = chain.in_force(now)
    except QuireError as error:
        raise Refused(Code.CHARTER_EXPIRED, str(error)) from error
    try:
        outdated = look_back(operator.store, chain, charter)
    except QuireError as error:
        raise Refused(Code.CHARTER_REFUSED, str(error)) from error
    if outdated is not None:
        raise Refused(Code.CHARTER_REFUSED, outdated)
    if expired(charter, now):
        raise Refused(Code.CHARTER_EXPIRED, f"{charter.label}, has expired")
    if charter.code is not None and bundle.content not in {release.bundle for release in charter.code}:
        raise Refused(Code.CHARTER_CODE, f"{charter.label}, does not list the bundle {bundle.content}")
