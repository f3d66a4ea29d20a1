"""``runtime=batched``: the in-process grid, whose silos train, or score a model, together before each is called."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from quire.clients import contract
from quire.clients.simulation import with_done_ahead
from quire.simulation.faults import Fault, striking
from quire.simulation.grid import InlineGrid

#: Silos at work together: so many models lie in a cache side by side, and share the overhead of a step.
TOGETHER = 10

_Item = TypeVar("_Item")


class BatchedGrid(InlineGrid):
    """Delivers as :class:`quire.simulation.grid.InlineGrid` does; cohorts are at work together where that is a gain.

    Who is trained with whom depends on the cohort alone, so that the same messages give the same replies bit for bit
    however many processes share the work.

    Parameters
    ----------
    client_app, contexts, names, faults
        As for :class:`quire.simulation.grid.InlineGrid`.
    """

    def __init__(
        self,
        client_app: ClientApp,
        contexts: Mapping[int, Context],
        names: Mapping[int, str] | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        super().__init__(client_app, contexts, names, faults)
        self._parts: dict[str, list[str]] = {}
        self._ahead: dict[str, object] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages for delivery and return their ids."""
        ids = list(super().push_messages(messages))
        for part in self.parts([self._waiting[one] for one in ids]):
            own = [message.metadata.message_id for message in part]
            self._parts.update(dict.fromkeys(own, own))
        return ids

    def parts(self, messages: Sequence[Message]) -> list[Sequence[Message]]:
        """Divide messages into those whose silos are at work together."""
        kinds = {message.metadata.message_type for message in messages}
        if kinds not in ({contract.TRAIN}, {contract.EVALUATE}):
            return super().parts(messages)
        return divided(messages, TOGETHER)

    def begin(self, messages: Sequence[Message]) -> None:
        """Do the work of the silos that these messages are for together, before they are delivered one by one."""
        from quire.simulation.foresight import look_ahead  # it imports torch

        whole = [message for message in messages if striking(self._faults, self.name_of(message), message) is None]
        self._ahead = dict(look_ahead(whole, self._contexts))

    def deliver(self, message: Message) -> Message:
        """Let a silo answer."""
        own = message.metadata.message_id
        if part := self._parts.get(own):
            self.begin([message if one == own else self._waiting[one] for one in part if one in (own, *self._waiting)])
            for one in part:
                self._parts.pop(one, None)
        with with_done_ahead(self._ahead.pop(own, None)):
            return super().deliver(message)


def divided(items: Sequence[_Item], most: int) -> list[Sequence[_Item]]:
    """Divide items in order into parts of nearly the same size: of at most so many, and two or more where there are 4.

    Two parts, so that two processes have work, and never as many as there are processes, so that their number has no
    say in a result.
    """
    count = max(-(-len(items) // most), min(2, len(items) // 2), 1)
    ends = [len(items) * place // count for place in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]
