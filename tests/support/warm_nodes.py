"""SuperNodes forked from one process that has imported Flower and torch, where many are needed. Reads standard input.

What Flower starts as processes of their own, the SuperNode, its SuperExec and a ClientApp for each message, are forks
here: they run Flower's code with the arguments that Flower gives them, and need not import it all over again. Nothing
of Quire is imported before a fork: a ClientApp takes it from the bundle, as ever. The SuperNodes pause as those of
`quire silo start` do.

"start": {"node", "command", "environment", "log"} starts a node; "kill": "NODE" ends all of one at once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]


def loaded(path: Path) -> ModuleType:
    """Load one file that imports nothing of ours."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Nodes:
    """What was started, and how more of it is asked for."""

    def __init__(self) -> None:
        self.asked, self._ask = os.pipe()  # whoever is forked asks here for the next
        self._places: dict[str, dict[str, Any]] = {}
        self._leaders: dict[str, int] = {}

    def take(self, told: dict[str, Any]) -> None:
        """Do as a line of standard input says."""
        if (name := told.get("kill")) is not None:
            os.killpg(self._leaders[name], signal.SIGKILL)
            return
        about = told["start"]
        self._places[about["node"]] = about
        self.fork(about["node"], about["command"])

    def fork(self, node: str, command: list[str]) -> None:
        """Start a program for a node."""
        child = os.fork()
        if child == 0:
            self._live(node, command)
        leader = self._leaders.setdefault(node, child)
        with contextlib.suppress(OSError):  # it has done so itself, or the node is gone
            os.setpgid(child, leader)

    def _live(self, node: str, command: list[str]) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, self._leaders.get(node, 0))
            place = self._places[node]
            log = os.open(place["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            os.environ.clear()
            os.environ.update(place["environment"])
            run(command, lambda more, **_: os.write(self._ask, json.dumps([node, more]).encode() + b"\n"))
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:  # whatever it is: into the log, and never on into what was forked
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def run(command: list[str], start: Any) -> None:
    """Be one of Flower's programs."""
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec.executor import subprocess_executor
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode, flwr_clientapp

    for module in (start_client_internal, subprocess_executor):
        vars(module)["subprocess"] = SimpleNamespace(Popen=start, DEVNULL=None)
    vars(start_client_internal)["time"] = loaded(ROOT / "consortium" / "supernode.py").paced()
    sys.argv = list(command)
    programs = {
        "flower-supernode": flower_supernode,
        "flower-superexec": flower_superexec,
        "flwr-clientapp": flwr_clientapp,
    }
    programs[command[0]]()


def main() -> None:
    """Do as the module says, until standard input ends."""
    del sys.path[0]  # the folder of this file
    warm = loaded(ROOT / "clients" / "gate" / "warm.py")
    warm.import_all(warm.CHOICES["all"])
    import flwr.supercore.cli
    import flwr.supernode.cli
    import flwr.supernode.main  # noqa: F401

    if left := [name for name in sys.modules if name.split(".")[0] == "quire"]:
        raise SystemExit(f"imported before a fork: {left}")
    nodes, told, asked = Nodes(), b"", b""
    while True:
        ready, _, _ = select.select([0, nodes.asked], [], [], 0.2)
        if 0 in ready:
            if not (data := os.read(0, 65536)):
                return
            *lines, told = (told + data).split(b"\n")
            for line in lines:
                nodes.take(json.loads(line))
        if nodes.asked in ready:
            *lines, asked = (asked + os.read(nodes.asked, 65536)).split(b"\n")
            for line in lines:
                nodes.fork(*json.loads(line))
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    break
            except ChildProcessError:
                break


if __name__ == "__main__":
    main()
