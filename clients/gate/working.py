"""The process in which approved code runs, as the starter has it: forked from the warm one, or started from nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from flwr.app import Context, Message
from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
from flwr.proto import message_pb2

from quire.clients.contract import Code
from quire.clients.gate import worker
from quire.clients.gate.scrub import scrubbed

# Seconds that the process of approved code has for its end, and between two looks whether it has come.
_GRACE, _LOOK = 5.0, 0.005


class Refused(Exception):
    """Ends the handling of a message with a fixed code; the words stay in the silo's log."""

    def __init__(self, code: Code, words: str) -> None:
        super().__init__(words)
        self.code = code


class Process(Protocol):
    """What ends the process of approved code; :class:`subprocess.Popen` does."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its status; raises subprocess.TimeoutExpired."""

    def kill(self) -> None:
        """Make it end."""


@dataclass
class Forked:
    """A child that was forked and not started.

    Attributes
    ----------
    pid : int
    """

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its status, as of ``os.waitpid``.

        Raises
        ------
        subprocess.TimeoutExpired
            If it has not ended after so many seconds.
        """
        deadline = time.monotonic() + timeout if timeout is not None else None
        while deadline is not None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return status
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_LOOK)
        return os.waitpid(self.pid, 0)[1]

    def kill(self) -> None:
        """Make it end; it is ours until it was waited for, so that its number is no other's."""
        os.kill(self.pid, signal.SIGKILL)


@dataclass
class Worker:
    """The process in which approved code will run, and the pipes to and from it."""

    process: Process
    to: BinaryIO
    back: BinaryIO

    def ask(self, header: dict[str, Any], context: Context, message: Message) -> tuple[Context, Message]:
        """Hand over a message and wait for the answer.

        Raises
        ------
        Refused
            If the process ends without one.
        """
        frames = [context_to_proto(context).SerializeToString(), message_to_proto(message).SerializeToString()]
        try:
            worker.write_frames(self.to, [json.dumps(header).encode(), *frames])
            answered, reply = worker.read_frames(self.back, 2)
            return (
                context_from_proto(message_pb2.Context.FromString(answered)),
                message_from_proto(message_pb2.Message.FromString(reply)),
            )
        except Exception as error:
            raise Refused(
                Code.INTERNAL, "the approved code ended without an answer; see above for its own words"
            ) from error


def forked_worker(child: int, to: int, back: int) -> Worker:
    """Return the process that :mod:`quire.clients.gate.warm` has forked, given the ends of its pipes."""
    return Worker(Forked(child), os.fdopen(to, "wb"), os.fdopen(back, "rb"))


def cold_worker(passed: Sequence[str], home: Path) -> Worker:
    """Start a process for approved code, which has yet to import whatever it needs."""
    incoming, to = os.pipe()
    back, outgoing = os.pipe()
    command = [sys.executable, "-IB", str(Path(worker.__file__).resolve()), str(incoming), str(outgoing)]
    command.append(str(os.getpid()))
    process = subprocess.Popen(
        command,
        env=scrubbed(os.environ, home, passed),
        cwd=home,
        stdin=subprocess.DEVNULL,
        pass_fds=(incoming, outgoing),
        start_new_session=True,
    )
    os.close(incoming)
    os.close(outgoing)
    return Worker(process, os.fdopen(to, "wb"), os.fdopen(back, "rb"))


@contextlib.contextmanager
def started_worker(passed: Sequence[str], home: Path, warm: Worker | None) -> Iterator[Worker]:
    """Have a process for approved code; at the end it is no more."""
    working = cold_worker(passed, home) if warm is None else warm
    try:
        yield working
    finally:
        with contextlib.suppress(OSError):
            working.to.close()
        working.back.close()
        try:
            working.process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            working.process.kill()
            working.process.wait()
