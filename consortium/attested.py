"""Whether a silo is let in by the enclave in which its identity was made: where the operator's charter demands it."""

from __future__ import annotations

from quire.charter.chain import read_chain
from quire.clients.identity import PublicIdentity
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import OperatorFolder
from quire.privacy.identity.attested import Aggregator, Attested


def check_attested(
    folder: OperatorFolder, name: str, identity: PublicIdentity, record: Aggregator | None, now: int
) -> Attested | None:
    """Return what the roster is to record of a silo's enclave, if anything.

    Parameters
    ----------
    folder : OperatorFolder
        Its charter's newest version counts, which may take force later.
    name : str
    identity : PublicIdentity
        The silo's.
    record : Aggregator or None
        As `quire enclave record` wrote it.
    now : int
        Seconds since 1970 UTC.

    Raises
    ------
    ConsortiumError
        If the charter demands a record and there is none, it does not let this one in, or it is of other keys.
    CharterError
        If the folder's charter does not hold.
    """
    if record is not None and record.identity != identity:
        raise ConsortiumError(
            f"The enclave that was attested has the key {record.identity.fingerprint[:16]}, and that of {name} is "
            f"{identity.fingerprint[:16]}."
        )
    attested = None if record is None else record.attested
    chain = read_chain(folder.charter) if folder.charter.is_dir() else None
    demand = None if chain is None else chain.last.attestation
    if chain is None or demand is None or not demand.silos:
        return attested
    if why := demand.objection(attested, chain.first.hash, now):
        raise ConsortiumError(
            f"{chain.last.label[:1].upper()}{chain.last.label[1:]}, demands attestation, and {name} {why}: verify its "
            "answer with `quire enclave record`, and name what that writes (--attested)."
        )
    return attested
