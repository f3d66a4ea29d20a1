"""A process that has imported what approved code will need, and is forked for each message. It knows nothing of ours.

Started by its path, like the worker, with approved code's environment. It imports Flower and, if wanted, torch and
scikit-learn: packages that the silo's operator installed, and nothing of a bundle, ever. For each task that Flower's
SuperExec starts it forks twice: into the process of approved code, which from then on hears of the one message alone,
and into the starter (:mod:`quire.clients.gate.starter`), which only then learns what it is asked. So the former has
never seen the token, the address or the environment that the latter is given; neither has ever seen another message.

What a fork shares with a new process, and what not: memory is copied on write, and nothing flows back. Python's random
numbers are seeded anew, and numpy's; OpenSSL sees to its own. Addresses in memory are the same in all of them. A
process with threads cannot be forked safely: if any package leaves one running that does not end for a fork, this
process says so and ends, and tasks are started cold.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

#: What every message needs, and what those that train, score or account for noise do. Who is not installed is passed.
LIGHT = (
    "cryptography.hazmat.primitives.asymmetric.mldsa",
    "cryptography.hazmat.primitives.asymmetric.x25519",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.hpke",
    "cryptography.hazmat.primitives.kdf.scrypt",
    "cryptography.hazmat.primitives.serialization",
    "flwr.clientapp.utils",
    "flwr.common.args",
    "flwr.common.serde",
    "flwr.supercore.tls",
    "flwr.supernode.runtime.run_clientapp",
    "httpcore",
    "hydra._internal.config_loader_impl",
    "hydra._internal.core_plugins.file_config_source",
    "hydra._internal.core_plugins.importlib_resources_config_source",
    "hydra._internal.core_plugins.structured_config_source",
    "hydra.core.plugins",
    "numpy",
    "omegaconf",
    "safetensors.numpy",
    "scipy.special",
    "yaml",
)
HEAVY = ("sklearn.datasets", "sklearn.metrics", "torch")
CHOICES = {"all": LIGHT + HEAVY, "light": LIGHT}
#: jemalloc, which pyarrow brings, keeps a thread of its own, and sees to it and its locks when a process is forked.
_SAFE = ("jemalloc_bg_thd",)
_SET_DUMPABLE = 4  # prctl(2)
_LOOK = 1.0  # seconds between two looks for children that have ended


def _worker() -> Any:
    place = Path(__file__).with_name("worker.py")
    spec = importlib.util.spec_from_file_location("gate_worker", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def import_all(names: tuple[str, ...]) -> None:
    """Import modules; those that are not there, or cannot be imported, are left to who needs them."""
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except Exception:
            traceback.print_exc()


def threads_after_a_fork() -> list[str]:
    """Fork once, and return the names of the threads that this process has then: OpenBLAS ends its own for a fork."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    names = [place.read_text().strip() for place in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if name not in _SAFE]


def open_to_others(may: bool) -> None:
    """Say whether other processes of this user may read this one's memory, or trace it. Inherited by forks."""
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    libc.prctl(_SET_DUMPABLE, int(may), 0, 0, 0)


def _parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _may_ask(connection: socket.socket, executor: int) -> bool:
    """Say whether it is a child of SuperExec that asks: approved code is this user's too, and has no business here."""
    length = struct.calcsize("3i")
    process, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, length))
    try:
        return bool(user == os.getuid() and executor == _parent_of(process))
    except (OSError, ValueError):
        return False


def _as_new(handlers: dict[Any, Any]) -> None:
    """Undo in a fork what is this process's alone."""
    for number, handler in handlers.items():
        signal.signal(number, handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    tempfile.tempdir = None
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all messages would see the same "random" numbers


def _work(incoming: int, outgoing: int, close: list[int], worker: Any, starter: int) -> NoReturn:
    """Be the process of approved code."""
    status = 1
    try:
        worker.end_with(starter)
        for descriptor in close:
            os.close(descriptor)
        os.setsid()
        open_to_others(True)
        sys.argv = [worker.__file__, str(incoming), str(outgoing)]
        status = worker.main(incoming, outgoing)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _start(connection: socket.socket, child: int, to: int, back: int, worker: Any) -> int:
    """Be the starter: learn the task, import the gate, do the work, and tell the status."""
    with connection.makefile("rwb") as asking:
        (raw,) = worker.read_frames(asking, 1)
        told = json.loads(raw)
        connection.sendall(b"t")  # taken: from here on nobody else begins it
        os.environ.clear()
        os.environ.update(told["environment"])
        sys.path.insert(0, told["where"])
        sys.argv = ["gate", *told["arguments"]]
        starter = importlib.import_module("quire.clients.gate.starter")  # of the operator's installation
        status = int(starter.main(told["kind"], (child, to, back)))
        with contextlib.suppress(OSError):
            asking.write(bytes([status]))
            asking.flush()
    return status


def _handle(connection: socket.socket, listener: socket.socket, worker: Any) -> NoReturn:
    """Fork the process of approved code, which knows nothing of the connection, and be the starter."""
    status = 1
    try:
        listener.close()
        incoming, to = os.pipe()
        back, outgoing = os.pipe()
        starter = os.getpid()
        child = os.fork()
        if not child:
            _work(incoming, outgoing, [connection.fileno(), to, back], worker, starter)
        os.close(incoming)
        os.close(outgoing)
        status = _start(connection, child, to, back, worker)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _forked() -> int:
    try:
        return os.fork()
    except OSError:  # there is no room for another process: who asked starts it cold, or fails as anything else would
        traceback.print_exc()
        return -1


def serve(place: str, what: str) -> int:
    """Import, then fork for every task until standard input is closed; return the exit status.

    SuperExec's process id comes through standard input first.

    Parameters
    ----------
    place : str
        Path of the socket at which tasks are told.
    what : str
        One of ``CHOICES``.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = _worker()
    import_all(CHOICES[what])
    if len(threads := threads_after_a_fork()) > 1:
        sys.stderr.write(f"gate: threads run after the imports ({', '.join(threads)}): tasks are started cold\n")
        return 1
    open_to_others(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for SuperExec, whose end ends the starters
    gc.collect()
    gc.freeze()  # what is there now is not looked at again, and so not copied for it
    executor = int(sys.stdin.readline() or "-1")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(Path(place).parent)  # the system takes paths of 107 characters for sockets, not more
        name = Path(place).name
        listener.bind(f"{name}.new")
        listener.listen(64)
        os.rename(f"{name}.new", name)  # who finds it is answered
        sys.stderr.write(f"gate: imported ahead of messages: {what}\n")
        sys.stderr.flush()
        while True:
            ready, _, _ = select.select([0, listener.fileno()], [], [], _LOOK)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if 0 in ready:
                return 0
            if listener.fileno() not in ready:
                continue
            connection, _ = listener.accept()
            with connection:
                if _may_ask(connection, executor) and not _forked():
                    _as_new(handlers)
                    _handle(connection, listener, worker)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], sys.argv[2]))
