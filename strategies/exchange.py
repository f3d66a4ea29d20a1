"""One exchange with a cohort: messages out, replies in, until all have answered or the deadline has passed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


def exchange(grid: Grid, messages: Sequence[Message], timeout: float) -> list[Message]:
    """Send messages and collect the replies.

    Polls more often than ``Grid.send_and_receive`` of Flower's deployment runtime, which waits three seconds
    between pulls. The messages are handed over as a list: a generator would be consumed twice there.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    messages : sequence of flwr.app.Message
    timeout : float
        Seconds to wait for replies. Whoever has not replied by then is simply absent from the result.

    Returns
    -------
    list of flwr.app.Message
        In the order of arrival; errors included.
    """
    return list(arriving(grid, messages, timeout))


def arriving(grid: Grid, messages: Sequence[Message], timeout: float) -> Iterator[Message]:
    """Send messages and yield the replies as they come, so that none has to be kept; see :func:`exchange`."""
    pending = set(grid.push_messages(list(messages)))
    deadline = time.monotonic() + timeout
    pause = _SHORTEST_PAUSE
    while pending:
        arrived = list(grid.pull_messages(sorted(pending)))
        pending -= {reply.metadata.reply_to_message_id for reply in arrived}
        yield from arrived
        if arrived:
            pause = _SHORTEST_PAUSE
            continue
        if time.monotonic() >= deadline:
            break
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
