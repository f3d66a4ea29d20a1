"""The server's side of a session: collect keys, pass sealed halves on, see which pairs agree.

The server keeps no secret. What a member sends is checked where it arrives; what is wrong is noted and left out, so
that no member can stop the others. Replies may come in any order and more than once: the first one counts.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from quire.privacy.identity.errors import BadSignature as BadIdentitySignature
from quire.privacy.identity.keys import PublicIdentity, verify_ed25519
from quire.privacy.secagg import pairs
from quire.privacy.secagg.blame import Blame, blamed, cover
from quire.privacy.secagg.client import check_advert
from quire.privacy.secagg.context import config_hash, session_hash, tag
from quire.privacy.secagg.errors import (
    BY_NUMBER,
    BadSignature,
    ContextMismatch,
    DuplicateKey,
    DuplicateMessage,
    MalformedMessage,
    PairKeyFailure,
    Replay,
    SecAggError,
    StageOrder,
    UnknownIdentity,
)
from quire.privacy.secagg.messages import NO_PEER, Advert, Adverts, Config, Open, PairKeys, Pairs, Ready, Refusal
from quire.privacy.secagg.params import Thresholds, thresholds
from quire.privacy.secagg.wire import Fixed, Indices, Message, Variable

MessageT = TypeVar("MessageT", bound=Message)


class Collecting(IntEnum):
    """What a session waits for."""

    ADVERTS = 0
    PAIRS = 1
    READY = 2
    NOTHING = 3


@dataclass(frozen=True, repr=False)
class SessionRecord(Message):
    """What a server needs to go on with a session after a restart. Nothing in it is secret."""

    sid: bytes
    roster: bytes
    config: bytes
    session: bytes
    members: tuple[int, ...]
    KIND = 48
    FORM = {  # noqa: RUF012
        "sid": Fixed(16),
        "roster": Fixed(32),
        "config": Variable(70000),
        "session": Fixed(32),
        "members": Indices(),
    }


class ServerSession:
    """A session in the making, and then its outcome.

    Parameters
    ----------
    sid : bytes
        16 bytes, never used before.
    config : Config
    members : mapping of int to PublicIdentity
        The roster, by index.
    roster : bytes
        The 32 bytes of its hash.

    Attributes
    ----------
    blame : list of Blame
    members : tuple of int
        Members that can be in a cohort, once the session is made.
    session : bytes
        h0.
    """

    def __init__(self, sid: bytes, config: Config, members: Mapping[int, PublicIdentity], roster: bytes) -> None:
        self.config = config
        self.roster = roster
        self.identities = members
        self.blame: list[Blame] = []
        self.members: tuple[int, ...] = ()
        self.session = b""
        self._open = Open(sid, roster, config.encode())
        self._config_hash = config_hash(self._open.config)
        self._waiting = Collecting.ADVERTS
        self._adverts: dict[int, Advert] = {}
        self._pairs: dict[int, Pairs] = {}
        self._ready: dict[int, Ready] = {}

    @property
    def sid(self) -> bytes:
        """Return the session's name."""
        return self._open.sid

    def open(self) -> bytes:
        """S0: return the message for everybody."""
        return self._open.encode()

    def receive(self, sender: int, data: bytes) -> bool:
        """Take a member's reply of the stage that is under way; return whether it counts.

        Parameters
        ----------
        sender : int
            The roster index that the transport gives; what is not signed by it does not count.
        data : bytes
        """
        stage = self._waiting.name.lower()
        try:
            if note := refused(sender, data, stage):
                self.blame.append(note)
                return False
            if self._waiting is Collecting.ADVERTS:
                return self._receive_advert(sender, data)
            if self._waiting is Collecting.PAIRS:
                return self._receive_pairs(sender, data)
            if self._waiting is Collecting.READY:
                return self._receive_ready(sender, data)
            raise StageOrder("The session is made; nothing more is expected.")
        except SecAggError as error:
            self.blame.append(blamed(sender, stage, type(error), error.peer))
            return False

    def _receive_advert(self, sender: int, data: bytes) -> bool:
        advert = Advert.decode(data)
        sent_by(sender, advert.index, self.identities)
        if (advert.sid, advert.roster, advert.config) != (self.sid, self.roster, self._config_hash):
            raise ContextMismatch("An advert for another session, roster or configuration.")
        check_advert(self.identities[sender], advert)
        if any(other.key == advert.key for index, other in self._adverts.items() if index != sender):
            raise DuplicateKey("An advert with a key that another member has.")
        try:  # here, so that one who signs a key that is none stops nobody but itself
            pairs.seal(bytes(pairs.HALF_SIZE), advert.key, b"")
        except PairKeyFailure:
            self.blame.append(blamed(sender, "adverts", PairKeyFailure, proven=True))
            return False
        return first(self._adverts, sender, advert)

    def adverts(self) -> bytes:
        """S1: close the adverts and return the message for everybody who sent one.

        Raises
        ------
        CohortTooSmall
            If too few did.
        """
        self._step(Collecting.ADVERTS, Collecting.PAIRS, len(self._adverts))
        keys = {index: advert.key for index, advert in self._adverts.items()}
        self.session = session_hash(self.sid, self.roster, self._config_hash, keys)
        rows = {index: (advert.key, advert.signature) for index, advert in self._adverts.items()}
        return Adverts(self.sid, rows).encode()

    @property
    def advertised(self) -> tuple[int, ...]:
        """Return who sent an advert that counts."""
        return tuple(sorted(self._adverts))

    @property
    def adverts_taken(self) -> tuple[bytes, ...]:
        """Return the adverts that count, as they came: with session name, roster and configuration they make h0."""
        return tuple(self._adverts[index].encode() for index in self.advertised)

    def _receive_pairs(self, sender: int, data: bytes) -> bool:
        message = Pairs.decode(data)
        sent_by(sender, message.index, self._adverts)
        self._check(sender, "pairs", message.signed_part(), message.signature, message.session)
        if set(message.ciphertexts) != set(self._adverts) - {sender}:
            raise MalformedMessage("A member sealed halves to others than it was asked to.")
        return first(self._pairs, sender, message)

    def close_pairs(self) -> tuple[int, ...]:
        """Close the halves and return who sent theirs: to each of these goes :meth:`pair_keys`.

        Raises
        ------
        CohortTooSmall
            If too few did.
        """
        self._step(Collecting.PAIRS, Collecting.READY, len(self._pairs))
        return tuple(sorted(self._pairs))

    def pair_keys(self, receiver: int) -> bytes:
        """S2: return the message for one member."""
        rows = {sender: message.ciphertexts[receiver] for sender, message in self._pairs.items() if sender != receiver}
        return PairKeys(self.session, rows).encode()

    def _receive_ready(self, sender: int, data: bytes) -> bool:
        message = Ready.decode(data)
        sent_by(sender, message.index, self._pairs)
        self._check(sender, "ready", message.signed_part(), message.signature, message.session)
        if set(message.checks) != set(self._pairs) - {sender}:
            raise MalformedMessage("A member gives check values for others than it was asked to.")
        return first(self._ready, sender, message)

    def close(self) -> tuple[int, ...]:
        """Close the session and return its members: those of whom every two hold one key.

        Raises
        ------
        CohortTooSmall
            If too few are left.
        """
        wrong = [
            (one, other)
            for one in self._ready
            for other in self._ready
            if one < other and self._ready[one].checks[other] != self._ready[other].checks[one]
        ]
        for one, other in wrong:
            self.blame += [blamed(a, "ready", PairKeyFailure, b) for a, b in ((one, other), (other, one))]
        members = tuple(sorted(set(self._ready) - cover(wrong)))
        self._step(Collecting.READY, Collecting.NOTHING, len(members))
        self.members = members
        self._pairs.clear()
        self._ready.clear()
        return members

    def limits(self, cohort: int) -> Thresholds:
        """Return the thresholds, which are those of the roster, if so many members can keep them.

        Raises
        ------
        CohortTooSmall
        """
        limits = thresholds(self.config.members, self.config.colluders, self.config.min_survivors)
        limits.admit(cohort)
        return limits

    def encode(self) -> bytes:
        """Return what is needed to go on with the session after a restart of the server."""
        return SessionRecord(self.sid, self.roster, self._open.config, self.session, self.members).encode()

    @classmethod
    def decode(cls, data: bytes, members: Mapping[int, PublicIdentity]) -> ServerSession:
        """Read what :meth:`encode` returned, with the roster that the session was made under.

        Raises
        ------
        MalformedMessage
        """
        record = SessionRecord.decode(data)
        made = cls(record.sid, Config.decode(record.config), members, record.roster)
        made.members, made.session, made._waiting = record.members, record.session, Collecting.NOTHING
        return made

    def _step(self, now: Collecting, then: Collecting, count: int) -> None:
        if self._waiting is not now:
            raise StageOrder(f"The session waits for {self._waiting.name.lower()}.")
        self.limits(count)
        self._waiting = then

    def _check(self, sender: int, use: str, part: bytes, signature: bytes, session: bytes) -> None:
        check_signature(self.identities[sender], use, part, signature, sender)
        if session != self.session:
            raise Replay("A message of another session.")


