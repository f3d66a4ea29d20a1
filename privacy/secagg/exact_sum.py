"""The short cut of a simulation: the exchanges, checks and sums of the protocol, and none of its cryptography.

``aggregation.simulate=exact_sum`` takes these stages in the place of those in ``client.py`` and ``client_round.py``,
and this session and round in the place of the server's. **Nothing here hides anything**: vectors travel in clear, and
nobody signs. What decides who is in a sum is the very code of the protocol (policy, thresholds, the order of stages,
replays, the sets U2 and U3), and what is added is the very words, modulo the same power of two. So a round comes to the
same sum, is tried again, or is lost, as under the protocol; tests hold the models of both to each other, bit for bit.

Its messages are of kinds that the protocol does not know: no party of it takes them, nor does this take any of theirs
in which there is a key, a mask, a share or a signature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from quire.privacy.dp.wire import pack
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.secagg import masks
from quire.privacy.secagg.blame import blamed
from quire.privacy.secagg.client import Party, Step, admitted, resending
from quire.privacy.secagg.client_round import begun, check_dealers, check_survivors
from quire.privacy.secagg.context import config_hash, round_context, tag
from quire.privacy.secagg.errors import (
    BadSurvivorSignature,
    BadVector,
    ContextMismatch,
    NoQuorum,
    OwnKeyMissing,
    Replay,
    SecAggError,
    StageOrder,
    TooFewClients,
    UnknownIdentity,
    UnrecoverableShare,
)
from quire.privacy.secagg.messages import HASH, Config, ConfirmRequest, Open
from quire.privacy.secagg.params import MAX_LENGTH
from quire.privacy.secagg.server_round import Collecting, ServerRound
from quire.privacy.secagg.server_session import Collecting as Opening
from quire.privacy.secagg.server_session import ServerSession, refused, sent_by
from quire.privacy.secagg.state import ClientState, Stage
from quire.privacy.secagg.wire import Fixed, Indices, Message, Number, Variable


@dataclass(frozen=True, repr=False)
class Listed(Message):
    """Down: who has answered so far, in a session or in an attempt."""

    of: bytes
    members: tuple[int, ...]
    KIND = 80
    FORM = {"of": Fixed(HASH), "members": Indices()}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class Present(Message):
    """Up: a member goes on."""

    index: int
    of: bytes
    KIND = 81
    FORM = {"index": Number(2), "of": Fixed(HASH)}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class Clear(Message):
    """Up: a member's vector, packed, for everybody to read."""

    index: int
    of: bytes
    vector: bytes
    KIND = 82
    LIMIT = 4 * MAX_LENGTH + 1024
    FORM = {"index": Number(2), "of": Fixed(HASH), "vector": Variable(4 * MAX_LENGTH)}  # noqa: RUF012


def _name(request: Open) -> bytes:
    """Return by what a session is known, which no session of the protocol is."""
    return tagged_hash(tag("exact-session"), request.sid, request.roster, config_hash(request.config))


# ------------------------------------------------------------------------------------------------ the silo
@resending
def open_session(party: Party, state: ClientState, message: bytes) -> Step:
    """S0: check the configuration as the protocol does. There is no key to advertise."""
    request = Open.decode(message)
    counter = admitted(party, state, request)
    session = _name(request)
    return Step(Present(party.index, session).encode(), ClientState(counter.encode(), request.config, session=session))


@resending
def agree(party: Party, state: ClientState, message: bytes) -> Step:
    """S1: check who takes part. There is nothing to seal."""
    counter = state.expect(Stage.ADVERTISED)
    _listed(party, state, message, party.members)
    return Step(Present(party.index, state.session).encode(), state.advanced(replace(counter, stage=Stage.PAIRED)))


@resending
def ready(party: Party, state: ClientState, message: bytes) -> Step:
    """S2: note who is in the session. No pair has a key."""
    counter = state.expect(Stage.PAIRED)
    members = _listed(party, state, message, party.members)
    after = state.advanced(replace(counter, stage=Stage.READY), members=members)
    return Step(Present(party.index, state.session).encode(), after)


