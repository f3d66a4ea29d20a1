"""A worker process of ``runtime.workers``, and the server's link to it.

Frames go over a socket; the bytes of arrays that a worker sends go through memory that both share, and those that are
sent to it, such as the model that a whole cohort gets, go once.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import mmap
import os
import pickle
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from flwr.app import Message, RecordDict

from quire.simulation.grid import InlineGrid

LOG = logging.getLogger("quire.simulation")

_LENGTH = struct.Struct("<Q")
_LARGE = 16_384  # bytes
_SHARED = 64 * 2**20  # bytes; pages that nobody writes to take no memory
_PR_SET_PDEATHSIG = 1
_PATIENCE = 2.0  # seconds

Answer = tuple[str, Message, int, RecordDict | None]


class _Packer(pickle.Pickler):
    """Pickles, and leaves large bytes to somebody else."""

    def __init__(self, file: io.BytesIO, place: Any) -> None:
        super().__init__(file, protocol=5)
        self._place = place

    def persistent_id(self, obj: Any) -> Any:
        return self._place(obj) if type(obj) is bytes and len(obj) >= _LARGE else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, data: bytes, find: Any) -> None:
        super().__init__(io.BytesIO(data))
        self._find = find

    def persistent_load(self, pid: Any) -> bytes:
        found: bytes = self._find(pid)
        return found


def _pack(thing: Any, place: Any) -> bytes:
    file = io.BytesIO()
    _Packer(file, place).dump(thing)
    return file.getvalue()


class Link:
    """The server's end.

    Parameters
    ----------
    end : socket.socket
    shared : mmap.mmap
        Where the worker puts large bytes; its first 8 bytes tell how many frames were read out.
    pid : int
    """

    def __init__(self, end: socket.socket, shared: mmap.mmap, pid: int) -> None:
        end.setblocking(False)
        self.socket, self._shared, self.pid = end, shared, pid
        self._out: list[memoryview] = []
        self._in = bytearray()
        self._known: set[int] = set()
        self._read = 0
        self._status: int | None = None

    @staticmethod
    def packed(messages: Sequence[Message], blobs: dict[int, bytes]) -> bytes:
        """Write messages down; what is large is put into ``blobs``, by its identity."""

        def place(data: bytes) -> int:
            blobs[id(data)] = data
            return id(data)

        return _pack(list(messages), place)

    @property
    def has_more_to_send(self) -> bool:
        """Whether some of what was sent has yet to leave."""
        return bool(self._out)

    def send(
        self, messages: bytes, own: Sequence[str], states: Mapping[int, RecordDict], blobs: Mapping[int, bytes]
    ) -> None:
        """Send messages and which of them are to be answered, what their silos remember, and the large bytes that the
        worker does not have yet.
        """
        for key, data in blobs.items():
            if key not in self._known:
                self._known.add(key)
                self._put(pickle.dumps(("blob", key)), data)
        self._put(pickle.dumps(("part", (list(own), dict(states))), protocol=5), messages)

    def forget(self) -> None:
        """Have the worker forget large bytes."""
        if self._known:
            self._known.clear()
            self._put(pickle.dumps(("forget", None)), b"")

    def flush(self) -> None:
        """Send as much as the worker takes now."""
        while self._out:
            try:
                sent = self.socket.send(self._out[0])
            except BlockingIOError:
                return
            self._out[0] = self._out[0][sent:]
            if not self._out[0]:
                del self._out[0]

    def received(self) -> Iterator[Answer]:
        """Yield the answers that are there.

        Raises
        ------
        EOFError
            If the worker has ended.
        """
        try:
            data = self.socket.recv(2**20)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        self._in += data
        while len(self._in) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._in)
            end = _LENGTH.size + length
            if len(self._in) < end:
                return
            frame = bytes(memoryview(self._in)[_LENGTH.size : end])
            del self._in[:end]
            answer: Answer = _Unpacker(frame, self._copied).load()
            self._read += 1
            _LENGTH.pack_into(self._shared, 0, self._read)
            yield answer

    def close(self) -> None:
        """Let the worker know that it is no longer needed."""
        self.socket.close()

    def end(self) -> None:
        """Wait until the worker has ended, not for long."""
        until = time.monotonic() + _PATIENCE
        while not self._ended() and time.monotonic() < until:
            time.sleep(0.002)
        if not self._ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended(wait=True)

    def how_it_ended(self) -> str:
        """Say how the worker ended."""
        self.end()
        code = os.waitstatus_to_exitcode(self._status or 0)
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def _ended(self, wait: bool = False) -> bool:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
            except ChildProcessError:  # somebody else has asked
                pid, status = self.pid, 0
            self._status = status if pid else None
        return self._status is not None

    def _put(self, head: bytes, body: bytes) -> None:
        lengths = _LENGTH.pack(len(head)) + _LENGTH.pack(len(body))
        self._out += [memoryview(part) for part in (lengths + head, body) if part]
        with contextlib.suppress(ConnectionError):  # that it has ended is seen where it is read from
            self.flush()

    def _copied(self, place: tuple[int, int]) -> bytes:
        start, length = place
        return self._shared[start : start + length]


def started(grid: InlineGrid, others: Sequence[Link]) -> Link:
    """Fork a worker that delivers messages as a grid does.

    Parameters
    ----------
    grid : InlineGrid
    others : sequence of Link
        Workers that were started before; the new one lets go of the server's ends.
    """
    here, there = socket.socketpair()
    shared = mmap.mmap(-1, _SHARED)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        there.close()
        return Link(here, shared, pid)
    _work(grid, there, shared, parent, [here, *(link.socket for link in others)])


def _work(
    grid: InlineGrid, end: socket.socket, shared: mmap.mmap, parent: int, others: Sequence[socket.socket]
) -> NoReturn:
    """Be a worker, until the server closes its end, however that comes about."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server hears it, and ends its workers
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for other in others:
            other.close()
        if os.getppid() == parent:
            _Worker(grid, end, shared).run()
        status = 0
    except (EOFError, ConnectionError):
        status = 0
    except BaseException:
        LOG.exception("a worker ended")
    finally:
        os._exit(status)


