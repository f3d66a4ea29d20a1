"""A charter with its members' signatures, and the rule by which one version may follow another.

The document is ``{"charter": body, "signatures": [{"identity": fingerprint, "signature": hex, "signed_at": seconds},
...]}`` in canonical JSON, signatures in the order of fingerprints. They are outside what is hashed.

Who decides on an amendment is decided by the version *before*: as many of its members as its ``amendments`` says have
to sign, whatever the amendment says about members and numbers. Otherwise two who write a charter with themselves as
its only members would have amended everybody else's. And as many of its *own* members as ``needed`` says have to sign,
so that nobody is made a member under keys that nobody holds (as in The Update Framework, specification, 5.3).

A signature says when it was made. It counts if that is not before the charter was proposed, and not after it is in
force: what was signed too late for the time that it claims would be backdated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quire.charter.document import MAX_MEMBERS, Charter, from_json, to_json
from quire.charter.errors import CharterError, CharterRefused, sentences
from quire.charter.parts import Member, check_time
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadSignature
from quire.privacy.identity.hashing import DIGEST_SIZE
from quire.privacy.identity.keys import ED25519_SIGNATURE, MLDSA65_SIGNATURE, PrivateIdentity, PublicIdentity, verify
from quire.privacy.identity.roster import fields, hexadecimal

#: The largest file that is read: room for the most members, all with post-quantum keys.
MAX_BYTES = 8 * 2**20
TAG = "quire/charter/signature/1"
_MAX_SIGNATURE = 2 + ED25519_SIGNATURE + MLDSA65_SIGNATURE


@dataclass(frozen=True)
class Signature:
    """One member's signature.

    Attributes
    ----------
    fingerprint : str
        Of who signed.
    signed_at : int
        When, by the signer's own clock: seconds since 1970 UTC. It is signed too.
    signature : bytes
        Of :meth:`~quire.privacy.identity.keys.PrivateIdentity.sign`: Ed25519, and ML-DSA-65 where the member has it.
    """

    fingerprint: str
    signed_at: int
    signature: bytes

    def __post_init__(self) -> None:
        with sentences():
            if len(hexadecimal(self.fingerprint, "The identity of a signature")) != DIGEST_SIZE:
                raise CharterError("The identity of a signature must be a fingerprint: 64 hexadecimal digits.")
        check_time(self.signed_at, "'signed_at'")
        if len(self.signature) > _MAX_SIGNATURE:
            raise CharterError(f"A signature has at most {_MAX_SIGNATURE} bytes.")


@dataclass(frozen=True)
class SignedCharter:
    """A charter and the signatures that came with it; having one says nothing yet, :func:`signers` does.

    Attributes
    ----------
    charter : Charter
    signatures : tuple of Signature
        In the order of fingerprints, at most one of each.
    """

    charter: Charter
    signatures: tuple[Signature, ...] = ()

    def __post_init__(self) -> None:
        prints = [signature.fingerprint for signature in self.signatures]
        if len(prints) > 2 * MAX_MEMBERS or prints != sorted(set(prints)):
            raise CharterError("Signatures must stand in the order of their fingerprints, at most one of each member.")

    def encode(self) -> bytes:
        """Return the document: canonical JSON."""
        signatures = [
            {"identity": one.fingerprint, "signed_at": one.signed_at, "signature": one.signature.hex()}
            for one in self.signatures
        ]
        return dumps({"charter": to_json(self.charter), "signatures": signatures})

    @classmethod
    def decode(cls, data: bytes) -> SignedCharter:
        """Read a document; no signature is checked yet.

        Parameters
        ----------
        data : bytes
            What :meth:`encode` wrote, at most 8 MiB.

        Raises
        ------
        CharterError
            If it is anything but the canonical JSON of a signed charter, or contradicts itself.
        """
        with sentences():
            found = fields(loads(data, MAX_BYTES), "signed charter", {"charter": dict, "signatures": list})
            if len(found["signatures"]) > 2 * MAX_MEMBERS:
                raise CharterError(f"'signatures' must be a list of at most {2 * MAX_MEMBERS}.")
            keys: dict[str, type | None] = {"identity": str, "signed_at": int, "signature": str}
            items = [fields(item, "signature", keys) for item in found["signatures"]]
            signatures = tuple(
                Signature(one["identity"], one["signed_at"], hexadecimal(one["signature"], "'signature'"))
                for one in items
            )
        return cls(from_json(found["charter"]), signatures)

    def sign(self, member: PrivateIdentity, now: int, previous: Charter | None = None) -> SignedCharter:
        """Return this charter with one more signature.

        Parameters
        ----------
        member : PrivateIdentity
            A member of this version, or of the one before.
        now : int
            Seconds since 1970 UTC.
        previous : Charter or None
            The version before.

        Raises
        ------
        CharterError
            If the signer is no member, has signed already, or is too late. A bad signature in the signer's name is no
            signing: it is replaced.
        """
        fingerprint, charter = member.public.fingerprint, self.charter
        if previous is not None:
            check_order(previous, charter)
        if not any(known is not None and known.signer(fingerprint) for known in (charter, previous)):
            hint = " or of the version before" if previous is not None else ""
            later = ": a member of the version before names that one too (--previous)"
            raise CharterError(
                f"The key {fingerprint[:16]} belongs to no member of {charter.label}{hint}"
                f"{later if charter.version > 1 and previous is None else ''}."
            )
        others = tuple(one for one in self.signatures if one.fingerprint != fingerprint)
        there = [one for one in self.signatures if one.fingerprint == fingerprint]
        if there and _good(charter, member.public, there[0]):
            raise CharterError(f"The key {fingerprint[:16]} has signed {charter.label} already.")
        if now < charter.issued:
            raise CharterError(f"{_begin(charter.label)} was proposed later than this machine's clock says: set it.")
        if now > charter.not_before:
            raise CharterError(
                f"It is too late to sign {charter.label}: it was to be in force by now, and a signature made later "
                "would be backdated; propose it anew with a later 'not_before'."
            )
        made = Signature(fingerprint, now, member.sign(TAG, *_parts(charter, now)))
        return replace(self, signatures=others).with_signatures((made,))

    def with_checked(self, signatures: tuple[Signature, ...], members: tuple[Member, ...]) -> SignedCharter:
        """Return this charter with signatures added, each checked before; one that is good already is kept.

        Parameters
        ----------
        signatures : tuple of Signature
        members : tuple of Member
            Who may have signed: of this version and, if it is at hand, of the one before.

        Raises
        ------
        CharterRefused
            If one of them is bad, counts for nothing at its time, or is nobody's of these.
        """
        known = {member.identity.fingerprint: member for member in members}
        kept = {one.fingerprint: one for one in self.signatures}
        for one in signatures:
            member = known.get(one.fingerprint)
            if member is None:
                raise CharterRefused(
                    f"The key {one.fingerprint[:16]} has signed {self.charter.label}, and is no member's that is known "
                    "here: for a member of the version before name that one too (--previous)."
                )
            check_signature(self.charter, member, one)
            there = kept.get(one.fingerprint)
            if there is None or not _good(self.charter, member.identity, there) or one.signed_at < there.signed_at:
                kept[one.fingerprint] = one
        return replace(self, signatures=tuple(kept[key] for key in sorted(kept)))

    def with_signatures(self, signatures: tuple[Signature, ...]) -> SignedCharter:
        """Return this charter with signatures added, none of them checked; of two by one member the earlier is kept.

        For those who check all of them afterwards and keep nothing if one is bad. A file that is to be written takes
        :meth:`with_checked`.
        """
        every: dict[str, Signature] = {}
        for one in sorted((*self.signatures, *signatures), key=lambda one: -one.signed_at):
            every[one.fingerprint] = one
        return replace(self, signatures=tuple(every[key] for key in sorted(every)))


def signers(signed: SignedCharter, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Return who of these members has signed, every signature checked.

    Raises
    ------
    CharterRefused
        If one of them is said to have signed and has not, or has signed at a time at which it counts for nothing: a
        bad signature is not passed over as a missing one.
    """
    given = {one.fingerprint: one for one in signed.signatures}
    found = []
    for member in members:
        one = given.get(member.identity.fingerprint)
        if one is None:
            continue
        check_signature(signed.charter, member, one)
        found.append(member)
    return tuple(found)


