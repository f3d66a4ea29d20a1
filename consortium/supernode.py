"""Flower's SuperNode, which looks for messages as often as it pays: everything of it is Flower's but two pauses.

Flower 1.41 has two fixed pauses in :mod:`flwr.supernode.start_client_internal`: three seconds whenever there is no
message, half a second while a reply is worked on. An exchange waits for the slowest of its silos, and so nearly always
for the whole of both. Neither can be set from outside. So this module hands that one module of Flower's another
``time``, in which ``sleep`` is ours, and then calls Flower's own ``flower_supernode``. Nothing else of Flower's is
touched: not the protocol, not node authentication, not what is retried and when.

A pause is a tenth of the time since the last message was worked on, between a tenth of a second and the three that
Flower waits: what a silo adds to an exchange is a tenth of what the others take. A silo that has been idle for half a
minute asks as rarely as Flower's own.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

#: The pauses that Flower 1.41 knows there, in seconds: nothing to do, and a reply that is not there yet.
IDLE, REPLY = 3.0, 0.5
#: Ours lie between these; the shortest pause for a reply, which is asked for in the same process.
SHORTEST, SHORTEST_REPLY = 0.1, 0.02
#: Part of the time that has gone by which is waited again.
PART = 0.1


class Pace:
    """How long to pause.

    Parameters
    ----------
    now : float
        Seconds of a clock that only goes forward.
    """

    def __init__(self, now: float) -> None:
        self._worked = now  # when a message was last worked on
        self._began = now  # when work on the one at hand began
        self._idle = True

    def pause(self, asked: float, now: float) -> float:
        """Return how long to pause where Flower would for so many seconds.

        Parameters
        ----------
        asked, now : float
        """
        if asked >= IDLE:
            self._idle = True
            return min(asked, max(SHORTEST, PART * (now - self._worked)))
        if self._idle:
            self._idle, self._began = False, now
        self._worked = now
        return min(asked, max(SHORTEST_REPLY, PART * (now - self._began)))


def paced() -> SimpleNamespace:
    """Return what stands for the module ``time`` in Flower's loop: of that it calls ``sleep`` and nothing else."""
    pace = Pace(time.monotonic())
    return SimpleNamespace(sleep=lambda seconds: time.sleep(pace.pause(seconds, time.monotonic())))


def main() -> None:
    """Run Flower's SuperNode with the arguments of this process."""
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode

    vars(start_client_internal)["time"] = paced()
    sys.argv[0] = "flower-supernode"
    flower_supernode()
