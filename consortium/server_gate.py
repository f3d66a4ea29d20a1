"""What stands in the place of ``flwr-serverapp`` on the server: only code that the operator ships runs as its user.

Whoever reaches the SuperLink on this machine can submit a run, whose ServerApp Flower's SuperExec would start. Here
SuperExec finds this under the name of every command that it knows. It pulls the task, holds the bundle against the
operator's list while it is bytes in memory (:mod:`quire.clients.gate`), and hands those very bytes to Flower's own
``flwr-serverapp``, in a new process with a Flower home of its own (:mod:`quire.consortium.handed_on`). Of a bundle that
is not on the list nothing is written or imported, and its run has failed, in words.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.common.args import add_args_flwr_app_common, try_obtain_flwr_app_token
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PullTaskInputResponse, PushTaskOutputRequest
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.tls import validate_and_resolve_root_certificates

from quire.clients.gate.approvals import require_approved
from quire.clients.gate.bundle import Bundle
from quire.clients.gate.launch import write_commands
from quire.consortium import handed_on
from quire.consortium.tickets import RESUME_CONFIG, Tickets
from quire.errors import QuireError

LOG = logging.getLogger("quire.consortium")

#: Tells the stand-ins what the operator has said: a JSON object with the fields of :class:`ServerGate`.
GATE_VARIABLE = "QUIRE_SERVER_GATE"
#: The only kind of task that the server runs.
SERVER_APP = "flwr-serverapp"


class Refused(Exception):
    """A run that is not started; its words are the operator's to read."""


@dataclass(frozen=True)
class ServerGate:
    """What a stand-in has to know.

    Attributes
    ----------
    approvals : pathlib.Path
        The operator's list of bundles that the server runs.
    homes : pathlib.Path
        In which every run has a folder for its code, this user's only.
    runs : pathlib.Path
        In which every run has its run folder.
    path : str
        The search path of programs for the ServerApp.
    variable : str
        Names to it, in the environment, where its run folder is.
    log : pathlib.Path
        Of what is decided: SuperExec drops what this process prints.
    resumes : pathlib.Path
        Of the tickets with which runs go on in the folders of others (:mod:`quire.consortium.tickets`).
    again : str
        Names to the ServerApp, in the environment, that it goes on with the run in its folder.
    """

    approvals: Path
    homes: Path
    runs: Path
    path: str
    variable: str
    log: Path
    resumes: Path
    again: str

    def to_json(self) -> str:
        """Return it for the environment variable."""
        return json.dumps({name: str(value) for name, value in vars(self).items()})

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> ServerGate:
        """Read what ``quire superlink start`` has left for its stand-ins.

        Raises
        ------
        KeyError
            If this process was not started by it.
        """
        told = json.loads(variables[GATE_VARIABLE])
        approvals, homes, runs, log, resumes = (
            Path(told[name]) for name in ("approvals", "homes", "runs", "log", "resumes")
        )
        return cls(approvals, homes, runs, told["path"], told["variable"], log, resumes, told["again"])

    def admit(self, kind: str, task: PullTaskInputResponse) -> str:
        """Return the hash by which a task's bundle is approved.

        Parameters
        ----------
        kind : str
            The task's kind, as Flower names its command.
        task : PullTaskInputResponse
            As pulled from the SuperLink.

        Raises
        ------
        Refused
            If it is not, or the task is no ServerApp's; in doubt nothing runs.
        """
        if kind != SERVER_APP:
            raise Refused(f"the run asks for {kind}; this server runs {SERVER_APP} only")
        bundle = Bundle(task.fab.content)
        try:
            unknown = "is not code that this server runs: submit with `quire submit` from the operator's installation"
            return require_approved(bundle, self.approvals, unknown)
        except QuireError as error:
            raise Refused(str(error)) from error

    def gone_on_with(self, task: PullTaskInputResponse) -> Path | None:
        """Return the run folder of another run, if an admitted run goes on there; this process holds it from now on.

        Parameters
        ----------
        task : PullTaskInputResponse

        Raises
        ------
        Refused
            If it cannot: see :meth:`quire.consortium.tickets.Tickets.redeem`.
        """
        word = task.run.override_config[RESUME_CONFIG].string if RESUME_CONFIG in task.run.override_config else ""
        if not word:
            return None
        try:
            return Tickets(self.resumes, self.runs).redeem(word, task.run.run_id)
        except QuireError as error:
            raise Refused(str(error).rstrip(".")) from error

    def environment(
        self, variables: Mapping[str, str], home: Path, run: int, resumed: Path | None = None
    ) -> dict[str, str]:
        """Return the environment of an approved run's process.

        Parameters
        ----------
        variables : mapping of str to str
            That of this process.
        home : pathlib.Path
            The run's own folder.
        run : int
            Its number.
        resumed : pathlib.Path or None
            The run folder in which it goes on, if that is another run's.
        """
        kept = {name: value for name, value in variables.items() if name not in (GATE_VARIABLE, self.again)}
        own = {"PATH": self.path, "FLWR_HOME": str(home / "flwr"), self.variable: str(self.runs / str(run))}
        return {**kept, **own, **({} if resumed is None else {self.variable: str(resumed), self.again: "1"})}


