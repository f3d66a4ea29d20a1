"""Is this silo a member of the roster that its operator has pinned: under its own name, with its own key, now?

A silo that is none would train for nothing: nobody could verify what it signs. And a name or a key that is not the
roster's is a mistake of its operator's, better found here than by everybody else.
"""

from __future__ import annotations

from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.identity import IdentityFileError, load_roster
from quire.clients.policy.model import Operator
from quire.privacy.identity.roster import Roster


def roster_of(operator: Operator) -> Roster | None:
    """Return the roster that the silo takes part under, checked against its pin; None where none is pinned.

    Raises
    ------
    Refusal
        If it cannot be read, is another one, or lacks its admins' signatures.
    """
    if operator.roster is None:
        return None
    try:
        return load_roster(operator.roster.file, operator.roster.sha256)
    except IdentityFileError as error:
        raise Refusal(Code.ROSTER_REFUSED, str(error).rstrip(".")) from None


def not_a_member(roster: Roster, name: str, fingerprint: str, moment: int) -> str | None:
    """Say, in words, why a silo is no member of a roster.

    Parameters
    ----------
    roster : Roster
        The pinned one.
    name : str
        The silo's.
    fingerprint : str
        Of the silo's own public keys.
    moment : int
        Seconds since 1970, UTC.

    Returns
    -------
    str or None
        None if it is a member under that name, with those keys, at that moment.
    """
    which = f"the pinned roster {roster.roster_id} (version {roster.version})"
    member = next((one for one in roster.members if one.name == name), None)
    if member is None:
        return f"{which} has no member '{name}': have it added, or make 'name' in silo.yaml the name that it has there"
    if member.identity.fingerprint != fingerprint:
        return (
            f"{which} has {name} under the key {member.identity.fingerprint[:16]}, and this silo's is "
            f"{fingerprint[:16]}: name the key file that is in the roster, or have the roster changed"
        )
    if not member.active(moment):
        return f"{which} has {name} as a member at other times than now: pin a version in which it is one"
    return None
