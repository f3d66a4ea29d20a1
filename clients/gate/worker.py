"""The process in which approved code runs, started by its path: it imports Flower and the bundle, nothing of ours.

Nothing here may import ``quire``: the bundle brings its own copy, and that is the one that was approved. While this
process imports Flower, the gate is still reading the bundle; what the gate refuses is never named here. The pipe from
the gate stays open as long as the gate lives, and its end ends this process; so does the kernel, if the gate is killed.

Frames, each with its length as eight bytes, big-endian. From the gate: a JSON header, Flower's context, the message.
Back: the context, the reply. No text of an exception goes back: a worker that fails says nothing and ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO

_PR_SET_PDEATHSIG = 1  # prctl(2)
#: The largest frame, in bytes: no message of Flower's protobuf is larger.
MAX_FRAME = 2**31


def write_frames(file: BinaryIO, frames: list[bytes]) -> None:
    """Write frames and flush."""
    for frame in frames:
        file.write(len(frame).to_bytes(8, "big"))
        file.write(frame)
    file.flush()


def read_frames(file: BinaryIO, count: int) -> list[bytes]:
    """Read frames.

    Raises
    ------
    EOFError
        If the other side ended before the last one, or one is longer than any can be.
    """
    frames = []
    for _ in range(count):
        length = int.from_bytes(_exactly(file, 8), "big")
        if length > MAX_FRAME:
            raise EOFError("no frame is that long")
        frames.append(_exactly(file, length))
    return frames


def _exactly(file: BinaryIO, length: int) -> bytes:
    content = file.read(length)
    if len(content) != length:
        raise EOFError("the other side ended")
    return content


def end_with(parent: int) -> None:
    """Have this process killed once the gate's has ended, however that did; at once if it has.

    The end of the pipe tells it too, to a thread, which code that holds the interpreter's lock keeps from running.

    Parameters
    ----------
    parent : int
        Number of the gate's process, which has started or forked this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _end_with(gate: int) -> None:
    os.read(gate, 1)
    os._exit(1)


def _answer(header: dict[str, Any], context_bytes: bytes, message_bytes: bytes) -> list[bytes]:
    from flwr.clientapp.utils import get_load_client_app_fn
    from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
    from flwr.proto.message_pb2 import Context, Message

    context = context_from_proto(Context.FromString(context_bytes))
    message = message_from_proto(Message.FromString(message_bytes))
    load = get_load_client_app_fn(default_app_ref="", app_path=header["app"], multi_app=True)
    reply = load(header["fab_id"], header["fab_version"], header["hash"])(message=message, context=context)
    return [context_to_proto(context).SerializeToString(), message_to_proto(reply).SerializeToString()]


def main(incoming: int, outgoing: int) -> int:
    """Wait for a message, let approved code answer it, and return the exit status.

    Parameters
    ----------
    incoming, outgoing : int
        File descriptors of the pipes from and to the gate.
    """
    import flwr.clientapp.utils
    import flwr.common.serde  # noqa: F401  # while the gate is still at work
    from flwr.supercore.task_identity import TaskIdentity

    for descriptor in (incoming, outgoing):
        os.set_inheritable(descriptor, False)
    gate, back = os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb")
    try:
        raw_header, context, message = read_frames(gate, 3)
    except EOFError:
        return 0  # the gate refused
    threading.Thread(target=_end_with, args=(incoming,), daemon=True).start()
    header = json.loads(raw_header)
    os.environ.clear()  # a process that was forked has the warm one's
    os.environ.update(header["environment"])
    os.chdir(header["home"])
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = header["task"]
    try:
        write_frames(back, _answer(header, context, message))
        return 0
    except BaseException:
        traceback.print_exc()  # into the silo's own log
        return 1


if __name__ == "__main__":
    end_with(int(sys.argv.pop()))
    STATUS = main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(STATUS)  # threads that the code left behind do not keep the gate waiting
