"""A party's keys and rosters on the disk: key files for their owner alone, rosters that are pinned."""

from quire.clients.identity.errors import IdentityFileError, PassphraseNeeded
from quire.clients.identity.keyfile import load_identity, new_identity, read_key_file
from quire.clients.identity.rosters import load_roster, read_roster
from quire.privacy.identity.attested import INTEL, Aggregator, Attested
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.privacy.identity.roster import Member, Roster
from quire.privacy.identity.signed import SignedRoster

__all__ = [
    "INTEL",
    "Aggregator",
    "Attested",
    "IdentityFileError",
    "Member",
    "PassphraseNeeded",
    "PrivateIdentity",
    "PublicIdentity",
    "Roster",
    "SignedRoster",
    "load_identity",
    "load_roster",
    "new_identity",
    "read_key_file",
    "read_roster",
]
