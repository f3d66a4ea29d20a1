"""The process of a ServerApp that the server's gate has admitted: Flower's own ``flwr-serverapp``, with that very task.

Run by its path, and importing nothing of ours: the bundle brings its own copy of ``quire``, which is the one that was
checked. The gate has pulled the task, which Flower hands out once; asked for it again, Flower's client is given what
the gate has left, so that the bytes that are installed and run are the bytes that were checked.
"""

from __future__ import annotations

import atexit
import shutil
import sys
from pathlib import Path

#: Name of the file, in the run's folder, with what the SuperLink has handed out.
TASK = "task"


def main(home: Path) -> None:
    """Run the ServerApp whose task lies in a folder, and remove the folder at the end.

    Parameters
    ----------
    home : pathlib.Path
        ``FLWR_HOME`` lies in it.
    """
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PullTaskInputResponse
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.superlink.cli import flwr_serverapp

    atexit.register(shutil.rmtree, home, ignore_errors=True)
    task: PullTaskInputResponse = PullTaskInputResponse.FromString((home / TASK).read_bytes())

    def handed(client: RuntimeHttpClient, request: PullTaskInputRequest) -> PullTaskInputResponse:
        return task

    setattr(RuntimeHttpClient, "PullTaskInput", handed)  # noqa: B010  # a method of Flower's, replaced for this process
    flwr_serverapp()


if __name__ == "__main__":
    _HOME = Path(sys.argv.pop(1))
    sys.argv[0] = "flwr-serverapp"
    main(_HOME)
