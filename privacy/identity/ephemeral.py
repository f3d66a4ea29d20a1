"""The roster of one simulation: every silo's keys from one secret, nothing on any disk."""

from __future__ import annotations

from collections.abc import Sequence

from quire.privacy.identity.keys import SEED_SIZE, PrivateIdentity, derive
from quire.privacy.identity.roster import Admin, Member, Roster

ROSTER_ID = "ephemeral"


def ephemeral_roster(
    secret: bytes, names: Sequence[str], post_quantum: bool = False
) -> tuple[Roster, dict[str, PrivateIdentity]]:
    """Make a roster, and the private identities of its members, from a secret.

    Parameters
    ----------
    secret : bytes
        32 bytes, derived from the run's seed. The same secret gives the same keys; a name's keys do not depend on
        which other names there are.
    names : sequence of str
        The members; the first has index 0.
    post_quantum : bool
        Whether members sign with ML-DSA-65 as well, which costs milliseconds a key and a signature.

    Returns
    -------
    roster : Roster
        Unsigned, for who makes it needs nobody's word for it. Valid at any time.
    identities : dict of str to PrivateIdentity
        By name, in the order of the names.

    Raises
    ------
    ValueError
        If the secret has another length.
    RosterError
        If there is no name, one twice, or one that no member can have.
    """
    if len(secret) != SEED_SIZE:
        raise ValueError(f"The secret of an ephemeral roster has {SEED_SIZE} bytes.")
    identities = {
        name: PrivateIdentity.from_seed(derive(secret, b"quire/ephemeral/member/1/" + name.encode()), post_quantum)
        for name in names
    }
    admin = PrivateIdentity.from_seed(derive(secret, b"quire/ephemeral/admin/1"))
    members = tuple(Member(index, name, identities[name].public) for index, name in enumerate(names))
    return Roster(ROSTER_ID, 1, members, (Admin("admin", admin.public),), 1, len(members)), identities
