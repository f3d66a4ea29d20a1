"""One process for each message, in the place of Flower's ``flwr-clientapp``: pull, check, hand on, answer.

Flower's SuperExec starts this under that name. Pulling, heartbeats and pushing are Flower's own functions; what lies
between them is ours. Nothing of a bundle that is not approved is written, unpacked to disk or imported, and its run
is answered with a fixed code. Neither the runtime's token nor the gate's environment reaches the approved code.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from flwr.app import Context, Error, Message
from flwr.common.args import add_args_flwr_app_common, try_obtain_flwr_app_token
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.tls import validate_and_resolve_root_certificates
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from quire.clients import contract
from quire.clients.contract import Code
from quire.clients.gate.approvals import approvals_file, require_approved
from quire.clients.gate.bundle import Bundle
from quire.clients.gate.chartered import hold_to_charter
from quire.clients.gate.launch import GATE_VARIABLE
from quire.clients.gate.mark import MARK_VARIABLE
from quire.clients.gate.scrub import scrubbed
from quire.clients.gate.working import Refused, Worker, forked_worker, started_worker
from quire.errors import QuireError

LOG = logging.getLogger("quire.gate")

#: Key of a node's config that names the silo's own file; filled in here, after approval.
SILO_KEY = "silo"
#: The only kind of task that runs code here; what else a server can ask a SuperNode for is refused.
CLIENT_APP = "flwr-clientapp"
# Seconds from the end of SuperExec to that of this process.
_GRACE = 15.0


@dataclass(frozen=True)
class Gate:
    """What the operator has said.

    Attributes
    ----------
    silo : pathlib.Path
        The silo's own file.
    passed : tuple of str
        Names of environment variables that approved code sees.
    """

    silo: Path
    passed: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Gate:
        """Read what ``quire gate`` has left for its starters.

        Raises
        ------
        KeyError
            If this process was not started by it.
        """
        told = json.loads(variables[GATE_VARIABLE])
        return cls(Path(told["silo"]), tuple(told["pass"]))

    def admit(self, bundle: Bundle) -> str:
        """Return the hash by which a bundle is approved.

        Raises
        ------
        Refused
            If it is not.
        """
        file = approvals_file(self.silo)
        try:
            hint = f"if you have reviewed this code, quire app approve {bundle.content} --silo {self.silo}"
            approved = require_approved(bundle, file, f"is not in {file}: {hint}")
        except QuireError as error:  # of the bundle, or of the list: in doubt nothing runs
            raise Refused(Code.CODE_REFUSED, str(error)) from error
        hold_to_charter(self.silo, bundle)
        return approved


def answer(
    gate: Gate, kind: str, message: Message, context: Context, run: Run, fab: Fab, warm: Worker | None = None
) -> Message:
    """Return the reply to a message: the approved code's, or a refusal.

    Parameters
    ----------
    gate : Gate
    kind : str
        The task's kind, as Flower names its command.
    message, context, run, fab
        As pulled from the SuperNode. ``context.state`` is changed as the approved code leaves it, and nothing else
        of ``context``: where the silo's data are does not go back to the SuperNode.
    warm : Worker or None
        A process for approved code that is there already.
    """
    try:
        return _checked(gate, kind, message, context, run, fab, warm)
    except Refused as refusal:
        LOG.error("Answered with %s: %s", refusal.code.name, refusal)
        code = refusal.code
    except Exception:
        LOG.exception("Answered with %s", Code.INTERNAL.name)
        code = Code.INTERNAL
    return refusal_of(message, code)


def _checked(
    gate: Gate, kind: str, message: Message, context: Context, run: Run, fab: Fab, warm: Worker | None
) -> Message:
    if kind != CLIENT_APP:
        raise Refused(Code.CODE_REFUSED, f"the server asked for {kind}; a silo runs {CLIENT_APP} only")
    bundle = Bundle(fab.content)
    with (
        tempfile.TemporaryDirectory(prefix="message-") as name,
        started_worker(gate.passed, Path(name), warm) as working,
    ):
        approved = gate.admit(bundle)
        app = Path(name) / "app"
        bundle.write(app)
        # What the server calls it is held to one line: the operator, and metrics, read this log.
        LOG.info("Admitted by %s: %.80s %.40s", approved, repr(run.fab_id), repr(run.fab_version))
        header = {
            "app": str(app),
            "fab_id": run.fab_id,
            "fab_version": run.fab_version,
            "hash": bundle.fab,
            "home": name,
            "environment": {**scrubbed(os.environ, Path(name), gate.passed), MARK_VARIABLE: approved},
            "task": [TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id],
        }
        told = context_from_proto(context_to_proto(context))
        told.node_config[SILO_KEY] = str(gate.silo)
        after, reply = working.ask(header, told, message)
    context.state = after.state
    if not reply.has_error():
        return Message(reply.content, reply_to=message)
    try:
        return refusal_of(message, Code(reply.error.code))
    except ValueError:  # a code that is none of ours says nothing, whatever its words
        return refusal_of(message, Code.INTERNAL)


def refusal_of(message: Message, code: Code) -> Message:
    """Return the reply that carries a fixed code and its fixed words, and no others."""
    return Message(Error(code=int(code), reason=contract.reason(code)), reply_to=message)


def main(kind: str, forked: tuple[int, int, int] | None = None) -> int:
    """Handle the one message that SuperExec has started this process for, and return the exit status.

    Parameters
    ----------
    kind : str
        The name of the command of Flower's in whose place this is.
    forked : tuple of int or None
        Of a process for approved code that is there already: its number, and the pipes to and from it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s gate %(levelname)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)
    gate = Gate.from_environment(os.environ)
    warm = None if forked is None else forked_worker(*forked)
    parser = argparse.ArgumentParser(description=f"Quire's gate, in the place of {kind}.", allow_abbrev=False)
    parser.add_argument("--runtime-api-address", required=True)
    add_args_flwr_app_common(parser)
    args = parser.parse_args()
    if args.parent_pid is not None:
        end_with(args.parent_pid)
    retries = make_simple_http_retry_invoker()
    client = RuntimeHttpClient.from_server_address(
        server_address=args.runtime_api_address,
        insecure=args.insecure,
        root_certificates=validate_and_resolve_root_certificates(args.root_certificates, args.insecure),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name=CLIENT_APP),
            RuntimeTokenHttpInterceptor(try_obtain_flwr_app_token(args)),
        ],
        retry_invoker=retries,
    )
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    context, status = None, "failed"
    try:
        message, context, run, fab = pull_task_input(client)
        reply = answer(gate, kind, message, context, run, fab, warm)
        _note(message, reply)
        push_message(client, reply, context)
        status = "completed"
    except KeyboardInterrupt:
        retries.max_tries = 1
        LOG.warning("Stopped")
    finally:
        push_task_output(client, context, status, "")
        if heartbeat.is_running:
            heartbeat.stop()
        client.close()
    return 0 if status == "completed" else 1


def _note(message: Message, reply: Message) -> None:
    """Log how a message was answered, in words that the server has no say in: metrics are read from them."""
    stage = message.metadata.message_type
    told = Code(reply.error.code).name if reply.has_error() else "CONTENT"
    LOG.info("Answered %s with %s", stage if stage in contract.STAGES else "other", told)


def end_with(executor: int) -> None:
    """Interrupt this process once SuperExec is gone, however that ended, and make it end if it does not.

    Flower's own monitor raises the signal in its own thread, where it does not interrupt a main thread that waits for
    approved code; and a process that has ended counts as there until its parent has asked how.

    Parameters
    ----------
    executor : int
        SuperExec's process.
    """
    if sys.platform != "linux":
        start_parent_process_monitor(executor)
        return
    try:
        handle = os.pidfd_open(executor)
    except ProcessLookupError:
        os._exit(1)
    threading.Thread(target=_end_after, args=(handle,), daemon=True).start()


def _end_after(handle: int) -> None:
    select.select([handle], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)  # the process of approved code is killed with this one


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
