"""What Flower's SuperExec starts for a task: a few milliseconds that hand it to the warm process, or start it cold.

Run by its path, without site-packages. Its arguments: the warm process's socket, where ``quire`` is found, the task's
kind, the number of words of the command that starts it cold, these words, and then what Flower says.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def main(arguments: list[str]) -> int:
    """Hand the task over and return its exit status; start it here if nobody takes it."""
    place, where, kind, count, *rest = arguments
    cold, told = rest[: int(count)], rest[int(count) :]
    frame = json.dumps({"environment": dict(os.environ), "where": where, "kind": kind, "arguments": told}).encode()
    connection = socket.socket(socket.AF_UNIX)
    try:
        folder = os.open(os.path.dirname(place), os.O_RDONLY)
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(place)}")  # a socket's path must be short
        connection.sendall(len(frame).to_bytes(8, "big") + frame)
        taken = connection.recv(1)
    except OSError:
        taken = b""
    if not taken:  # it is still importing, is no more, or could not be forked: nothing was begun
        connection.close()
        os.execv(cold[0], [*cold, *told])
    return (connection.recv(1) or b"\x01")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
