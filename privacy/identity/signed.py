"""A roster with its admins' signatures, as it is stored, and the rule by which one roster may follow another.

The document is ``{"roster": body, "signatures": [{"identity": fingerprint, "signature": hex}, ...]}`` in canonical
JSON, signatures in the order of fingerprints. Signatures are outside what is hashed: adding one moves no pin.

The rule is that of The Update Framework's root role (specification, 5.3): a new version carries the signatures of a
quorum of the admins *before*, so that nobody else can replace a roster, and of a quorum of its *own*, so that no
roster hands the consortium to admins who do not hold their keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding, RosterError
from quire.privacy.identity.hashing import DIGEST_SIZE
from quire.privacy.identity.keys import ED25519_SIGNATURE, MLDSA65_SIGNATURE, PrivateIdentity, verify
from quire.privacy.identity.roster import (
    MAX_ADMINS,
    TAG,
    Admin,
    Member,
    Roster,
    fields,
    from_json,
    hexadecimal,
    is_hash,
    to_json,
)

#: The largest file that is read: room for the most members, all with post-quantum keys.
MAX_BYTES = 24 * 2**20
_MAX_SIGNATURE = 2 + ED25519_SIGNATURE + MLDSA65_SIGNATURE


@dataclass(frozen=True)
class Signature:
    """One admin's signature: the fingerprint of who signed, and the bytes of :meth:`PrivateIdentity.sign`.

    Raises
    ------
    BadEncoding
        If the fingerprint is none, or the signature longer than any.
    """

    fingerprint: str
    signature: bytes

    def __post_init__(self) -> None:
        if len(hexadecimal(self.fingerprint, "The identity of a signature")) != DIGEST_SIZE:
            raise BadEncoding("The identity of a signature must be a fingerprint: 64 hexadecimal digits.")
        if len(self.signature) > _MAX_SIGNATURE:
            raise BadEncoding(f"A signature has at most {_MAX_SIGNATURE} bytes.")


@dataclass(frozen=True)
class SignedRoster:
    """A roster and the signatures that came with it; having one says nothing yet, :func:`signers` does.

    Attributes
    ----------
    roster : Roster
        What is signed.
    signatures : tuple of Signature
        In the order of fingerprints, at most one of each.
    """

    roster: Roster
    signatures: tuple[Signature, ...] = ()

    def __post_init__(self) -> None:
        prints = [signature.fingerprint for signature in self.signatures]
        if len(prints) > 2 * MAX_ADMINS:
            raise RosterError(f"A roster has at most {2 * MAX_ADMINS} signatures, and this one {len(prints)}.")
        if prints != sorted(set(prints)):
            raise RosterError("Signatures must stand in the order of their fingerprints, at most one of each admin.")

    def encode(self) -> bytes:
        """Return the document: canonical JSON."""
        signatures = [{"identity": one.fingerprint, "signature": one.signature.hex()} for one in self.signatures]
        return dumps({"roster": to_json(self.roster), "signatures": signatures})

    @classmethod
    def decode(cls, data: bytes) -> SignedRoster:
        """Read a document; no signature is checked yet.

        Parameters
        ----------
        data : bytes
            What :meth:`encode` wrote, at most 24 MiB.

        Raises
        ------
        BadEncoding
            If it is anything but the canonical JSON of a signed roster.
        RosterError
            If the roster contradicts itself.
        """
        found = fields(loads(data, MAX_BYTES), "signed roster", {"roster": dict, "signatures": list})
        if len(found["signatures"]) > 2 * MAX_ADMINS:
            raise BadEncoding(f"'signatures' must be a list of at most {2 * MAX_ADMINS}.")
        items = [fields(item, "signature", {"identity": str, "signature": str}) for item in found["signatures"]]
        signatures = tuple(Signature(one["identity"], hexadecimal(one["signature"], "'signature'")) for one in items)
        return cls(from_json(found["roster"]), signatures)

    def sign(self, admin: PrivateIdentity) -> SignedRoster:
        """Return this roster with one more signature; an earlier one by the same admin is replaced.

        That the signer is an admin is for the caller to check: an admin of the version before may sign as well.
        """
        own = Signature(admin.public.fingerprint, admin.sign(TAG, self.roster.body))
        return self.with_signatures((own,))

    def with_signatures(self, signatures: tuple[Signature, ...]) -> SignedRoster:
        """Return this roster with signatures added; of two by the same admin the new one is kept."""
        every = {one.fingerprint: one for one in (*self.signatures, *signatures)}
        return replace(self, signatures=tuple(every[key] for key in sorted(every)))


def signers(signed: SignedRoster, admins: tuple[Admin, ...]) -> tuple[Admin, ...]:
    """Return who of these admins has signed, every signature checked.

    Parameters
    ----------
    signed : SignedRoster
        The roster.
    admins : tuple of Admin
        Whose signatures are looked for: the roster's own admins, or those of the version before.

    Returns
    -------
    tuple of Admin
        Those with a good signature, each once.

    Raises
    ------
    BadSignature
        If one of them is said to have signed and has not: a bad signature is not passed over as a missing one.
    """
    given = {one.fingerprint: one.signature for one in signed.signatures}
    found = []
    for admin in admins:
        if admin.identity.fingerprint in given:
            verify(admin.identity, TAG, (signed.roster.body,), given[admin.identity.fingerprint])
            found.append(admin)
    return tuple(found)


def check_signed(signed: SignedRoster) -> None:
    """Check that a quorum of a roster's own admins has signed it.

    Signatures of others are passed over from version 2 on: they are the previous admins', and were checked when the
    roster took the place of the previous one (:func:`succeeds`).

    Raises
    ------
    RosterError
        If fewer have, or somebody else has signed a first version.
    BadSignature
        If a signature of one of them is bad.
    """
    if signed.roster.version == 1:
        _strangers(signed, signed.roster.admins, "an admin of it")
    _quorum(signed, signed.roster, "its own admins")


def check_pin(signed: SignedRoster, pin: str) -> None:
    """Check that a roster is the pinned one, and that a quorum of its own admins has signed it.

    Raises
    ------
    RosterError
        If it is another roster, or fewer have signed.
    BadSignature
        If a signature of one of them is bad.
    """
    if not is_hash(pin):
        raise RosterError("A pin is the hash of a roster: 64 hexadecimal digits in lower case.")
    if signed.roster.hash != pin:
        raise RosterError(f"This is not the pinned roster: its hash is {signed.roster.hash}, and the pin is {pin}.")
    check_signed(signed)


def succeeds(old: Roster, new: SignedRoster) -> None:
    """Check that a roster may replace another, which is trusted; return nothing if it may.

    Parameters
    ----------
    old : Roster
        The roster that is pinned.
    new : SignedRoster
        The next version.

    Raises
    ------
    RosterError
        If it is not the next version of the same roster, an index, name or key has gone to somebody else, or a
        quorum of signatures is missing: of the old roster's admins, or of its own.
    BadSignature
        If a signature of one of them is bad.
    """
    check_order(old, new.roster)
    _strangers(new, (*old.admins, *new.roster.admins), "an admin of it or of the version before")
    _quorum(new, old, "the admins of the version before")
    check_signed(new)


def check_order(old: Roster, new: Roster) -> None:
    """Check all of :func:`succeeds` but the signatures: what can be checked before anybody signs.

    Raises
    ------
    RosterError
        If it is not the next version of the same roster, or an index, name or key has gone to somebody else.
    """
    if new.roster_id != old.roster_id:
        raise RosterError(f"The roster {new.roster_id} cannot follow {old.roster_id}: it is another consortium's.")
    if new.version != old.version + 1:
        raise RosterError(f"Version {new.version} cannot follow version {old.version}.")
    if new.previous != old.hash:
        raise RosterError(f"The roster follows {new.previous}, and not {old.hash}, which is pinned.")
    if new.next_index < old.next_index:
        raise RosterError("The roster forgets which indexes were given away before it: 'next_index' went down.")
    indexes = {member.index: member for member in old.members}
    names = {member.name: member for member in old.members}
    keys = {key: member for member in old.members for key in _keys(member)}
    for member in new.members:
        before = indexes.get(member.index)
        if before is None and member.index < old.next_index:
            raise RosterError(f"{member.name} has index {member.index}, which was given away before: take a new one.")
        if before is not None and before.name != member.name:
            raise RosterError(f"Index {member.index} belongs to {before.name} and cannot go to {member.name}.")
        if member.name in names and names[member.name].index != member.index:
            raise RosterError(f"{member.name} has index {names[member.name].index} and cannot get {member.index}.")
        for key in _keys(member):
            if key in keys and keys[key].name != member.name:
                raise RosterError(f"{member.name} has a key that belongs to {keys[key].name}.")


def _quorum(signed: SignedRoster, authority: Roster, who: str) -> None:
    found = signers(signed, authority.admins)
    if len(found) < authority.quorum:
        names = f" ({', '.join(admin.name for admin in found)})" if found else ""
        raise RosterError(
            f"The roster is signed by {len(found)} of {who}{names}, and needs {authority.quorum}: have others sign it."
        )


def _strangers(signed: SignedRoster, admins: tuple[Admin, ...], who: str) -> None:
    known = {admin.identity.fingerprint for admin in admins}
    for one in signed.signatures:
        if one.fingerprint not in known:
            raise RosterError(f"The roster is signed by {one.fingerprint[:16]}, who is not {who}.")


def _keys(member: Member) -> tuple[bytes, ...]:
    second = member.identity.mldsa65
    return (member.identity.ed25519,) if second is None else (member.identity.ed25519, second)
