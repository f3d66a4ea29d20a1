"""A silo with a SuperNode, an open gate, and code to approve that tells what it sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from bundles import APP, packed
from flwr.app import ConfigRecord, RecordDict
from node import Node

from quire.clients.gate.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import os, pathlib, sys
pathlib.Path({canary!r}).write_text("imported")
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp
client, server = ClientApp(), None

@client.train()
def train(message, context):
    asked = message.content["ask"]["for"]
    known = context.state["known"]["count"] if "known" in context.state else 0
    context.state["known"] = ConfigRecord({{"count": known + 1}})
    if asked == "raise":
        raise ValueError("patient 4711")
    if asked == "spoil":  # all that one message could leave for the next one
        import numpy, tempfile
        numpy.pi, sys.spoilt, os.environ["SPOILT"] = 3, True, "yes"
        sys.modules["left"], tempfile.tempdir = os, "/nowhere"
    if asked == "hold":  # a store's lock, in native code that lets no other thread of Python run
        import ctypes, fcntl
        lock = open({folder!r} + "/lock", "a")
        fcntl.flock(lock, fcntl.LOCK_EX)
        pathlib.Path({folder!r} + "/holder").write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(600)
    if asked == "knock":
        import contextlib, glob, socket
        (place,) = glob.glob({folder!r} + "/quire-gate-*/warm")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(os.path.relpath(place))
            frame = b'{{"environment": {{}}, "where": "", "kind": "flwr-clientapp", "arguments": []}}'
            heard = b""
            with contextlib.suppress(ConnectionError):
                connection.sendall(len(frame).to_bytes(8, "big") + frame)
                heard = connection.recv(1)
            told = ConfigRecord({{"heard": heard}})
        return Message(RecordDict({{"told": told}}), reply_to=message)
    if asked == "exit":
        os._exit(0)
    if asked == "error":
        return Message(Error(code=2, reason="patient 4711"), reply_to=message)
    if asked == "code":
        return Message(Error(code=103, reason="patient 4711"), reply_to=message)
    import numpy, tempfile
    told = ConfigRecord({{
        "spoilt": numpy.pi == 3 or hasattr(sys, "spoilt") or "left" in sys.modules or "SPOILT" in os.environ,
        "random": numpy.random.random(), "folder": os.getcwd(), "temporary": tempfile.gettempdir(),
        "environment": sorted(os.environ), "words": os.environ["QUIRE_PASSPHRASE_FILE"],
        "silo": context.node_config["silo"], "count": known,
        "command": " ".join(sys.argv), "path": sys.path, "modules": sorted(sys.modules),
        "guarded": os.environ["QUIRE_GUARDED"], "home": os.environ["HOME"], "open": os.listdir("/proc/self/fd"),
        "started": pathlib.Path("/proc/self/cmdline").read_bytes(), "process": os.getpid(), "session": os.getsid(0),
        "writable": os.access(__file__, os.W_OK), "files": sorted(os.listdir(os.path.dirname(__file__))),
    }})
    return Message(RecordDict({{"told": told}}), reply_to=message)
"""


class Site:
    """A silo with a SuperNode and an open gate."""

    def __init__(self, folder: Path, node: Node, warm: str = "light") -> None:
        self.folder, self.node, self.silo, self.canary = folder, node, folder / "silo.yaml", folder / "canary"
        self.silo.write_text("name: us\n")
        names = {"canary": str(self.canary), "folder": str(folder)}
        self.fab = packed({**APP, "app/__init__.py": textwrap.dedent(CLIENT).format(**names).encode()})
        self.hash = Bundle(self.fab).content
        self.log = folder / "log"
        command = [sys.executable, "-m", "quire", "gate", "--silo", str(self.silo), "--insecure", "--warm", warm]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--runtime-api-address", node.address, "--pass", "DB_PASSWORD"],
                env={
                    **os.environ,
                    **{"PYTHONPATH": str(ROOT), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05", "TMPDIR": str(folder)},
                    **{"DB_PASSWORD": "x", "HOSPITAL_SECRET": "y", "FLWR_TELEMETRY_ENABLED": "0"},
                    **{"QUIRE_PASSPHRASE_FILE": "words", "QUIRE_PASSPHRASE": "z", "QUIRE_SILOS": "s"},
                    **{"QUIRE_ROSTER": "r", "QUIRE_PLUGINS": "p", "QUIRE_RUN_DIR": "d", "QUIRE_SCHEMA": "c"},
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

        while warm != "none" and not self.socket():  # before that, messages are handled without it
            time.sleep(0.05)

    def socket(self) -> list[Path]:
        """Where the warm process listens."""
        return list(self.folder.glob("quire-gate-*/warm"))

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(30) == 0
        finally:
            self.process.kill()

    def ask(self, what: str, fab: bytes | None = None, **run: object) -> object:
        number = self.node.send(fab or self.fab, RecordDict({"ask": ConfigRecord({"for": what})}), **run)
        return self.node.reply(number)

    def said(self) -> str:
        return self.log.read_text(errors="replace")
