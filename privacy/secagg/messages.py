"""The messages of SecAgg-Q, in the order in which they travel.

Of a session: ``Open`` and ``Advert``, ``Adverts`` and ``Pairs``, ``PairKeys`` and ``Ready``. Of a round: ``Start`` and
``Shares``, ``MaskRequest`` and ``Masked``, ``ConfirmRequest`` and ``Survivors``, ``UnmaskRequest`` and ``Unmasked``.
``Refusal`` may answer any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.privacy.secagg.errors import BadCohort, BadSurvivorSignature, BadU3, DuplicateIdentity
from quire.privacy.secagg.params import MAX_LENGTH
from quire.privacy.secagg.shamir import SHARE_SIZE
from quire.privacy.secagg.wire import Fixed, Indices, Message, Number, Records, Variable

SESSION_ID = 16
HASH = 32
PUBLIC_KEY = 1216  # ML-KEM-768 and X25519
PAIR_CIPHERTEXT = 1168  # HPKE of 32 bytes
SHARE_CIPHERTEXT = 2 * SHARE_SIZE + 16  # two shares and the tag of AES-GCM
SHARE_HASH = 16
SALT = 16
CHECK = 16
SIGNATURE = 64
ADVERT_SIGNATURE = 4096  # at most; an Ed25519 signature, with ML-DSA-65 beside it where the roster has that
NO_PEER = 0xFFFF


@dataclass(frozen=True, repr=False)
class Config(Message):
    """What all members of a session agree on; its hash enters everything.

    Attributes
    ----------
    run : bytes
        16 bytes that name the run.
    first_round : int
        The first round of this session.
    rounds : int
        How many rounds its keys serve.
    attempts : int
        How many attempts a round may have.
    members : int
        How many members the roster lists, n, or the group of it that is summed apart: what the thresholds of every
        session and cohort are counted from.
    colluders : int
        Roster members that may work with the server, c.
    min_survivors : int
        The fewest survivors beyond what the protocol asks for; 0 leaves it at that.
    bits : int
        Bits of a coordinate on the wire.
    length : int
        Coordinates of the vector.
    application : bytes
        What the layers above agree on (encoding, privacy), in an encoding of their own that has to be canonical.
    """

    run: bytes
    first_round: int
    rounds: int
    attempts: int
    members: int
    colluders: int
    min_survivors: int
    bits: int
    length: int
    application: bytes = b""
    KIND = 1
    FORM = {  # noqa: RUF012
        "run": Fixed(SESSION_ID),
        "first_round": Number(4),
        "rounds": Number(2),
        "attempts": Number(1),
        "members": Number(2),
        "colluders": Number(2),
        "min_survivors": Number(2),
        "bits": Number(1),
        "length": Number(4),
        "application": Variable(65536),
    }


@dataclass(frozen=True, repr=False)
class Open(Message):
    """S0, down: a session with this name and this configuration."""

    sid: bytes
    roster: bytes
    config: bytes
    KIND = 2
    FORM = {"sid": Fixed(SESSION_ID), "roster": Fixed(HASH), "config": Variable(70000)}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class Advert(Message):
    """S0, up: a member's fresh public key, signed by its identity."""

    index: int
    sid: bytes
    roster: bytes
    config: bytes
    key: bytes
    signature: bytes
    KIND = 3
    FORM = {  # noqa: RUF012
        "index": Number(2),
        "sid": Fixed(SESSION_ID),
        "roster": Fixed(HASH),
        "config": Fixed(HASH),
        "key": Fixed(PUBLIC_KEY),
        "signature": Variable(ADVERT_SIGNATURE),
    }


@dataclass(frozen=True, repr=False)
class Adverts(Message):
    """S1, down: every member's key and signature. What else an advert says, the reader knows."""

    sid: bytes
    adverts: dict[int, tuple[bytes, bytes]]
    KIND = 4
    FORM = {  # noqa: RUF012
        "sid": Fixed(SESSION_ID),
        "adverts": Records(Fixed(PUBLIC_KEY), Variable(ADVERT_SIGNATURE), wrong=DuplicateIdentity),
    }


@dataclass(frozen=True, repr=False)
class Pairs(Message):
    """S1, up: 32 random bytes for every other member, each sealed to its key."""

    index: int
    session: bytes
    ciphertexts: dict[int, tuple[bytes]]
    signature: bytes
    KIND = 5
    FORM = {  # noqa: RUF012
        "index": Number(2),
        "session": Fixed(HASH),
        "ciphertexts": Records(Fixed(PAIR_CIPHERTEXT), wrong=DuplicateIdentity),
        "signature": Fixed(SIGNATURE),
    }


@dataclass(frozen=True, repr=False)
class PairKeys(Message):
    """S2, down: what the others sealed to the reader. Their own keys vouch for it: see ``pairs.py``."""

    session: bytes
    ciphertexts: dict[int, tuple[bytes]]
    KIND = 6
    FORM = {  # noqa: RUF012
        "session": Fixed(HASH),
        "ciphertexts": Records(Fixed(PAIR_CIPHERTEXT), wrong=DuplicateIdentity),
    }


