"""One exchange with a cohort: messages out, replies in, until all have answered or the deadline has passed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from quire.conf.schema import FedAvgStrategy

LOG = logging.getLogger("quire.strategies")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

#: Replies that are asked for at once: a SuperLink hands over all of these that are there. Large ones and small ones.
AT_ONCE, SMALL_AT_ONCE = 4, 64

#: Seconds that the others have at least, once enough have answered; or as long as it took these, if that is longer.
GRACE = 3.0


@dataclass(frozen=True)
class Deadlines:
    """Seconds to wait in each kind of exchange.

    Attributes
    ----------
    default : float
    stages : mapping of str to float
        Those that have their own, by the last word of the message's type: ``train``, ``mask``.
    """

    default: float = 3600.0
    stages: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, strategy: FedAvgStrategy) -> Deadlines:
        """Read them from settings that :mod:`quire.conf.rules` has accepted."""
        pairs = (item.split(":") for item in strategy.deadlines)
        return cls(strategy.deadline, {stage: float(seconds) for stage, seconds in pairs})

    def seconds(self, stage: str) -> float:
        """Return the seconds for messages of a type."""
        return self.stages.get(stage.rpartition(".")[2], self.default)


class Deadline:
    """When an exchange ends, whoever has answered by then; it can be brought forward while one waits.

    Parameters
    ----------
    timeout : float
        Seconds from now.
    """

    def __init__(self, timeout: float) -> None:
        self._began = time.monotonic()
        self._ends = self._began + timeout
        self.brought_forward = self.given_up = False

    def give_up(self) -> None:
        """Wait no longer: what is still to come would not be enough."""
        self._ends, self.given_up = time.monotonic(), True

    def bring_forward(self) -> None:
        """Wait for the others a little longer only, as enough have answered."""
        now = time.monotonic()
        soon = now + max(GRACE, now - self._began)
        if soon < self._ends:
            self._ends, self.brought_forward = soon, True

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() >= self._ends


def exchange(grid: Grid, messages: Sequence[Message], timeout: float, needed: int = 0) -> list[Message]:
    """Send messages and collect the replies, in the order of arrival; see :func:`exchanged`."""
    return list(exchanged(grid, messages, timeout, needed, len(messages)))


def exchanged(
    grid: Grid, messages: Sequence[Message], timeout: float, needed: int = 0, at_once: int = AT_ONCE
) -> Iterator[Message]:
    """Send messages, once the first reply is asked for, and yield the replies as they come.

    Polls more often than ``Grid.send_and_receive`` of Flower's deployment runtime, which waits three seconds
    between pulls. The messages are handed over as a list: a generator would be consumed twice there.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    messages : sequence of flwr.app.Message
    timeout : float
        Seconds to wait for replies. Whoever has not replied by then is simply absent from the result.
    needed : int
        Replies without which all is in vain: once so many are errors that they cannot come, nobody is waited for.
    at_once : int
        Replies that are held at a time, see :func:`arriving`.

    Yields
    ------
    flwr.app.Message
        In the order of arrival; errors included.
    """
    deadline, left = Deadline(timeout), len(messages)
    for reply in arriving(grid, messages, deadline, at_once) if messages else ():
        left -= reply.has_error()
        yield reply
        del reply
        if left < needed and not deadline.given_up:
            LOG.warning(
                "%d of %d silos can still answer, %d have to: nobody is waited for.", left, len(messages), needed
            )
            deadline.give_up()


def timed(
    replies: Iterator[Message], seconds: dict[str, float], stage: str, between: str | None = None
) -> Iterator[Message]:
    """Yield the replies, and note how long they were waited for; as ``between``, what was done with them meanwhile."""
    seconds.update({name: 0.0 for name in (stage, between) if name is not None})
    while True:
        started = time.perf_counter()
        reply = next(replies, None)
        arrived = time.perf_counter()
        seconds[stage] += arrived - started
        if reply is None:
            return
        yield reply
        del reply
        if between is not None:
            seconds[between] += time.perf_counter() - arrived


def arriving(
    grid: Grid,
    messages: Sequence[Message],
    deadline: Deadline,
    at_once: int = AT_ONCE,
    sleep: Callable[[float], None] | None = None,
) -> Iterator[Message]:
    """Send messages and yield the replies as they come; see :func:`exchange`.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    messages : sequence of flwr.app.Message
    deadline : Deadline
    at_once : int
        Replies that are asked for at once. No more than these are held here, however many wait in the SuperLink, and
        each is let go of before the next is looked at.
    sleep : callable, optional
        Waits so many seconds between two looks for replies, in place of ``time.sleep``.
    """
    pending = list(grid.push_messages(list(messages)))
    pause = _SHORTEST_PAUSE
    while pending:
        some, at = False, 0
        while at < len(pending):
            arrived = list(grid.pull_messages(pending[at : at + at_once]))
            if not arrived:
                at += at_once
                continue
            some = True
            done = {reply.metadata.reply_to_message_id for reply in arrived}
            before = len(pending)
            pending = [waiting for waiting in pending if waiting not in done]
            at += at_once if len(pending) == before else 0  # what answers nothing that was asked gets us nowhere
            arrived.reverse()
            while arrived:
                yield arrived.pop()
        if some:
            pause = _SHORTEST_PAUSE
            continue
        if deadline.over:
            break
        (sleep or time.sleep)(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
