"""What Flower's SuperExec starts for a task: a few milliseconds that hand it to the warm process, or start it cold.

Run by its path, without site-packages. Its arguments: the warm process's socket, where ``quire`` is found, the task's
kind, the number of words of the command that starts it cold, these words, and then what Flower says.
"""

from __future__ import annotations

import json
import os
import socket
import sys

#: Seconds that the warm process has to take a task. Flower waits for thirty before it hands it out again.
PATIENCE = 10.0


def ask(connection: socket.socket, place: str, words: bytes) -> bytes:
    """Return what the warm process says to a task: nothing if it does not take it, in time."""
    try:
        connection.settimeout(PATIENCE)
        folder = os.open(os.path.dirname(place), os.O_RDONLY)
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(place)}")  # a socket's path must be short
        connection.sendall(words)
        return connection.recv(1)
    except TimeoutError:
        pass  # it was stopped, or hangs, and so would every task that Flower hands out
    except OSError:
        return b""
    try:
        connection.shutdown(socket.SHUT_RD)  # what it has not said by now it cannot say any more, and begins nothing
        return connection.recv(1)
    except OSError:
        return b""


def main(arguments: list[str]) -> int:
    """Hand the task over and return its exit status; start it here if nobody takes it."""
    place, where, kind, count, *rest = arguments
    cold, told = rest[: int(count)], rest[int(count) :]
    frame = json.dumps({"environment": dict(os.environ), "where": where, "kind": kind, "arguments": told}).encode()
    connection = socket.socket(socket.AF_UNIX)
    taken = ask(connection, place, len(frame).to_bytes(8, "big") + frame)
    connection.settimeout(None)
    if not taken:  # it is still importing, is no more, or could not be forked: nothing was begun
        connection.close()
        os.execv(cold[0], [*cold, *told])
    return (connection.recv(1) or b"\x01")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