def check_signature(identity: PublicIdentity, use: str, part: bytes, signature: bytes, sender: int) -> None:
    """Check the signature under a member's message.

    Raises
    ------
    BadSignature
    """
    try:
        verify_ed25519(identity, tag(use), (part,), signature)
    except BadIdentitySignature:
        raise BadSignature(f"A message of member {sender} is not signed by it.", sender) from None


def sent_by(sender: int, index: int, known: Container[int]) -> None:
    """Refuse a message that is of another member than it says, or of one that was not asked.

    Raises
    ------
    UnknownIdentity, BadSignature
    """
    if sender not in known:
        raise UnknownIdentity(f"Member {sender} was not asked.", sender)
    if index != sender:
        raise BadSignature(f"A message of member {sender} claims to be of member {index}.", sender)


def refused(sender: int, data: bytes, stage: str) -> Blame | None:
    """Return what to note if a reply is a refusal, None if it is not one."""
    try:
        refusal = Refusal.decode(data)
    except MalformedMessage:
        return None
    kind = BY_NUMBER.get(refusal.number)
    if kind is None or refusal.index != sender:
        raise MalformedMessage("A refusal without a known reason.")
    return Blame(sender, f"{stage} refused", kind.__name__, None if refusal.peer == NO_PEER else refusal.peer)


def first(store: dict[int, MessageT], sender: int, message: MessageT) -> bool:
    """Keep a member's first message; say whether this is it. The same bytes again are no offence.

    Raises
    ------
    DuplicateMessage
        If it is a second, different one.
    """
    if sender not in store:
        store[sender] = message
        return True
    if store[sender] == message:
        return False
    raise DuplicateMessage(f"Member {sender} sent a second message, which differs.", sender)
