"""Start a command so that it ends with whoever started it: ``python leash.py PARENT COMMAND...``.

Run by its path, before anything else is imported, and replaced at once by the command. The kernel sends the command
SIGTERM when its parent is gone, however that ended (``prctl(2)``, ``PR_SET_PDEATHSIG``; kept over ``execve``).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, unless the parent is gone already.

    Parameters
    ----------
    parent : int
        Process id of whoever started this.
    command : list of str
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            sys.exit(1)
    try:
        os.execvpe(command[0], command, os.environ)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
