"""The form of a transcript: the protocol's own messages of one attempt, one behind the other, as the server had them.

A transcript is a line that names the form, then frames: four bytes with a length, and so many bytes that are a message
of the protocol or one of the three that are defined here. In this order:

- ``Head``, which names session, round, attempt and all else that the context is a hash of;
- the ``Advert`` of every member of the session;
- ``Start``, the ``Shares`` that counted, ``Asked`` (hashes of what was sent to each in X2), the ``Masked`` vectors that
  counted, ``ConfirmRequest``, ``Survivors``, ``UnmaskRequest``, ``Unmasked``: as far as the attempt came;
- ``Outcome``;
- ``Seal``, the SHA-256 of everything before it.

What was received has the signature of who sent it. Of what was sent the silos' signatures tell: the context, U2 and U3
are in them. The sealed halves that a session's keys are made of are left out on purpose: with these a transcript would
hold what whoever breaks the key agreement one day could take a single silo's masks from.

A reader holds one frame at a time, and allocates nothing before a length was held against what such a message can have
and against what is left of the file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from quire.privacy.secagg.errors import MalformedMessage
from quire.privacy.secagg.messages import (
    HASH,
    SESSION_ID,
    Advert,
    ConfirmRequest,
    Masked,
    Shares,
    Start,
    Survivors,
    Unmasked,
    UnmaskRequest,
)
from quire.privacy.secagg.wire import MAGIC, VERSION, Fixed, Indices, Message, Number, Records, Variable

FIRST_LINE = b"quire transcript of secure aggregation 1\n"
#: What stands in the place of a sum that was not opened.
NO_SUM = bytes(HASH)

_LENGTH = 4
_HEADER = len(MAGIC) + 2


@dataclass(frozen=True, repr=False)
class Head(Message):
    """Which attempt, and everything that its context is a hash of beside the members' keys.

    Attributes
    ----------
    sid : bytes
        The session's name.
    roster : bytes
        The hash of the roster.
    config : bytes
        The session's :class:`quire.privacy.secagg.messages.Config`, encoded.
    round, attempt : int
    cohort : tuple of int
    model : bytes
        The hash of the model, or of the whole state where the model chain is active.
    log_root : bytes
    """

    sid: bytes
    roster: bytes
    config: bytes
    round: int
    attempt: int
    cohort: tuple[int, ...]
    model: bytes
    log_root: bytes
    KIND = 64
    FORM = {  # noqa: RUF012
        "sid": Fixed(SESSION_ID),
        "roster": Fixed(HASH),
        "config": Variable(70000),
        "round": Number(4),
        "attempt": Number(1),
        "cohort": Indices(),
        "model": Fixed(HASH),
        "log_root": Fixed(HASH),
    }


@dataclass(frozen=True, repr=False)
class Asked(Message):
    """SHA-256 of the message of X2 that was sent to each member of U2: it says nothing that ``Shares`` do not."""

    requests: dict[int, tuple[bytes]]
    KIND = 65
    FORM = {"requests": Records(Fixed(HASH))}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class Outcome(Message):
    """What came of it, by the server's word, which a replay is held against.

    Attributes
    ----------
    u2, u3 : tuple of int
        Empty as long as they were not fixed.
    total : bytes
        :func:`sum_digest` of the opened sum; zeros where none was opened.
    error : bytes
        The code of the error that ended the attempt, in ASCII; empty where a sum was opened, or the run was stopped.
    """

    u2: tuple[int, ...]
    u3: tuple[int, ...]
    total: bytes
    error: bytes
    KIND = 66
    FORM = {"u2": Indices(), "u3": Indices(), "total": Fixed(HASH), "error": Variable(64)}  # noqa: RUF012


@dataclass(frozen=True, repr=False)
class Seal(Message):
    """The end: SHA-256 of all bytes before this frame."""

    digest: bytes
    KIND = 67
    FORM = {"digest": Fixed(HASH)}  # noqa: RUF012


KINDS: dict[int, type[Message]] = {
    kind.KIND: kind
    for kind in (
        *(Head, Advert, Start, Shares, Asked, Masked, ConfirmRequest, Survivors, UnmaskRequest, Unmasked),
        *(Outcome, Seal),
    )
}


class Sink(Protocol):
    """What a transcript is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of some bytes."""


class Writer:
    """Writes a transcript as the attempt goes on. Holds nothing: what is given goes to the file.

    Parameters
    ----------
    file : Sink
        Empty.
    """

    def __init__(self, file: Sink) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self._put(FIRST_LINE)

    def add(self, message: bytes) -> None:
        """Write a frame with one encoded message."""
        self._put(len(message).to_bytes(_LENGTH, "big"))
        self._put(message)

    def seal(self) -> str:
        """Write the last frame, and return the SHA-256 of the whole file, in hexadecimal."""
        self.add(Seal(self._hash.digest()).encode())
        return self._hash.hexdigest()

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


class Reader:
    """Reads a transcript once, frame by frame.

    Parameters
    ----------
    file : binary file
        That can be sought in.

    Attributes
    ----------
    sha256 : str
        Of the whole file, in hexadecimal; empty before its end was reached.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.sha256 = file, hashlib.sha256(), ""
        self._left = file.seek(0, os.SEEK_END)
        file.seek(0)

    def frames(self) -> Iterator[tuple[type[Message], bytes]]:
        """Yield kind and bytes of every message but the seal, which is checked. What is within them is not.

        Raises
        ------
        MalformedMessage
            If the bytes are not those of a whole transcript. Before that, frames may have been yielded: nothing that
            was read counts until the end is reached.
        """
        line = self._take(len(FIRST_LINE))
        if line != FIRST_LINE:
            raise MalformedMessage("This is no transcript of secure aggregation of this version.")
        self._hash.update(line)
        while True:
            before = self._hash.digest()
            kind, data = self._frame()
            if kind is Seal:
                if Seal.decode(data).digest != before:
                    raise MalformedMessage("The transcript was changed: its bytes do not have the hash at its end.")
                if self._left or self._file.read(1):
                    raise MalformedMessage("More bytes follow the end of a transcript.")
                self.sha256 = self._hash.hexdigest()
                return
            yield kind, data

    def _frame(self) -> tuple[type[Message], bytes]:
        length = self._take(_LENGTH)
        size = int.from_bytes(length, "big")
        if size < _HEADER:
            raise MalformedMessage("A frame of a transcript is too short for a message.")
        header = self._take(_HEADER)
        kind = KINDS.get(header[-1])
        if kind is None or header[:-1] != MAGIC + bytes((VERSION,)):
            raise MalformedMessage("A frame of a transcript holds no message that there is.")
        if size > kind.LIMIT:
            raise MalformedMessage(f"A message of at most {kind.LIMIT} bytes claims {size}.")
        data = header + self._take(size - _HEADER)
        self._hash.update(length)
        self._hash.update(data)
        return kind, data

    def _take(self, size: int) -> bytes:
        data = self._file.read(size) if size <= self._left else b""
        if len(data) != size:
            raise MalformedMessage("The transcript ends in the middle.")
        self._left -= size
        return data
