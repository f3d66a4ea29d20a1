"""``quire gate``: Flower's SuperExec, in an environment in which it can start nothing but our starter.

SuperExec starts the commands ``flwr-clientapp``, ``flwr-agentapp`` and so on by their names, and which of them is for
the server to say. So the gate gives it a search path of one folder, in which each of these names is the starter.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import quire
from quire.clients.gate import knock
from quire.clients.gate import warm as warm_module
from quire.clients.gate.approvals import approvals_file, private_to_us, read_approvals
from quire.clients.gate.scrub import PASSPHRASE_FILE, check_names, scrubbed
from quire.clients.gate.warm import CHOICES
from quire.errors import QuireError

LOG = logging.getLogger("quire.gate")

#: Tells the starters what the operator has said: a JSON object with ``silo`` and ``pass``.
GATE_VARIABLE = "QUIRE_GATE"
# Ends with the gate, however that ends: the kernel's SIGTERM (prctl(2), PR_SET_PDEATHSIG), unless it is gone already.
_LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); os.getppid() == {} or sys.exit(1); "
_SUPEREXEC = "import sys; from flwr.supercore.cli import flower_superexec; sys.argv[0] = 'flower-superexec'; "
_GRACE = 15.0
#: Nothing is imported before messages come.
COLD = "none"


class GateError(QuireError):
    """The gate cannot be opened."""

    exit_code = 2


def write_commands(
    folder: Path, kinds: Sequence[str], *, starter: str = "quire.clients.gate.starter", warm: Path | None = None
) -> None:
    """Write one small script for every command that SuperExec may start; each is the starter.

    Parameters
    ----------
    folder : pathlib.Path
    kinds : sequence of str
        Names of the commands.
    starter : str
        The module whose ``main`` each of them calls with its own name.
    warm : pathlib.Path or None
        Socket of the warm process, which is asked first; it knows the silo's starter only.
    """
    # In a checkout the rooms lie beside the package, and an isolated Python would not find them.
    where = str(Path(quire.__file__).resolve().parent.parent)
    for kind in kinds:
        program = f"import sys; sys.path.insert(0, {where!r}); from {starter} import main; sys.exit(main({kind!r}))"
        words = cold = [sys.executable, "-I", "-c", program]
        if warm is not None:
            words = [sys.executable, "-ISB", str(Path(knock.__file__).resolve())]
            words += [str(warm), where, kind, str(len(cold)), *cold]
        script = folder / kind
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o500)


def gate_environment(variables: Mapping[str, str], silo: Path, passed: Sequence[str], folder: Path) -> dict[str, str]:
    """Return the environment of SuperExec and its starters.

    Parameters
    ----------
    variables : mapping of str to str
        The operator's.
    silo : pathlib.Path
        The silo's own file.
    passed : sequence of str
        Names of variables that approved code may see.
    folder : pathlib.Path
        Holds the commands; everything short-lived lies below it.
    """
    kept = {
        name: value for name, value in variables.items() if name in passed or not name.startswith(("QUIRE_", "PYTHON"))
    }
    if place := variables.get(PASSPHRASE_FILE):
        kept[PASSPHRASE_FILE] = str(Path(place).absolute())  # approved code works in a folder of its own
    return {
        **kept,
        "PATH": str(folder / "bin"),
        "TMPDIR": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        GATE_VARIABLE: json.dumps({"silo": str(silo), "pass": list(passed)}),
    }


def open_gate(silo: Path, superexec: Sequence[str], passed: Sequence[str] = (), warm: str = "none") -> int:
    """Run Flower's SuperExec behind the gate until it ends or is asked to, and return its exit status.

    Parameters
    ----------
    silo : pathlib.Path
        The silo's own file; the list of approved bundles lies beside it.
    superexec : sequence of str
        Arguments of ``flower-superexec``.
    passed : sequence of str
        Names of environment variables that approved code sees.
    warm : str
        What is imported before messages come: a key of :data:`quire.clients.gate.warm.CHOICES`, or ``none``.

    Raises
    ------
    GateError
        If the silo's file is not there, or nothing is known of that name.
    ApprovalError
        If it, or the list, may be written by others, or the list cannot be read.
    ScrubError
        If a variable cannot be handed on.
    """
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    silo = silo.resolve()
    if not silo.is_file():
        raise GateError(f"There is no file {silo}: --silo names the silo's own file.")
    if warm not in (COLD, *CHOICES):
        raise GateError(f"--warm {warm}: it is one of {', '.join((*CHOICES, COLD))}.")
    private_to_us(silo)
    approved = len(read_approvals(approvals_file(silo)))
    check_names(passed)
    with tempfile.TemporaryDirectory(prefix="quire-gate-") as name:
        folder = Path(name)
        (folder / "bin").mkdir(mode=0o700)
        socket = folder / "warm" if warm != COLD else None
        write_commands(folder / "bin", sorted(TASK_TYPE_TO_COMMAND.values()), warm=socket)
        leash = _LEASH.format(os.getpid()) if sys.platform == "linux" else ""
        command = [sys.executable, "-I", "-c", f"{leash}{_SUPEREXEC}flower_superexec()", *superexec]
        command += ["--parent-pid", str(os.getpid())]
        variables = gate_environment(os.environ, silo, passed, folder)
        process = subprocess.Popen(command, env=variables)
        held = warm_process(socket, warm, scrubbed(variables, folder, passed), process.pid) if socket else None
        LOG.info("The gate is open for %s (%d approved in %s)", silo, approved, approvals_file(silo))

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.terminate()

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            status = process.wait()
            return status if status >= 0 else 128 - status
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if process.poll() is None:
                process.kill()
                process.wait(_GRACE)
            if held is not None:
                _end(held)


def warm_process(socket: Path, what: str, variables: Mapping[str, str], executor: int) -> subprocess.Popen[bytes]:
    """Start the process that is forked for every message; see :mod:`quire.clients.gate.warm`.

    Parameters
    ----------
    socket : pathlib.Path
        Where it listens once it has imported all.
    what : str
        What that is.
    variables : mapping of str to str
        All of its environment: that of approved code, but for what goes with a message.
    executor : int
        Process id of the SuperExec whose children may ask it.

    Returns
    -------
    subprocess.Popen
        It ends when its standard input is closed, and so with the process that calls this.
    """
    command = [sys.executable, "-IB", str(Path(warm_module.__file__).resolve()), str(socket), what]
    process = subprocess.Popen(command, env=dict(variables), cwd=socket.parent, stdin=subprocess.PIPE)
    with contextlib.suppress(OSError):  # it ended at once: tasks are started cold
        process.stdin.write(f"{executor}\n".encode())  # type: ignore[union-attr]  # a pipe, as asked for
        process.stdin.flush()  # type: ignore[union-attr]
    return process


def _end(warm: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        warm.stdin.close()  # type: ignore[union-attr]
    try:
        warm.wait(_GRACE)
    except subprocess.TimeoutExpired:
        warm.kill()
        warm.wait()
