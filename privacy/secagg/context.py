"""What binds a message to its session, round and content: one hash for each use, each with a tag of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.secagg.messages import SHARE_HASH

_NAME = "quire/secagg/{}/1"

#: The log root of the first round, until there is a transparency log.
GENESIS = tagged_hash("quire/secagg/genesis/1")


def tag(use: str) -> str:
    """Return the full tag of a use within this protocol: ``quire/secagg/USE/1``."""
    return _NAME.format(use)


def number(value: int) -> bytes:
    """Return a number as eight bytes, as all hashes of the protocol take it."""
    return value.to_bytes(8, "big")


def indices(members: Sequence[int]) -> bytes:
    """Return roster indices as bytes, two for each, in order."""
    return b"".join(member.to_bytes(2, "big") for member in members)


def config_hash(config: bytes) -> bytes:
    """Return the hash of a session's encoded configuration."""
    return tagged_hash(tag("config"), config)


def session_hash(sid: bytes, roster: bytes, config: bytes, keys: Mapping[int, bytes]) -> bytes:
    """Return h0: the name of a session with its roster, the hash of its configuration, its members and their keys."""
    members = sorted(keys)
    return tagged_hash(tag("session"), sid, roster, config, indices(members), b"".join(keys[i] for i in members))


def round_context(
    session: bytes,
    round_number: int,
    attempt: int,
    cohort: Sequence[int],
    model: bytes,
    log_root: bytes,
) -> bytes:
    """Return ctx, which every secret, commitment and signature of an attempt depends on.

    Parameters
    ----------
    session : bytes
        h0, which the name of the session, the roster and the configuration are in.
    round_number, attempt : int
    cohort : sequence of int
        Roster indices, ascending.
    model : bytes
        32 bytes: the hash of the model that the round starts from, as the party that computes this has it.
    log_root : bytes
        32 bytes: the root of the log before this round, as that party has it.
    """
    return tagged_hash(tag("round"), session, number(round_number), number(attempt), indices(cohort), model, log_root)


def edge_commitment(context: bytes, one: int, other: int, seed: bytes) -> bytes:
    """Return what both ends of a pair publish about their common mask seed."""
    low, high = sorted((one, other))
    return tagged_hash(tag("edge"), context, number(low), number(high), seed)


def secret_commitment(use: str, context: bytes, owner: int, secret: bytes) -> bytes:
    """Return what a member publishes about its self-mask seed (``"self"``) or its seal key (``"seal"``)."""
    return tagged_hash(tag(use), context, number(owner), secret)


def share_hasher(use: str, context: bytes, dealer: int) -> Callable[[int, bytes], bytes]:
    """Return the function of holder and share that gives a share's hash of 16 bytes.

    A share is hashed by itself, as only one of a dealer's two shares is ever revealed. Sixteen bytes suffice: to
    frame anyone takes a second preimage.
    """
    # The prefix is the same for all holders: absorbed once, as a thousand members have a million shares.
    name = tag(f"share-{use}").encode()
    prefix = hashlib.sha256()
    for part in (name, context, number(dealer)):
        prefix.update(number(len(part)) + part)

    def hashed(holder: int, share: bytes) -> bytes:
        digest = prefix.copy()
        digest.update(number(8) + number(holder) + number(len(share)) + share)
        return digest.digest()[:SHARE_HASH]

    return hashed


def survivor_parts(context: bytes, members: Sequence[int], survivors: Sequence[int]) -> tuple[bytes, bytes, bytes]:
    """Return what a confirmation of the survivors signs: the context, U2 and U3."""
    return context, indices(members), indices(survivors)


def members_hash(members: Sequence[int]) -> bytes:
    """Return the hash of a set of members."""
    return tagged_hash(tag("members"), indices(members))
