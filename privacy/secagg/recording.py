"""A round at the server that writes its transcript as it goes on, and the same round gone through once more offline.

Both are :class:`quire.privacy.secagg.server_round.ServerRound`: what is replayed is the code that ran. A replay trusts
the roster alone: it takes every stored message as the server did, with all of its checks, opens the secrets from the
stored shares, takes the masks off, and holds what comes of it to what the transcript says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, TypeVar

from quire.privacy.dp.wire import pack
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.secagg.blame import Blame
from quire.privacy.secagg.context import tag
from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.messages import (
    Advert,
    Config,
    ConfirmRequest,
    Masked,
    Shares,
    Start,
    Survivors,
    Unmasked,
    UnmaskRequest,
)
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession, SessionRecord
from quire.privacy.secagg.transcript import NO_SUM, Asked, Head, Outcome, Reader, Writer
from quire.privacy.secagg.wire import Message

MessageT = TypeVar("MessageT", bound=Message)


class TranscriptError(ValueError):
    """A transcript that does not hold; its text is one sentence, with members by their roster index."""


def sum_digest(context: bytes, total: Words, bits: int) -> bytes:
    """Return 32 bytes by which an opened sum is known: a hash of the attempt's context and of the sum modulo 2**bits.

    Under ``privacy=none`` whoever can guess the sum can confirm it by this.
    """
    return tagged_hash(tag("sum"), context, pack(total, bits))


class RecordedRound(ServerRound):
    """One attempt of one round, which writes what counted of what it received, and what it sent.

    What does not count is not kept: a masked vector that came too late would, with the shares of its sender's seal key
    beside it, be one mask from being read.

    Parameters
    ----------
    session, round_number, attempt, cohort, model, log_root
        As for :class:`quire.privacy.secagg.server_round.ServerRound`.
    open_writer : callable
        Returns where to write; called once the round can begin.

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
        open_writer: Callable[[], Writer],
    ) -> None:
        super().__init__(session, round_number, attempt, cohort, model, log_root)
        self._asked: dict[int, tuple[bytes]] = {}
        self._told = False  # whether what was sent in X2 is written
        self._total = NO_SUM
        self._writer = open_writer()
        config = session.config.encode()
        head = Head(session.sid, session.roster, config, round_number, attempt, self.cohort, model, log_root)
        for message in (head.encode(), *session.adverts_taken, self.start()):
            self._writer.add(message)

    def receive(self, sender: int, data: bytes) -> bool:
        """Take a member's reply, and write it down if it counts."""
        self._tell()
        counts = super().receive(sender, data)
        if counts:
            self._writer.add(data)
        return counts

    def mask_request(self, receiver: int) -> bytes:
        """X2: return the message for one member of U2, of which the hash is kept."""
        data = super().mask_request(receiver)
        self._asked[receiver] = (hashlib.sha256(data).digest(),)
        return data

    def close_masked(self) -> bytes:
        """X3: fix U3 and return the message for its members."""
        self._tell()
        data = super().close_masked()
        self._writer.add(data)
        return data

    def close_survivors(self) -> bytes:
        """X4: return the message, with a quorum of signatures, for those who confirmed."""
        data = super().close_survivors()
        self._writer.add(data)
        return data

    def unmask(self) -> Words:
        """Return the sum, whose hash is kept."""
        total = super().unmask()
        self._total = sum_digest(self.context, total, self._config.bits)
        return total

    def finish(self, error: str | None) -> tuple[str, str | None]:
        """Write what came of it; return the SHA-256 of the transcript, and the digest of the sum if one was opened.

        Parameters
        ----------
        error : str or None
            The code of the error that ended the attempt.
        """
        self._tell()
        self._writer.add(Outcome(self.u2, self.u3, self._total, (error or "").encode()).encode())
        return self._writer.seal(), None if self._total == NO_SUM else self._total.hex()

    def _tell(self) -> None:
        if self._asked and not self._told:
            self._writer.add(Asked(self._asked).encode())
            self._told = True


@dataclass(frozen=True, eq=False)
class Replay:
    """What a transcript comes to, all of it recomputed.

    Attributes
    ----------
    head : Head
    config : Config
        Of the session.
    members : tuple of int
        Who advertised keys in the session.
    u2, u3 : tuple of int
    total : numpy.ndarray of uint32, or None
        The sum over U3, modulo 2**bits; None where it did not open.
    digest : str or None
        Of the sum.
    error : str or None
        The code of the error that ended the attempt.
    blame : tuple of Blame
        What the stored messages prove.
    sha256 : str
        Of the transcript.
    """

    head: Head
    config: Config
    members: tuple[int, ...]
    u2: tuple[int, ...]
    u3: tuple[int, ...]
    total: Words | None
    digest: str | None
    error: str | None
    blame: tuple[Blame, ...]
    sha256: str


def replay(file: BinaryIO, members: Mapping[int, PublicIdentity], roster: bytes) -> Replay:
    """Go through a stored attempt once more, with every check that the server made, and open its sum.

    Parameters
    ----------
    file : binary file
        The transcript.
    members : mapping of int to PublicIdentity
        The roster, by index.
    roster : bytes
        The 32 bytes of its hash.

    Raises
    ------
    TranscriptError
        If the bytes are no transcript, a message does not hold, or what comes of it is not what the transcript says.
    """
    try:
        return _Replaying(Reader(file), members, roster).run()
    except SecAggError as error:
        _wrong(f"{str(error).rstrip('.')} ({error.code})")


