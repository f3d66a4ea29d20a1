"""What a silo holds against its roster where the charter demands attestation: every silo's enclave, and the server's.

It is held anew with every message: a verification that has grown too old, a roster without a record and an amended
list count from the next one on. A silo that finds itself without a record refuses too: its partners would.
"""

from __future__ import annotations

from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.policy.chartered import Bound
from quire.clients.policy.membership import roster_of
from quire.clients.policy.model import Operator
from quire.privacy.identity.roster import Roster


def hold_to_attestation(bound: Bound, operator: Operator, now: int) -> None:
    """See to it that all whom the charter names run in enclaves that it lists, as the pinned roster records.

    Parameters
    ----------
    bound : Bound
    operator : Operator
    now : int
        Seconds since 1970 UTC.

    Raises
    ------
    Refusal
        If one does not; the words are for the silo's own log.
    """
    if bound.charter.attestation is None:
        return
    label = bound.charter.label
    roster = roster_of(operator)
    if roster is None:
        raise Refusal(
            Code.CHARTER_REFUSED,
            f"{label}, demands attestation, which a roster records: pin the roster in silo.yaml ('roster')",
        )
    if why := unattested(bound, roster, now):
        raise Refusal(Code.CHARTER_REFUSED, f"{label}, demands attestation, and {why}")


def unattested(bound: Bound, roster: Roster, now: int) -> str | None:
    """Say who of a roster lacks the attestation that a charter demands, and why; None if nobody does."""
    demand, policy = bound.charter.attestation, bound.chain.first.hash
    if demand is None:
        return None
    which = f"in the roster {roster.roster_id}, version {roster.version}"
    if demand.silos:
        for member in roster.active(now):
            if why := demand.objection(member.attested, policy, now):
                return f"{member.name} {why} ({which}): its admins record one with `quire roster create --attested`"
    if demand.server:
        why = demand.objection(None if roster.aggregator is None else roster.aggregator.attested, policy, now)
        if why is not None:
            return f"the server {why} ({which}): its admins record one with `quire roster create --aggregator`"
    return None


def hold_to_server(bound: Bound | None, roster: Roster, key: str | None) -> None:
    """See to it that the log of a session is signed with the key that the attested server made inside its enclave.

    Parameters
    ----------
    bound : Bound or None
        None without a charter: then nothing is demanded.
    roster : Roster
    key : str or None
        Fingerprint of the log's key; None without a log.

    Raises
    ------
    Refusal
        If it is another, or there is no log.
    """
    if bound is None or bound.charter.attestation is None or not bound.charter.attestation.server:
        return
    wanted = None if roster.aggregator is None else roster.aggregator.identity.fingerprint
    if key is None or key != wanted:
        raise Refusal(
            Code.LOG_REFUSED,
            f"{bound.charter.label}, demands an attested server, whose key is {(wanted or 'in no roster')[:16]}, and "
            f"this run's log is signed with {'none' if key is None else key[:16]}",
        )