def check_signature(charter: Charter, member: Member, one: Signature) -> None:
    """Check that a signature is this member's, and was made at a time at which it counts.

    Raises
    ------
    CharterRefused
        If not.
    """
    try:
        verify(member.identity, TAG, _parts(charter, one.signed_at), one.signature)
    except BadSignature as error:
        raise CharterRefused(f"The signature of {member.name} under {charter.label} is bad: {error}") from None
    if one.signed_at < charter.issued:
        raise CharterRefused(
            f"{member.name} signed {charter.label} before it was proposed: one of the two is backdated."
        )
    if one.signed_at > charter.not_before:
        raise CharterRefused(
            f"{member.name} signed {charter.label} after the time from which it claims to be in force: it is backdated."
        )


def _good(charter: Charter, identity: PublicIdentity, one: Signature) -> bool:
    try:
        check_signature(charter, Member("signer", identity), one)
    except CharterRefused:
        return False
    return True


def check_own(signed: SignedCharter) -> None:
    """Check that enough of a charter's own members have signed it.

    Raises
    ------
    CharterRefused
        If fewer have, a signature is bad, or somebody else has signed a first version.
    """
    charter = signed.charter
    if charter.version == 1:
        _strangers(signed, charter.members, "a member of it")
    _quorum(signed, charter.members, charter.needed, "its members")