class _Worker:
    """The worker's end."""

    def __init__(self, grid: InlineGrid, end: socket.socket, shared: mmap.mmap) -> None:
        import torch

        torch.set_num_threads(1)
        self._grid, self._end, self._shared = grid, end, shared
        self._stream = end.makefile("rb", buffering=2**16)
        self._blobs: dict[int, bytes] = {}
        self._sent, self._top = 0, _LENGTH.size

    def run(self) -> None:
        while True:
            lengths = self._exactly(2 * _LENGTH.size)
            head, body = (_LENGTH.unpack_from(lengths, place * _LENGTH.size)[0] for place in (0, 1))
            kind, about = pickle.loads(self._exactly(head))
            data = self._exactly(body)
            if kind == "blob":
                self._blobs[about] = data
            elif kind == "forget":
                self._blobs.clear()
            else:
                self._answer(_Unpacker(data, self._blobs.__getitem__).load(), *about)

    def _answer(self, messages: list[Message], ids: list[str], states: Mapping[int, RecordDict]) -> None:
        contexts = self._grid._contexts
        for message in messages:
            if (node := message.metadata.dst_node_id) in contexts:
                contexts[node].state = states.get(node) or RecordDict()
        self._grid.begin(messages)
        for message in messages:
            own, node = message.metadata.message_id, message.metadata.dst_node_id
            if own not in ids:
                continue
            reply = self._grid.deliver(message)
            state = contexts[node].state if node in contexts else None
            kept = states.get(node) is not None
            self._send((own, reply, node, state if state or kept else None))

    def _send(self, answer: Answer) -> None:
        if _LENGTH.unpack_from(self._shared, 0)[0] == self._sent:
            self._top = _LENGTH.size  # all of it was read out
        frame = _pack(answer, self._place)
        self._end.sendall(_LENGTH.pack(len(frame)) + frame)
        self._sent += 1

    def _place(self, data: bytes) -> tuple[int, int] | None:
        """Put large bytes where the server can read them; without room there they go over the socket."""
        start = self._top
        if start + len(data) > len(self._shared):
            return None
        self._shared[start : start + len(data)] = data
        self._top += len(data)
        return start, len(data)

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count) if count else b""
        if data is None or len(data) < count:
            raise EOFError
        return data
