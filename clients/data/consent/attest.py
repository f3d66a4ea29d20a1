"""Attestations of erasure: made from the silo's lineage, checked against who has to have signed."""

from __future__ import annotations

from pathlib import Path

from quire.clients.data.consent.lineage import holds, lines_of, members_of
from quire.clients.data.consent.place import Place, now
from quire.clients.data.consent.requests import Request, note_attested
from quire.clients.data.consent.traces import traces_of
from quire.clients.store import files
from quire.errors import DataError
from quire.privacy.approval import MAX_REASON, is_reason
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.erasure import MAX_BYTES, ErasureAttestation, TouchedRun
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity


def attest(
    place: Place, request: Request, silo: str, said: str | None, identity: PrivateIdentity, out: Path
) -> ErasureAttestation:
    """Sign an attestation of a request and write it to a file.

    Parameters
    ----------
    place : Place
    request : Request
    silo : str
        The silo's name.
    said : str or None
        The operator's own words about what else was done.
    identity : PrivateIdentity
        The silo's.
    out : pathlib.Path
        A new file.

    Raises
    ------
    DataError
        If the silo's own record says otherwise, the file is there already, or a field cannot be said.
    StoreError
        If the record cannot be used.
    """
    if out.exists():
        raise DataError(f"{out} exists already: name a new file for the attestation.")
    if said is not None and not is_reason(said):
        raise DataError(f"--say takes one line of 1 to {MAX_REASON} printable characters.")
    known: dict[str, bool] = {}
    lines = lines_of(place)
    if len(lines) < request.after:
        raise DataError(
            f"The silo's lineage has {len(lines)} lines, and when request {request.id} was recorded it had "
            f"{request.after}: put back a copy of {place.lineage.path} that has them."
        )
    since, subjects = lines[request.after :], place.subjects()
    for line in since:
        if not line.tells_of(subjects, request.column):
            raise DataError(
                f"In round {line.round} of run {line.run}, after request {request.id}, another column than "
                f"'{request.column}', or another key, said whose a row is: nobody can tell who was in it."
            )
        if line.members not in known:
            known[line.members] = holds(members_of(place, line.members), request.subject)
    if against := [line for line in since if known[line.members]]:
        raise DataError(
            f"The silo's lineage has round {against[0].round} of run {against[0].run} trained on the subject after "
            f"request {request.id}: there is nothing to attest before that is explained."
        )
    traces = traces_of(place, request.subject, request.column)
    runs = [
        TouchedRun(str(one.run), one.simulated, one.first, one.last, one.clean, one.model) for one in traces.touched
    ]
    continued, unknown = [str(run) for run in traces.continued], [str(run) for run in traces.unknown]
    times = (_second(request.time), _second(now()))
    rounds = len({(line.run, line.round) for line in since})
    try:
        made = ErasureAttestation.sign(silo, request.id, times, rounds, (runs, continued, unknown), said, identity)
    except PrivacyError as error:
        raise DataError(f"Request {request.id} cannot be attested: {str(error).rstrip('.')}.") from None
    files.replace(out, made.encode())
    note_attested(place, request.id)
    return made


def _second(time: str) -> str:
    return f"{time[:19]}+00:00"


def read_attestation(path: Path) -> ErasureAttestation:
    """Read an attestation; no signature is checked.

    Raises
    ------
    DataError
        If the file cannot be read or holds none.
    """
    try:
        with path.open("rb") as stream:
            return ErasureAttestation.decode(stream.read(MAX_BYTES + 1))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except PrivacyError as error:
        raise DataError(f"{path}: {str(error).rstrip('.')}.") from None


def check_attestation(made: ErasureAttestation, public: PublicIdentity) -> None:
    """Check who signed an attestation.

    Raises
    ------
    DataError
        If it was somebody else, or it was changed since.
    """
    try:
        made.check(public)
    except PrivacyError as error:
        raise DataError(f"The attestation does not hold: {str(error).rstrip('.')}.") from None