def check_succession(old: Charter, new: SignedCharter) -> None:
    """Check that a charter may follow another, which is trusted.

    Raises
    ------
    CharterRefused
        If it is not the next version of the same charter, is backdated, or lacks signatures: of the members of the
        version before, as its ``amendments`` says, or of its own, as its ``needed`` says.
    """
    check_order(old, new.charter)
    _strangers(new, (*old.members, *new.charter.members), "a member of it or of the version before")
    _quorum(new, old.members, old.amendments, "the members of the version before")
    check_own(new)


def check_order(old: Charter, new: Charter) -> None:
    """Check all of :func:`check_succession` but the signatures.

    Raises
    ------
    CharterRefused
        If it is not the next version of the same charter, or is backdated.
    """
    if new.charter_id != old.charter_id:
        raise CharterRefused(f"The charter {new.charter_id} cannot follow {old.charter_id}: it is another one.")
    if new.version != old.version + 1:
        raise CharterRefused(f"Version {new.version} of {new.charter_id} cannot follow version {old.version}.")
    if new.previous != old.hash:
        raise CharterRefused(
            f"Version {new.version} of {new.charter_id} follows {str(new.previous)[:16]}, and not {old.hash[:16]}, "
            f"which is version {old.version} here."
        )
    if new.issued <= old.issued or new.not_before <= old.not_before:
        raise CharterRefused(
            f"Version {new.version} of {new.charter_id} is backdated: it must be proposed, and take force, later than "
            "the version before."
        )


def _parts(charter: Charter, signed_at: int) -> tuple[bytes, bytes]:
    return charter.body, signed_at.to_bytes(8, "big")


def _quorum(signed: SignedCharter, members: tuple[Member, ...], needed: int, who: str) -> None:
    found = signers(signed, members)
    if len(found) < needed:
        names = f" ({', '.join(member.name for member in found)})" if found else ""
        raise CharterRefused(
            f"{_begin(signed.charter.label)} is signed by {len(found)} of {len(members)} of {who}{names}, and needs "
            f"{needed}."
        )


def _strangers(signed: SignedCharter, members: tuple[Member, ...], who: str) -> None:
    known = {member.identity.fingerprint for member in members}
    for one in signed.signatures:
        if one.fingerprint not in known:
            raise CharterRefused(f"The key {one.fingerprint[:16]} has signed {signed.charter.label}, and is not {who}.")


def _begin(label: str) -> str:
    return label[:1].upper() + label[1:]
