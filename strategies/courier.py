"""Messages of secure aggregation on their way: out to members by roster index, and their answers in as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from quire.clients import contract
from quire.clients.arrays import byte_size, decode
from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.messages import Refusal
from quire.strategies.exchange import AT_ONCE, SMALL_AT_ONCE, Deadline, Deadlines, arriving
from quire.strategies.reading import Failure, Silos, Unusable, check_identity, content_of, of_kind, unreadable
from quire.strategies.secure_log import AttemptLog, StageLog

#: Who was not waited for, as too few would have answered whatever came from it.
IN_VAIN = ("in_vain", "too many others had failed for its answer to count")
#: Who was not waited for to the end, as enough others had answered.
NOT_AWAITED = ("not_awaited", "enough others had answered before it did")


@dataclass(frozen=True)
class Answer:
    """What a member answered.

    Attributes
    ----------
    index : int
        Of the roster.
    data : bytes
        A message of the protocol, unchecked.
    content : flwr.app.RecordDict
        All of the reply.
    """

    index: int
    data: bytes
    content: RecordDict

    @property
    def refuses(self) -> bool:
        """Whether the silo says why it does not go on, in place of an answer."""
        try:
            Refusal.decode(self.data)
        except SecAggError:
            return False
        return True


@dataclass(frozen=True)
class Line:
    """What one round's messages go over.

    Attributes
    ----------
    grid : flwr.serverapp.Grid
    round : int
    deadlines : Deadlines
        Seconds to wait for answers.
    sleep : callable
        How time between two looks for answers is spent.
    """

    grid: Grid
    round: int
    deadlines: Deadlines
    sleep: Callable[[float], None] = time.sleep


class Receiver(Protocol):
    """The server's side of the protocol, in a session or a round."""

    def receive(self, sender: int, data: bytes) -> bool:
        """Take in an answer."""


class Courier:
    """Carries one run's messages.

    Parameters
    ----------
    silos : dict of int to str
        Names by node id.
    indices : mapping of str to int
        Roster indices by name.
    code_hash : str or None
        The code that answers have to come from.
    """

    def __init__(self, silos: Silos, indices: Mapping[str, int], code_hash: str | None) -> None:
        self._silos, self._code_hash = silos, code_hash
        self._nodes = {indices[name]: node for node, name in silos.items() if name in indices}
        self._indices = {node: index for index, node in self._nodes.items()}
        self.names = {index: silos[node] for index, node in self._nodes.items()}
        self.indices = {name: index for index, name in self.names.items()}

    def messages(self, line: Line, stage: str, contents: Mapping[int, RecordDict]) -> list[Message]:
        """Write a stage's messages, in roster order."""
        seconds = line.deadlines.seconds(stage)
        return [
            Message(contents[index], self._nodes[index], stage, group_id=str(line.round), ttl=seconds)
            for index in sorted(contents)
        ]

    def carry(self, line: Line, messages: list[Message], log: AttemptLog) -> Iterator[Answer]:
        """Send a stage's messages and yield the answers as they come; who gives none is noted."""
        deadline = Deadline(line.deadlines.seconds(messages[0].metadata.message_type))
        yield from self.read(messages, self._arriving(line, messages, deadline), log, deadline)

    def gather(
        self,
        line: Line,
        server: Receiver,
        stage: str,
        contents: Mapping[int, RecordDict],
        log: AttemptLog,
        enough: int | None = None,
        needed: int = 0,
    ) -> set[int]:
        """Go through one exchange, and return whose answers count; they are taken in as they come, and not kept.

        Once ``enough`` count, the others are not waited for much longer; once fewer than ``needed`` still can, nobody
        is waited for.
        """
        counted: set[int] = set()
        if not contents:
            return counted
        messages, deadline = self.messages(line, stage, contents), Deadline(line.deadlines.seconds(stage))
        for answer in self.read(messages, self._arriving(line, messages, deadline), log, deadline, needed):
            if server.receive(answer.index, answer.data):
                counted.add(answer.index)
            del answer  # before the next one is pulled: a masked vector is as large as a model
            if len(counted) == enough:
                deadline.bring_forward()
        return counted

    def read(
        self,
        messages: list[Message],
        replies: Iterable[Message],
        attempt: AttemptLog,
        deadline: Deadline | None = None,
        needed: int = 0,
    ) -> Iterator[Answer]:
        """Yield the answers among replies; who gives none is noted."""
        stage = messages[0].metadata.message_type.split(".")[-1]
        log, failed = attempt.stages.setdefault(stage, StageLog()), attempt.failed
        waiting = {message.metadata.dst_node_id for message in messages}
        asked: dict[str, int] = {}
        lost = 0
        log.asked += len(messages)
        for message in messages:
            size = size_of(message.content)
            log.bytes_down += size
            attempt.moved(self._silos[message.metadata.dst_node_id], down=size)
        for reply in replies:
            if not asked:  # the grid gave them their ids when they were sent
                asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
            node = asked.get(reply.metadata.reply_to_message_id)
            if node not in waiting:
                continue
            waiting.discard(node)
            try:
                yield self._answer(node, reply, log, attempt)
            except Unusable as why:
                failed.append(Failure(self._silos[node], stage, why.code, why.words))
                lost += 1
                if deadline is not None and len(messages) - lost < needed:
                    deadline.give_up()
            except Exception:  # whatever a reply stumbles over, it is that silo's dropout
                failed.append(unreadable(self._silos[node], stage))
            finally:
                del reply
        silent = ("no_reply", "it did not answer before the deadline")
        if deadline is not None and (deadline.given_up or deadline.brought_forward):
            silent = IN_VAIN if deadline.given_up else NOT_AWAITED
        failed += [Failure(self._silos[node], stage, *silent) for node in self._silos if node in waiting]
        log.done()

    def _arriving(self, line: Line, messages: list[Message], deadline: Deadline) -> Iterator[Message]:
        large = messages[0].metadata.message_type == contract.MASK
        return arriving(line.grid, messages, deadline, AT_ONCE if large else SMALL_AT_ONCE, line.sleep)

    def _answer(self, node: int, reply: Message, log: StageLog, attempt: AttemptLog) -> Answer:
        content = content_of(reply)
        check_identity(content, self._silos[node], self._code_hash)
        record = of_kind(content, ArrayRecord).get(contract.PROTOCOL, ArrayRecord())
        data = decode(record).get(contract.MESSAGE)
        if data is None or data.dtype != np.uint8 or data.ndim != 1:
            raise Unusable("wrong_records", "its reply does not hold a message of secure aggregation")
        size = byte_size(record)
        log.bytes_up += size
        log.answered += 1
        attempt.moved(self._silos[node], up=size)
        return Answer(self._indices[node], data.tobytes(), content)


def carrying(message: bytes, **records: ArrayRecord | ConfigRecord) -> RecordDict:
    """Return what a message to a silo holds."""
    content = RecordDict(dict(records))
    content[contract.PROTOCOL] = ConfigRecord({contract.MESSAGE: message})
    return content


def size_of(content: RecordDict) -> int:
    """Return the bytes of the arrays and of the protocol's message in what is sent."""
    size = sum(byte_size(record) for record in of_kind(content, ArrayRecord).values())
    told = of_kind(content, ConfigRecord).get(contract.PROTOCOL, ConfigRecord()).get(contract.MESSAGE, b"")
    return size + (len(told) if isinstance(told, bytes) else 0)
