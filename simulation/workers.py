"""``runtime.workers=N``: the silos of an in-process grid, shared out to processes that this one forked.

The server keeps what silos remember between messages (their contexts' state) and sends it along, so that any worker
can take any silo's next message; a silo with files of its own stays with one worker. Which worker does what, and when,
has no say in any result: messages are divided as they would be without workers, and replies are handed over in the
order of sending. Where silos that are at work together stay with several workers, each of these does the common work,
and lets its own silos answer.
"""

from __future__ import annotations

import os
import selectors
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import uuid4

from flwr.app import Message, RecordDict

from quire.clients.member import SILO_KEY
from quire.errors import RunFailed, SettingsError
from quire.simulation.grid import InlineGrid
from quire.simulation.worker import Link, started


def processes(workers: int) -> int:
    """Return how many processes ``runtime.workers`` stands for on this machine.

    Raises
    ------
    SettingsError
        If it is more than one and this system has none that can be forked safely.
    """
    count = workers or cores()
    if count > 1 and sys.platform != "linux":
        raise SettingsError(f"runtime.workers={workers} needs Linux, whose processes can be forked: set it to 1.")
    return count


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Part:
    """Messages whose silos are at work together, ready to be sent."""

    ids: list[str]  # of those that are answered here
    nodes: set[int]  # which answer them
    frame: bytes  # all of the messages
    beside: set[int]  # all silos that they are for
    worker: int | None  # who alone may have it


class WorkersGrid(InlineGrid):
    """Delivers what an in-process grid would, in other processes. Use it as a context: they end with it.

    Parameters
    ----------
    inner : InlineGrid
        Its app is called in the workers, on copies of its contexts.
    workers : int
        At least 2.

    Raises
    ------
    RunFailed
        While replies are awaited, if a worker has ended.
    """

    def __init__(self, inner: InlineGrid, workers: int) -> None:
        super().__init__(inner._client_app, {}, inner._names, inner._faults)
        self._inner, self._count, self._contexts = inner, workers, inner._contexts
        self._links: list[Link] = []
        self._parts: deque[_Part] = deque()
        self._at_work: list[dict[str, _Part]] = [{} for _ in range(workers)]
        self._awaited: dict[str, None] = {}
        self._arrived: dict[str, Message] = {}
        self._blobs: dict[int, bytes] = {}
        self._places = {node: place for place, node in enumerate(self._contexts)}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages for delivery, send out what workers can begin with, and return the messages' ids."""
        if isinstance(messages, Iterator):
            raise TypeError("messages must be a list: Flower's deployment runtime reads them twice")
        self._start()
        messages = list(messages)
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
        ids = [message.metadata.message_id for message in messages]
        if not self._awaited:  # of what was sent before, nothing is needed any more
            self._blobs.clear()
            for link in self._links:
                link.forget()
        for part in self._inner.parts(messages):
            self._parts.extend(self._packed(part))
        self._awaited.update(dict.fromkeys(ids))
        self._hand_out()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Wait for the reply of the silo that was asked first, and return it; nothing when all have answered."""
        wanted = set(message_ids)
        for own in self._awaited:
            if own in wanted:
                while own not in self._arrived:
                    self._wait()
                del self._awaited[own]
                return [self._arrived.pop(own)]
        return []

    def close(self) -> None:
        """End the workers."""
        self._selector.close()
        for link in self._links:
            link.close()
        for link in self._links:
            link.end()
        self._links = []

    def _home(self, node: int) -> int | None:
        """Return the worker that a silo stays with, if it has files of its own: stores, ledgers, locks."""
        context = self._contexts.get(node)
        if context is None or SILO_KEY not in context.node_config:
            return None
        # Neighbours stay together, so that few parts of a cohort have silos of several workers.
        return self._places[node] * self._count // len(self._places)

    def _packed(self, messages: Sequence[Message]) -> list[_Part]:
        frame = Link.packed(messages, self._blobs)
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        parts = []
        for home in sorted({self._home(node) for node in nodes.values()}, key=str):
            own = [one for one, node in nodes.items() if self._home(node) == home]
            parts.append(_Part(own, {nodes[one] for one in own}, frame, set(nodes.values()), home))
        return parts

    def _start(self) -> None:
        if self._links:
            return
        with warnings.catch_warnings():
            # The child does nothing that needs a lock of another thread: Python renews its own, torch has one thread.
            warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
            for _ in range(self._count):
                self._links.append(started(self._inner, self._links))
        for place, link in enumerate(self._links):
            self._selector.register(link.socket, selectors.EVENT_READ, place)

    def _hand_out(self) -> None:
        """Give each worker a part; a second one to have at hand while there are more than workers."""
        busy = {node for parts in self._at_work for part in parts.values() for node in part.nodes}
        kept: deque[_Part] = deque()
        while self._parts:
            part = self._parts.popleft()
            room = 2 if len(self._parts) >= self._count else 1
            free = [
                place
                for place in range(self._count)
                if part.worker in (None, place) and len({id(one) for one in self._at_work[place].values()}) < room
            ]
            if not free or busy & part.nodes:  # a silo answers one message after the other
                kept.append(part)
                busy |= part.nodes
                continue
            place = min(free, key=lambda one: len(self._at_work[one]))
            states = {node: self._contexts[node].state for node in part.beside if node in self._contexts}
            remembered = {node: state for node, state in states.items() if state}
            self._links[place].send(part.frame, part.ids, remembered, self._blobs)
            self._at_work[place].update(dict.fromkeys(part.ids, part))
            busy |= part.nodes
            self._watch(place)
        self._parts = kept

    def _watch(self, place: int) -> None:
        link = self._links[place]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.has_more_to_send else 0)
        self._selector.modify(link.socket, events, place)

    def _wait(self) -> None:
        """Wait until a worker can be heard or told something, and do that."""
        for key, events in self._selector.select():
            place: int = key.data
            link = self._links[place]
            try:
                if events & selectors.EVENT_WRITE:
                    link.flush()
                    self._watch(place)
                if events & selectors.EVENT_READ:
                    for reply_to, reply, node, state in link.received():
                        self._take(place, reply_to, reply, node, state)
            except (ConnectionError, EOFError):
                raise RunFailed(
                    f"A worker process of the run was killed ({link.how_it_ended()}), perhaps for lack of memory: go "
                    "on from the last checkpoint with `quire run resume=FOLDER`, or take fewer runtime.workers."
                ) from None
        self._hand_out()

    def _take(self, place: int, reply_to: str, reply: Message, node: int, state: RecordDict | None) -> None:
        del self._at_work[place][reply_to]
        if state is not None:
            self._contexts[node].state = state
        if reply_to in self._awaited:
            self._arrived[reply_to] = reply