def _listed(party: Party, state: ClientState, message: bytes, known: Collection[int]) -> tuple[int, ...]:
    request = Listed.decode(message)
    if request.of != state.session:
        raise Replay("This list is of another session.")
    if party.index not in request.members:
        raise OwnKeyMissing("The list does not have this silo.", party.index)
    stranger = next((index for index in request.members if index not in known), None)
    if stranger is not None:
        raise UnknownIdentity(f"The roster has no member {stranger}.", stranger)
    party.limits(state, len(request.members))
    return request.members


@resending
def start(party: Party, state: ClientState, message: bytes, model: bytes, log_root: bytes) -> Step:
    """X1: begin an attempt. There is no secret to deal shares of."""
    request, here, _ = begun(party, state, message)
    context = round_context(state.session, request.round, request.attempt, request.cohort, model, log_root)
    after = state.without_attempt().advanced(
        replace(state.at, position=here, stage=Stage.SHARED),
        round=request.round,
        context=context,
        cohort=request.cohort,
    )
    return Step(Present(party.index, context).encode(), after)


def mask(party: Party, state: ClientState, message: bytes, vector: Callable[[], masks.Words]) -> Step:
    """X2: send the vector, in clear, where the protocol would mask it."""
    request = Listed.decode(message)
    counter = state.expect(Stage.SHARED, request.of)
    check_dealers(party, state, request.members)
    words, settings = vector(), state.settings
    if words.dtype != np.uint32 or words.shape != (settings.length,):
        raise BadVector(f"The vector to be summed does not have {settings.length} words of 32 bits.")
    after = state.advanced(replace(counter, stage=Stage.MASKED), u2=request.members, asked=b"", reply=b"")
    return Step(Clear(party.index, state.context, pack(words, settings.bits)).encode(), after)


@resending
def confirm(party: Party, state: ClientState, message: bytes) -> Step:
    """X3: check the set of survivors. Nobody signs it."""
    request = ConfirmRequest.decode(message)
    counter = state.expect(Stage.MASKED, request.context)
    check_survivors(party, state, request.survivors)
    after = state.advanced(replace(counter, stage=Stage.CONFIRMED), u3=request.survivors)
    return Step(Present(party.index, state.context).encode(), after)


@resending
def unmask(party: Party, state: ClientState, message: bytes) -> Step:
    """X4: the round ends for this silo, once as many as the quorum confirmed. There are no shares to give up."""
    request = Listed.decode(message)
    counter = state.expect(Stage.CONFIRMED, request.of)
    stranger = next((index for index in request.members if index not in state.u3), None)
    if stranger is not None:
        raise BadSurvivorSignature(f"Member {stranger} is not among the survivors.", stranger)
    threshold = party.limits(state, len(state.cohort)).threshold
    if len(request.members) < threshold:
        raise NoQuorum(f"{len(request.members)} members confirmed these survivors, and {threshold} have to.")
    after = state.without_attempt().advanced(replace(counter, stage=Stage.UNMASKED, opened=state.round))
    return Step(Present(party.index, state.context).encode(), after)