class _Replaying:
    """Goes through the frames in the one order that there is, one frame ahead."""

    def __init__(self, reader: Reader, members: Mapping[int, PublicIdentity], roster: bytes) -> None:
        self._reader, self._members, self._roster = reader, members, roster
        self._frames: Iterator[tuple[type[Message], bytes]] = reader.frames()
        self._ahead: tuple[type[Message], bytes] | None = None

    def run(self) -> Replay:
        head = self._want(Head)
        if head.roster != self._roster:
            _wrong(f"it is of the roster {head.roster.hex()}, not {self._roster.hex()}")
        config = Config.decode(head.config)
        session = self._session(head, config)
        where = head.round, head.attempt, head.cohort, head.model, head.log_root
        server = ServerRound(session, *where)
        self._same(Start, server.start())
        self._received(server, Shares)
        close: Callable[[], Any] = server.close_shares
        if self._is(Asked):
            u2 = close()
            told = {index: (hashlib.sha256(server.mask_request(index)).digest(),) for index in u2}
            self._same(Asked, Asked(told).encode())
            self._received(server, Masked)
            close = server.close_masked
            if self._is(ConfirmRequest):
                self._same(ConfirmRequest, close())
                self._received(server, Survivors)
                close = server.close_survivors
                if self._is(UnmaskRequest):
                    self._same(UnmaskRequest, close())
                    self._received(server, Unmasked)
                    close = server.unmask
        return self._ended(head, config, session, server, close)

    def _session(self, head: Head, config: Config) -> ServerSession:
        """Return the session with the keys that its members signed, and without their halves."""
        session = ServerSession(head.sid, config, self._members, head.roster)
        self._received(session, Advert)
        session.adverts()
        record = SessionRecord(head.sid, head.roster, head.config, session.session, session.advertised)
        return ServerSession.decode(record.encode(), self._members)

    def _ended(
        self, head: Head, config: Config, session: ServerSession, server: ServerRound, close: Callable[[], Any]
    ) -> Replay:
        outcome = self._want(Outcome)
        if self._peek() is not None:
            _wrong("messages follow its outcome")
        error, total, digest = outcome.error.decode("ascii", "replace") or None, None, NO_SUM
        if error is not None:
            self._fails(close, error)
        elif outcome.total != NO_SUM:
            if close != server.unmask:
                _wrong("it tells of a sum, and holds no shares to open one with")
            total = server.unmask()
            digest = sum_digest(server.context, total, config.bits)
        if digest != outcome.total:
            _wrong(f"its messages come to the sum {digest.hex()}, and it tells of {outcome.total.hex()}")
        if (server.u2, server.u3) != (outcome.u2, outcome.u3):
            _wrong("its messages come to other sets U2 and U3 than it tells of")
        opened = None if total is None else digest.hex()
        about = server.u2, server.u3, total, opened, error, tuple(server.blame)
        return Replay(head, config, session.members, *about, self._reader.sha256)

    def _fails(self, close: Callable[[], Any], error: str) -> None:
        try:
            close()
        except SecAggError as found:
            if found.code != error:
                _wrong(f"the attempt fails with {found.code}, and it tells of {error[:40]}")
        else:
            _wrong(f"it tells of {error[:40]}, and the attempt goes on from there")

    def _received(self, server: ServerRound | ServerSession, kind: type[Message]) -> None:
        """Hand over all messages of a stage: each has to count, as it did then."""
        while self._is(kind):
            data = self._take()
            sender = int.from_bytes(data[_INDEX], "big")
            if not server.receive(sender, data):
                code = server.blame[-1].code if server.blame else "a copy"
                _wrong(f"member {sender}'s message {kind.__name__} does not hold ({code})")
            del data  # before the next one is read: it can be as large as a model

    def _same(self, kind: type[Message], expected: bytes) -> None:
        """Take a message of the server's, which has to be the one that follows."""
        self._want(kind, expected)

    def _want(self, kind: type[MessageT], expected: bytes | None = None) -> MessageT:
        if not self._is(kind):
            _wrong(f"where its {kind.__name__} has to be there is another message, or none")
        data = self._take()
        if expected is not None and data != expected:
            _wrong(f"its {kind.__name__} is not what follows from the messages before it")
        return kind.decode(data)

    def _is(self, kind: type[Message]) -> bool:
        frame = self._peek()
        return frame is not None and frame[0] is kind

    def _peek(self) -> tuple[type[Message], bytes] | None:
        if self._ahead is None:
            self._ahead = next(self._frames, None)
        return self._ahead

    def _take(self) -> bytes:
        frame, self._ahead = self._peek(), None
        if frame is None:
            _wrong("it ends in the middle")
        return frame[1]


_INDEX = slice(5, 7)  # every message of a member begins with its roster index


def _wrong(words: str) -> NoReturn:
    raise TranscriptError(f"The transcript does not hold: {words}.")