@dataclass(frozen=True, repr=False)
class Ready(Message):
    """S2, up: for every pair a check value, by which the server sees that both ends hold one key."""

    index: int
    session: bytes
    checks: dict[int, tuple[bytes]]
    signature: bytes
    KIND = 7
    FORM = {  # noqa: RUF012
        "index": Number(2),
        "session": Fixed(HASH),
        "checks": Records(Fixed(CHECK), wrong=DuplicateIdentity),
        "signature": Fixed(SIGNATURE),
    }


@dataclass(frozen=True, repr=False)
class Start(Message):
    """X1, down, beside the model: which round, which attempt, with whom."""

    session: bytes
    round: int
    attempt: int
    cohort: tuple[int, ...]
    KIND = 8
    FORM = {  # noqa: RUF012
        "session": Fixed(HASH),
        "round": Number(4),
        "attempt": Number(1),
        "cohort": Indices(BadCohort),
    }


@dataclass(frozen=True, repr=False)
class Shares(Message):
    """X1, up: shares of two secrets for every member, the sealed list of mask seeds, and commitments to all of it.

    Attributes
    ----------
    salt : bytes
        Enters the keys of the share ciphertexts, so that even a silo restored from a copy of itself uses none twice.
    peers : dict
        For every other member the sealed shares and the commitment to the common mask seed.
    hashes : dict
        For every member, the dealer included, a hash of either share.
    """

    index: int
    context: bytes
    salt: bytes
    peers: dict[int, tuple[bytes, bytes]]
    hashes: dict[int, tuple[bytes, bytes]]
    sealed: bytes
    self_commitment: bytes
    seal_commitment: bytes
    signature: bytes
    KIND = 9
    FORM = {  # noqa: RUF012
        "index": Number(2),
        "context": Fixed(HASH),
        "salt": Fixed(SALT),
        "peers": Records(Fixed(SHARE_CIPHERTEXT), Fixed(HASH), wrong=BadCohort),
        "hashes": Records(Fixed(SHARE_HASH), Fixed(SHARE_HASH), wrong=BadCohort),
        "sealed": Variable(32 * 2048 + 16),
        "self_commitment": Fixed(HASH),
        "seal_commitment": Fixed(HASH),
        "signature": Fixed(SIGNATURE),
    }


@dataclass(frozen=True, repr=False)
class MaskRequest(Message):
    """X2, down: the set U2 that sent shares, and the shares for the reader: salt, ciphertext and both hashes."""

    context: bytes
    members: tuple[int, ...]
    shares: dict[int, tuple[bytes, bytes, bytes, bytes]]
    KIND = 10
    FORM = {  # noqa: RUF012
        "context": Fixed(HASH),
        "members": Indices(BadCohort),
        "shares": Records(Fixed(SALT), Fixed(SHARE_CIPHERTEXT), Fixed(SHARE_HASH), Fixed(SHARE_HASH), wrong=BadCohort),
    }


@dataclass(frozen=True, repr=False)
class Masked(Message):
    """X2, up: the masked vector, packed. The signature covers its hash, and the hash of U2."""

    index: int
    context: bytes
    members: bytes
    digest: bytes
    signature: bytes
    vector: bytes
    KIND = 11
    LIMIT = 4 * MAX_LENGTH + 1024
    FORM = {  # noqa: RUF012
        "index": Number(2),
        "context": Fixed(HASH),
        "members": Fixed(HASH),
        "digest": Fixed(HASH),
        "signature": Fixed(SIGNATURE),
        "vector": Variable(4 * MAX_LENGTH),
    }


@dataclass(frozen=True, repr=False)
class ConfirmRequest(Message):
    """X3, down: the set U3 whose masked vectors arrived."""

    context: bytes
    survivors: tuple[int, ...]
    KIND = 12
    FORM = {"context": Fixed(HASH), "survivors": Indices(BadU3)}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class Survivors(Message):
    """X3, up: a signature over the context, U2 and U3."""

    index: int
    context: bytes
    confirmation: bytes
    KIND = 13
    FORM = {"index": Number(2), "context": Fixed(HASH), "confirmation": Fixed(SIGNATURE)}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class UnmaskRequest(Message):
    """X4, down: who signed the set of survivors."""

    context: bytes
    confirmations: dict[int, tuple[bytes]]
    KIND = 14
    FORM = {  # noqa: RUF012
        "context": Fixed(HASH),
        "confirmations": Records(Fixed(SIGNATURE), wrong=BadSurvivorSignature),
    }


@dataclass(frozen=True, repr=False)
class Unmasked(Message):
    """X4, up: of every survivor the share of its self-mask seed, of everyone else the share of its seal key."""

    index: int
    context: bytes
    survivors: dict[int, tuple[bytes]]
    dropped: dict[int, tuple[bytes]]
    signature: bytes
    KIND = 15
    FORM = {  # noqa: RUF012
        "index": Number(2),
        "context": Fixed(HASH),
        "survivors": Records(Fixed(SHARE_SIZE)),
        "dropped": Records(Fixed(SHARE_SIZE)),
        "signature": Fixed(SIGNATURE),
    }


@dataclass(frozen=True, repr=False)
class Refusal(Message):
    """Any stage, up: why there is no reply, as a number, and whom it is about. Not signed, and proof of nothing."""

    index: int
    number: int
    peer: int = NO_PEER
    KIND = 16
    FORM = {"index": Number(2), "number": Number(1), "peer": Number(2)}  # noqa: RUF012