def prepare_gate(gate: ServerGate, commands: Path) -> None:
    """Write the commands that SuperExec finds, and remove the code that runs of an earlier start have left.

    Parameters
    ----------
    gate : ServerGate
    commands : pathlib.Path
        The one folder of SuperExec's search path.
    """
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    for folder in (gate.homes, commands):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    write_commands(commands, sorted(TASK_TYPE_TO_COMMAND.values()), starter="quire.consortium.server_gate")


def main(kind: str) -> int:
    """Handle the one task that SuperExec has started this process for; return the exit status of a refusal.

    Parameters
    ----------
    kind : str
        The name of the command of Flower's in whose place this is.
    """
    gate = ServerGate.from_environment(os.environ)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s gate %(levelname)s: %(message)s", filename=gate.log)
    parser = argparse.ArgumentParser(description=f"Quire's gate, in the place of {kind}.", allow_abbrev=False)
    parser.add_argument("--runtime-api-address", required=True)
    add_args_flwr_app_common(parser)
    args = parser.parse_args()
    client = RuntimeHttpClient.from_server_address(
        server_address=args.runtime_api_address,
        insecure=args.insecure,
        root_certificates=validate_and_resolve_root_certificates(args.root_certificates, args.insecure),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name=SERVER_APP),
            RuntimeTokenHttpInterceptor(try_obtain_flwr_app_token(args)),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    try:
        task = client.PullTaskInput(PullTaskInputRequest())
        try:
            approved = gate.admit(kind, task)
            resumed = gate.gone_on_with(task)
            home = hand_over(gate, task)
        except Exception as error:
            words = str(error) if isinstance(error, Refused) else f"it cannot be checked ({type(error).__name__})"
            LOG.error("Run %d is refused: %s", task.run.run_id, words)
            told = f"Refused by the server's gate: {words}."
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=told))
            return 1
    finally:
        client.close()
    LOG.info("Run %d is admitted by %s", task.run.run_id, approved)
    command = [sys.executable, "-IB", str(Path(handed_on.__file__).resolve()), str(home), *sys.argv[1:]]
    os.execve(sys.executable, command, gate.environment(os.environ, home, task.run.run_id, resumed))


def hand_over(gate: ServerGate, task: PullTaskInputResponse) -> Path:
    """Write an approved task where its process finds it, and return the new folder."""
    home = Path(tempfile.mkdtemp(prefix=f"{task.run.run_id}-", dir=gate.homes))  # 0700
    (home / handed_on.TASK).write_bytes(task.SerializeToString())
    return home
