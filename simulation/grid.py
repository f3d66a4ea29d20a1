"""Our own ``flwr.serverapp.Grid``: every silo in this process, each behind a wall.

A ``ClientApp`` is called once for each message, in the order of sending, when its reply is first asked for. What
crosses is rebuilt on the way in and on the way out: containers are new, and arrays are the immutable bytes that
Flower carries them in. So neither side can see or change what another one got, and nothing large is copied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np
from flwr.app import Array, Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from quire.clients.arrays import decode, encode
from quire.clients.simulation import simulated
from quire.simulation.faults import Fault, striking

LOG = logging.getLogger("quire.simulation")

_SERVER_NODE = 1
_IDS, _COUNT = uuid4().hex, count()  # of messages in this process
# Flower's codes for what a runtime answers in a silo's stead.
_APP_RAISED, _LATE, _NODE_GONE, _NO_SUCH_NODE = 2, 4, 5, 3


class InlineGrid(Grid):
    """Delivers messages to a ``ClientApp`` in this process.

    Parameters
    ----------
    client_app : flwr.clientapp.ClientApp
    contexts : mapping of int to flwr.app.Context
        One for each node, by node id. Its ``state`` lives on from message to message, as in Flower.
    names : mapping of int to str
        What faults call each node.
    faults : sequence of Fault
    """

    def __init__(
        self,
        client_app: ClientApp,
        contexts: Mapping[int, Context],
        names: Mapping[int, str] | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self._client_app, self._contexts = client_app, dict(contexts)
        self._names, self._faults = dict(names or {}), tuple(faults)
        self._waiting: dict[str, Message] = {}
        #: Shown every message with its reply, as they are on the wire; an observer's place, which changes neither.
        self.listener: Callable[[Message, Message], None] | None = None

    def set_run(self, run: Run) -> None:
        """Refused: an in-process grid serves the one run that it was made for."""
        raise NotImplementedError("an InlineGrid serves one run")

    @property
    def run(self) -> Run:
        """Not offered: there is no SuperLink that keeps a record of the run."""
        raise NotImplementedError("an InlineGrid keeps no record of the run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message (deprecated in Flower: call ``Message`` instead)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages for delivery and return their ids.

        Raises
        ------
        TypeError
            If ``messages`` is a generator: it would work here, and break on a SuperLink, which reads it twice.
        """
        if isinstance(messages, Iterator):
            raise TypeError("messages must be a list: Flower's deployment runtime reads them twice")
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message_id = _fresh_id()
            self._waiting[message_id] = _isolated(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the silo that was asked first answer, and return its reply; nothing when all have answered."""
        wanted = set(message_ids)
        for message_id in self._waiting:
            if message_id in wanted:
                message = self._waiting.pop(message_id)
                reply = self.deliver(message)
                if self.listener is not None:
                    self.listener(message, reply)
                return [reply]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return all replies. ``timeout`` shortens the messages' time to live."""
        if isinstance(messages, Iterator):
            raise TypeError("messages must be a list: Flower's deployment runtime reads them twice")
        return all_replies(self, messages, timeout)

    def silo_memory(self) -> dict[str, np.ndarray]:
        """Return the arrays that all nodes keep in their contexts, by ``node/record/name``."""
        return {
            f"{node}/{record}/{name}": array
            for node, context in self._contexts.items()
            for record, arrays in context.state.array_records.items()
            for name, array in decode(arrays).items()
        }

    def restore_silo_memory(self, memory: Mapping[str, np.ndarray]) -> None:
        """Give nodes back what :meth:`silo_memory` returned."""
        records: dict[tuple[int, str], dict[str, np.ndarray]] = {}
        for key, array in memory.items():
            node, record, name = key.split("/", 2)
            records.setdefault((int(node), record), {})[name] = array
        for (number, record), arrays in records.items():
            self._contexts[number].state[record] = encode(arrays)

    def parts(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """Divide messages into those whose silos are at work together: here each by itself."""
        return [messages[place : place + 1] for place in range(len(messages))]

    def begin(self, messages: Sequence[Message]) -> None:
        """Be told which messages are delivered next."""

    def name_of(self, message: Message) -> str:
        """Return what faults call the silo that a message is for."""
        return self._names.get(message.metadata.dst_node_id, str(message.metadata.dst_node_id))

    def deliver(self, message: Message) -> Message:
        """Let a silo answer."""
        return self._deliver(message)

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node not in self._contexts:
            return _runtime_error(message, _NO_SUCH_NODE)
        fault = striking(self._faults, self.name_of(message), message)
        if fault is not None:
            if fault.kind == "drop":
                return _runtime_error(message, _NODE_GONE)
            if fault.kind == "error":
                return _stamped(Message(Error(code=_APP_RAISED, reason="injected fault"), reply_to=message))
            if fault.seconds >= message.metadata.ttl:
                return _runtime_error(message, _LATE)
        try:
            with _as_node(node), simulated():
                reply = self._client_app(message, self._contexts[node])
        except Exception:
            # As in Flower, minus the text: what an exception says must not leave the silo.
            LOG.exception("the ClientApp of node %d raised", node)
            reply = Message(Error(code=_APP_RAISED, reason="the ClientApp raised"), reply_to=message)
        return _stamped(_isolated(reply))


def all_replies(grid: Grid, messages: Iterable[Message], timeout: float | None) -> list[Message]:
    """Send messages through an in-process grid and return all replies, as its ``send_and_receive`` promises."""
    sent = list(messages)
    if timeout is not None:
        for message in sent:
            message.metadata.ttl = min(message.metadata.ttl, timeout)
    ids = list(grid.push_messages(sent))
    replies: list[Message] = []
    while arrived := list(grid.pull_messages(ids)):
        replies.extend(arrived)
    return replies


@contextmanager
def server_identity(run_id: int) -> Iterator[None]:
    """Let this process create messages as the server of a run, as Flower's own runtimes do."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, _SERVER_NODE
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


@contextmanager
def _as_node(node: int) -> Iterator[None]:
    before = TaskIdentity._node_id
    TaskIdentity.node_id = node
    try:
        yield
    finally:
        TaskIdentity._node_id = before


# Flower's own constructors check what passed the same checks a moment ago, for ten times what the copying itself takes.
def _isolated(message: Message) -> Message:
    """Rebuild a message so that it shares nothing that can be changed with the one that was handed over."""
    if message.has_error():
        return message
    content = _rebuilt(message.content, {name: _isolated_record(record) for name, record in message.content.items()})
    # The metadata is copied too: a silo must not be able to redirect a reply by editing it.
    metadata = object.__new__(type(message.metadata))
    metadata.__dict__.update(message.metadata.__dict__)
    rebuilt = object.__new__(Message)
    rebuilt.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return rebuilt


def _isolated_record(record: Any) -> Any:
    entries = {}
    for key, value in record.items():
        if isinstance(value, Array):
            value = _isolated_array(value)
        elif isinstance(value, list):
            value = list(value)
        entries[key] = value
    return _rebuilt(record, entries)


def _rebuilt(record: Any, entries: dict[str, Any]) -> Any:
    """Return a record of the same kind with these entries, as Flower's ``copy`` does with the old ones."""
    made, own = object.__new__(type(record)), record.__dict__
    made.__dict__.update(_check_key_fn=own["_check_key_fn"], _check_value_fn=own["_check_value_fn"], _data=entries)
    return made


def _isolated_array(array: Array) -> Array:
    if type(array.data) is not bytes or type(array.shape) is not tuple:
        return Array(array.dtype, tuple(array.shape), array.stype, bytes(array.data))
    made = object.__new__(Array)  # what it holds cannot be changed, so none of it need be copied
    made.__dict__.update(dtype=array.dtype, shape=array.shape, stype=array.stype, data=array.data)
    return made


def _runtime_error(message: Message, code: int) -> Message:
    """Answer in a silo's stead as Flower's runtime does: under the server's own node id."""
    reply = Message(Error(code=code, reason="answered by the runtime"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = _SERVER_NODE
    return _stamped(reply)


def _stamped(reply: Message) -> Message:
    reply.metadata.__dict__["_message_id"] = _fresh_id()
    return reply


def _fresh_id() -> str:
    return f"{_IDS}-{next(_COUNT)}"