# ---------------------------------------------------------------------------------------------- the server
class ExactSession(ServerSession):
    """A session without keys; see :class:`quire.privacy.secagg.server_session.ServerSession`."""

    def __init__(self, sid: bytes, config: Config, members: Mapping[int, PublicIdentity], roster: bytes) -> None:
        super().__init__(sid, config, members, roster)
        self.session = _name(self._open)
        self._asked: Collection[int] = members
        self._came: set[int] = set()

    def receive(self, sender: int, data: bytes) -> bool:
        """Take a member's reply of the stage that is under way; return whether it counts."""
        stage = self._waiting.name.lower()
        try:
            if note := refused(sender, data, stage):
                self.blame.append(note)
                return False
            if self._waiting is Opening.NOTHING:
                raise StageOrder("The session is made; nothing more is expected.")
            message = Present.decode(data)
            sent_by(sender, message.index, self._asked)
            if message.of != self.session:
                raise Replay("A message of another session.")
            return _first(self._came, sender)
        except SecAggError as error:
            self.blame.append(blamed(sender, stage, type(error), error.peer))
            return False

    def adverts(self) -> bytes:
        """S1: return who is there, for all of them."""
        self._close(Opening.ADVERTS, Opening.PAIRS)
        return Listed(self.session, self.advertised).encode()

    @property
    def advertised(self) -> tuple[int, ...]:
        """Return who is there."""
        return tuple(sorted(self._asked))

    def close_pairs(self) -> tuple[int, ...]:
        """Return who goes on."""
        return self._close(Opening.PAIRS, Opening.READY)

    def pair_keys(self, receiver: int) -> bytes:
        """S2: return who goes on, for one of them."""
        return Listed(self.session, tuple(sorted(self._asked))).encode()

    def close(self) -> tuple[int, ...]:
        """Close the session and return its members."""
        self.members = self._close(Opening.READY, Opening.NOTHING)
        return self.members

    def _close(self, now: Opening, then: Opening) -> tuple[int, ...]:
        self._step(now, then, len(self._came))
        found, self._came = tuple(sorted(self._came)), set()
        self._asked = found
        return found


class ExactRound(ServerRound):
    """One attempt of one round, in clear; see :class:`quire.privacy.secagg.server_round.ServerRound`."""

    def __init__(
        self,
        session: ServerSession,
        round_number: int,
        attempt: int,
        cohort: tuple[int, ...],
        model: bytes,
        log_root: bytes,
    ) -> None:
        super().__init__(session, round_number, attempt, cohort, model, log_root)
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def _receive_shares(self, sender: int, data: bytes) -> bool:
        return self._receive_present(self._begun, sender, data)

    def close_shares(self) -> tuple[int, ...]:
        """X2: choose U2, and return it: to each of these goes :meth:`mask_request`."""
        self._step(Collecting.SHARES, Collecting.MASKED)
        self.u2 = tuple(sorted(self._begun))
        self._enough(self.u2, TooFewClients)
        self._sum = np.zeros(self._config.length, dtype=np.uint32)
        return self.u2

    def mask_request(self, receiver: int) -> bytes:
        """X2: return the message for one member of U2."""
        return Listed(self.context, self.u2).encode()

    def _receive_masked(self, sender: int, data: bytes) -> bool:
        message = Clear.decode(data)
        self._of_this(sender, message)
        if sender in self._digests:
            return False
        masks.add_packed(self._sum, message.vector, self._config.bits)
        self._digests[sender] = b""
        return True

    def _receive_survivors(self, sender: int, data: bytes) -> bool:
        known = set(self._confirmations)
        counts = self._receive_present(known, sender, data)
        self._confirmations[sender] = b""
        return counts

    def close_survivors(self) -> bytes:
        """X4: return the message for those who confirmed."""
        return Listed(self.context, self._quorum()).encode()

    def _receive_unmasked(self, sender: int, data: bytes) -> bool:
        return self._receive_present(self._ended, sender, data)

    def unmask(self) -> masks.Words:
        """Return the sum over U3, if as many went through with it as would have had to give shares."""
        if self._waiting is not Collecting.UNMASKED:
            raise StageOrder(f"The round waits for {self._waiting.name.lower()}.")
        if len(self._ended) < self.limits.threshold:
            raise UnrecoverableShare(
                f"{len(self._ended)} members went through with it, and {self.limits.threshold} have to."
            )
        self._waiting = Collecting.NOTHING
        total, self._sum = self._sum, np.zeros(0, dtype=np.uint32)
        return total

    def _receive_present(self, came: set[int], sender: int, data: bytes) -> bool:
        self._of_this(sender, Present.decode(data))
        return _first(came, sender)

    def _of_this(self, sender: int, message: Present | Clear) -> None:
        sent_by(sender, message.index, self.cohort)
        if message.of != self.context:
            raise ContextMismatch("A message for another model, cohort, round or attempt.")


def _first(came: set[int], sender: int) -> bool:
    if sender in came:
        return False
    came.add(sender)
    return True
