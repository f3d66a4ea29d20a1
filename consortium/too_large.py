"""Messages that the proxy refused for their size, told to the operator: Flower only says that a request failed."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from quire.consortium.metrics import Tail, plain
from quire.consortium.proxy import MOST_BODY
from quire.consortium.supervise import Say

_STATUS = 413
# Seconds for which the same member's refusals are not told again.
_AGAIN = 60.0


class Refusals:
    """Looks for them in the log of a proxy, from its creation on.

    Parameters
    ----------
    log : pathlib.Path
        With a JSON object for each request, as :mod:`quire.consortium.proxy` has it written.

    Attributes
    ----------
    tell : callable
        Told of them in words; to be set before the first look.
    """

    tell: Say

    def __init__(self, log: Path) -> None:
        self._tail = Tail(log, from_end=True)
        self._told: dict[str, float] = {}

    def look(self) -> None:
        """Read what was logged since the last look, and tell of what was refused."""
        for line in self._tail.lines():
            whose = _refused(line)
            if whose is None or time.monotonic() - self._told.get(whose, -math.inf) < _AGAIN:
                continue
            self._told[whose] = time.monotonic()
            self.tell(
                "messages",
                f"a message of {whose} was refused by the server's proxy, as it has more than "
                f"{MOST_BODY // 2**20} MiB in one piece, so that the silo drops out of the round: train a smaller "
                "model, or send arrays, which travel in small pieces, and not one large record",
            )


def _refused(line: bytes) -> str | None:
    """Return whose request it was if it was refused for its size."""
    if b'"status":%d,' % _STATUS not in line:
        return None
    try:
        about = json.loads(line)
        return plain(about.get("member", "this silo")) if about["status"] == _STATUS else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
