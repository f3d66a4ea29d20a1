"""The server's side of a round, as a collector: whoever does not answer, or answers wrongly, is simply not counted.

Memory: masked vectors are added to one running sum as they arrive and are not kept, so that the server holds one
vector of 32-bit words and the packed vector that it is just reading.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np

from quire.privacy.identity.errors import BadSignature as BadIdentitySignature
from quire.privacy.identity.keys import verify_ed25519
from quire.privacy.secagg import masks
from quire.privacy.secagg.blame import Blame, blamed, cover
from quire.privacy.secagg.context import members_hash, round_context, survivor_parts, tag
from quire.privacy.secagg.errors import (
    BadSignature,
    BadSurvivorSignature,
    BadVector,
    ContextMismatch,
    DuplicateMessage,
    EdgeMismatch,
    MalformedMessage,
    NoQuorum,
    Replay,
    SecAggError,
    StageOrder,
    TooFewClients,
    TooFewSurvivors,
    UnknownIdentity,
    UnrecoverableShare,
)
from quire.privacy.secagg.messages import (
    ConfirmRequest,
    Masked,
    MaskRequest,
    Shares,
    Start,
    Survivors,
    Unmasked,
    UnmaskRequest,
)
from quire.privacy.secagg.server_session import ServerSession, check_signature, first, refused
from quire.privacy.secagg.state import position
from quire.privacy.secagg.unmask import Opener


class Collecting(IntEnum):
    """What a round waits for."""

    SHARES = 0
    MASKED = 1
    SURVIVORS = 2
    UNMASKED = 3
    NOTHING = 4


class ServerRound:
    """One attempt of one round.

    Parameters
    ----------
    session : ServerSession
        Whose keys are agreed.
    round_number, attempt : int
        Within what the session was made for; never used before.
    cohort : tuple of int
        Members of the session.
    model : bytes
        32 bytes: the hash of the model that travels with the first message.
    log_root : bytes
        32 bytes.

    Attributes
    ----------
    blame : list of Blame
    context : bytes
    u2, u3 : tuple of int
        Who sent shares, who sent a masked vector; once these are closed.

    Raises
    ------
    CohortTooSmall, SessionExpired, UnknownIdentity
    """

    def __init__(
        self,
        session: ServerSession,
        round_number: int,
        attempt: int,
        cohort: tuple[int, ...],
        model: bytes,
        log_root: bytes,
    ) -> None:
        cohort = tuple(sorted(cohort))
        position(session.config, round_number, attempt)
        if len(set(cohort)) != len(cohort) or not set(cohort) <= set(session.members):
            raise UnknownIdentity("The cohort has members that the session does not have.")
        self.limits = session.limits(len(cohort))
        self.cohort = cohort
        self.blame: list[Blame] = []
        self.u2: tuple[int, ...] = ()
        self.u3: tuple[int, ...] = ()
        self.context = round_context(session.session, round_number, attempt, cohort, model, log_root)
        self._config = session.config
        self._identities = session.identities
        self._start = Start(session.session, round_number, attempt, cohort)
        self._waiting = Collecting.SHARES
        self._shares: dict[int, Shares] = {}
        self._digests: dict[int, bytes] = {}
        self._confirmations: dict[int, bytes] = {}
        self._unmasked: dict[int, Unmasked] = {}
        self._sum = np.zeros(0, dtype=np.uint32)

    def start(self) -> bytes:
        """X1: return the message for the cohort, which the model travels beside."""
        return self._start.encode()

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
            asked = (self.cohort, self.u2, self.u3, self.u3, ())[self._waiting]
            if sender not in asked:
                raise UnknownIdentity(f"Member {sender} was not asked.", sender)
            if note := refused(sender, data, stage):
                self.blame.append(note)
                return False
            if self._waiting is Collecting.SHARES:
                return self._receive_shares(sender, data)
            if self._waiting is Collecting.MASKED:
                return self._receive_masked(sender, data)
            if self._waiting is Collecting.SURVIVORS:
                return self._receive_survivors(sender, data)
            return self._receive_unmasked(sender, data)
        except SecAggError as error:
            self.blame.append(blamed(sender, stage, type(error), error.peer))
            return False

    def _receive_shares(self, sender: int, data: bytes) -> bool:
        message = Shares.decode(data)
        self._authentic(sender, message, "shares")
        others = [index for index in self.cohort if index != sender]
        if list(message.peers) != others or tuple(message.hashes) != self.cohort:
            raise MalformedMessage("Shares for others than the cohort.")
        if len(message.sealed) != 32 * len(others) + 16:
            raise MalformedMessage("A sealed list of another length.")
        return first(self._shares, sender, message)

    def close_shares(self) -> tuple[int, ...]:
        """X2: choose U2, and return it: to each of these goes :meth:`mask_request`.

        Pairs whose commitments to their mask seed differ are named, and broken up, before anything is masked.

        Raises
        ------
        TooFewClients
        """
        self._step(Collecting.SHARES, Collecting.MASKED)
        present = sorted(self._shares)
        edges = {index: {peer: row[1] for peer, row in self._shares[index].peers.items()} for index in present}
        wrong = [
            (one, other)
            for at, one in enumerate(present)
            for other in present[at + 1 :]
            if edges[one][other] != edges[other][one]
        ]
        for one, other in wrong:
            self.blame += [blamed(a, "shares", EdgeMismatch, b, True) for a, b in ((one, other), (other, one))]
        self.u2 = tuple(sorted(set(present) - cover(wrong)))
        self._enough(self.u2, TooFewClients)
        self._sum = np.zeros(self._config.length, dtype=np.uint32)
        return self.u2

    def mask_request(self, receiver: int) -> bytes:
        """X2: return the message for one member of U2."""
        rows = {}
        for dealer in self.u2:
            if dealer != receiver:
                dealt = self._shares[dealer]
                rows[dealer] = (dealt.salt, dealt.peers[receiver][0], *dealt.hashes[receiver])
        return MaskRequest(self.context, self.u2, rows).encode()

    def _receive_masked(self, sender: int, data: bytes) -> bool:
        message = Masked.decode(data)
        self._authentic(sender, message, "masked")
        if sender in self._digests:
            if self._digests[sender] == message.digest:
                return False
            raise DuplicateMessage(f"Member {sender} sent a second vector.", sender)
        if message.members != members_hash(self.u2):
            raise ContextMismatch("A vector masked for another U2.")
        if len(message.vector) != masks.packed_size(self._config.length, self._config.bits):
            raise BadVector("A vector of another length.")
        if hashlib.sha256(message.vector).digest() != message.digest:
            raise BadVector("A vector that is not the one that was signed.")
        masks.add_packed(self._sum, message.vector, self._config.bits)
        self._digests[sender] = message.digest
        return True

    def close_masked(self) -> bytes:
        """X3: fix U3 and return the message for its members.

        Raises
        ------
        TooFewSurvivors
        """
        self._step(Collecting.MASKED, Collecting.SURVIVORS)
        self.u3 = tuple(sorted(self._digests))
        self._enough(self.u3, TooFewSurvivors)
        return ConfirmRequest(self.context, self.u3).encode()

    def _receive_survivors(self, sender: int, data: bytes) -> bool:
        message = Survivors.decode(data)
        if message.index != sender:
            raise BadSignature("A confirmation of someone else.", sender)
        if message.context != self.context:
            raise Replay("A confirmation of another attempt.")
        parts = survivor_parts(self.context, self.u2, self.u3)
        try:
            verify_ed25519(self._identities[sender], tag("survivors"), parts, message.confirmation)
        except BadIdentitySignature:
            raise BadSurvivorSignature(f"Member {sender} did not sign these survivors.", sender) from None
        return self._confirmations.setdefault(sender, message.confirmation) is message.confirmation

    def close_survivors(self) -> bytes:
        """X4: return the message, with a quorum of signatures, for those who confirmed.

        Raises
        ------
        NoQuorum
        """
        chosen = self._quorum()
        return UnmaskRequest(self.context, {index: (self._confirmations[index],) for index in chosen}).encode()

    def _quorum(self) -> tuple[int, ...]:
        self._step(Collecting.SURVIVORS, Collecting.UNMASKED)
        if len(self._confirmations) < self.limits.threshold:
            raise NoQuorum(f"{len(self._confirmations)} confirmed, and {self.limits.threshold} have to.")
        # As many as are needed and no more: everybody has to check each of them.
        return self.confirmed[: self.limits.threshold]

    @property
    def confirmed(self) -> tuple[int, ...]:
        """Return who confirmed the survivors."""
        return tuple(sorted(self._confirmations))

    def _receive_unmasked(self, sender: int, data: bytes) -> bool:
        message = Unmasked.decode(data)
        self._authentic(sender, message, "unmasked")
        dropped = [index for index in self.u2 if index not in self.u3]
        if tuple(message.survivors) != self.u3 or list(message.dropped) != dropped:
            raise MalformedMessage("Shares of others than were asked for.")
        return first(self._unmasked, sender, message)

    def unmask(self) -> masks.Words:
        """Open the secrets, take the masks off and return the sum over U3, modulo 2**bits in 32-bit words.

        May be called again after more replies have come, if too few were good.

        Raises
        ------
        UnrecoverableShare, SealedListMismatch
            Naming the member whose secret does not come out, if it is one; nothing is released then.
        """
        if self._waiting is not Collecting.UNMASKED:
            raise StageOrder(f"The round waits for {self._waiting.name.lower()}.")
        if len(self._unmasked) < self.limits.threshold:
            raise UnrecoverableShare(f"{len(self._unmasked)} members gave shares, and {self.limits.threshold} have to.")
        opener = Opener(self.context, self.cohort, self.u2, self.u3, self.limits.threshold, self._shares)
        try:
            plus, minus = opener.open(self._unmasked)
        finally:
            self.blame += [note for note in opener.blame if note not in self.blame]
        masks.add_masks(self._sum, plus, minus)
        self._waiting = Collecting.NOTHING
        self._shares.clear()
        self._unmasked.clear()
        total, self._sum = self._sum, np.zeros(0, dtype=np.uint32)
        return total

    @property
    def digests(self) -> dict[int, bytes]:
        """Return the SHA-256 of every masked vector that counts, for the log."""
        return dict(self._digests)

    def _authentic(self, sender: int, message: Shares | Masked | Unmasked, use: str) -> None:
        if message.index != sender:
            raise BadSignature(f"A message of member {sender} claims to be of member {message.index}.", sender)
        check_signature(self._identities[sender], use, message.signed_part(), message.signature, sender)
        if message.context != self.context:
            raise ContextMismatch("A message for another model, cohort, round, attempt or log.")

    def _enough(self, members: tuple[int, ...], error: type[SecAggError]) -> None:
        if len(members) < self.limits.min_survivors:
            raise error(f"{len(members)} members are left, and {self.limits.min_survivors} are needed.")

    def _step(self, now: Collecting, then: Collecting) -> None:
        if self._waiting is not now:
            raise StageOrder(f"The round waits for {self._waiting.name.lower()}.")
        self._waiting = then
