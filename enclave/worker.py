"""A silo of a federation in one process: Flower's connection to the SuperLink, and the app, with nothing started.

Flower's own SuperNode starts a SuperExec, which starts a process for every message; inside, each would be a new
enclave. Here Flower's functions pull a message and push the reply, and in between, in the same thread, the app that is
installed here answers. Of the bundle that the server ships nothing is written, unpacked to disk or imported: it is held
against the code that runs here, which is the code that was measured, and a run with other code is refused.
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from quire.clients.contract import Code
from quire.enclave.errors import EnclaveError

LOG = logging.getLogger("quire.enclave")

#: Seconds between two looks for a message: a tenth of the time since the last one, within these.
SHORTEST, LONGEST, PART = 0.1, 3.0, 0.1
#: Seconds that are waited for the SuperLink once the worker is to end.
PATIENCE = 5.0
_ANSWERING: list[int] = []


@dataclass(frozen=True)
class Connection:
    """Where the SuperLink is, and how it is spoken to.

    Attributes
    ----------
    superlink : str
        ``HOST:PORT`` of its Fleet API.
    root : pathlib.Path or None
        Certificates (PEM) that its own has to be signed by; None without TLS.
    key : pathlib.Path or None
        The node's private key (OpenSSH, NIST curve), by which the SuperLink knows it; None where none is asked for.
    """

    superlink: str
    root: Path | None = None
    key: Path | None = None


def answered(fab: bytes, message: Any, context: Any, silo: Path) -> Any:
    """Return the reply to a message: the app's that is installed here, or a refusal with a fixed code.

    Parameters
    ----------
    fab : bytes
        The bundle that the server shipped.
    message : flwr.app.Message
    context : flwr.app.Context
        Its state is changed as the app leaves it.
    silo : pathlib.Path
        The silo's own file.
    """
    from flwr.app import Context

    from quire.clients.client_app import SILO_KEY, app
    from quire.clients.gate.starter import refusal_of
    from quire.clients.gate.working import Refused

    try:
        hold_to_own_code(fab, silo)
        told = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config={**context.node_config, SILO_KEY: str(silo)},
            state=context.state,
            run_config=context.run_config,
        )
        reply = app(message, told)
        context.state = told.state
        return reply
    except Refused as refusal:
        LOG.error("Answered with %s: %s", refusal.code.name, refusal)
        return refusal_of(message, refusal.code)
    except Exception:
        LOG.exception("Answered with %s", Code.INTERNAL.name)
        return refusal_of(message, Code.INTERNAL)


def hold_to_own_code(fab: bytes, silo: Path) -> None:
    """Refuse a run whose code is another than what is installed here, or none that the silo's charter lists.

    Raises
    ------
    quire.clients.gate.working.Refused
    """
    from quire.clients.client_app import CODE_HASH
    from quire.clients.code import hash_of_sources
    from quire.clients.gate.bundle import Bundle
    from quire.clients.gate.chartered import hold_to_charter
    from quire.clients.gate.mark import MARK_VARIABLE
    from quire.clients.gate.working import Refused
    from quire.errors import QuireError

    bundle = Bundle(fab)
    try:
        shipped = hash_of_sources(bundle.files)
    except QuireError as error:
        raise Refused(Code.CODE_REFUSED, str(error)) from error
    if shipped != CODE_HASH:
        raise Refused(
            Code.CODE_REFUSED,
            f"the server's code is {(shipped or 'none of ours')[:16]}, and what runs here is {CODE_HASH[:16]}: an "
            "enclave runs the code that was measured and no other",
        )
    hold_to_charter(silo, bundle)
    os.environ[MARK_VARIABLE] = bundle.content


def work(
    connection: Connection,
    silo: Path,
    more: Callable[[], bool] = lambda: True,
    answer: Callable[[bytes, Any, Any, Path], Any] = answered,
) -> None:
    """Answer messages until told to end.

    Parameters
    ----------
    connection : Connection
    silo : pathlib.Path
        The silo's own file.
    more : callable
        Asked between messages whether to go on.
    answer : callable
        As :func:`answered`.

    Raises
    ------
    EnclaveError
        If a file that the connection names cannot be used.
    """
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.fleet_http_connection import http_request_response
    from flwr.supernode.nodestate import NodeStateFactory
    from flwr.supernode.start_client_internal import _pull_and_store_message, _push_messages

    root = None if connection.root is None else root_of(connection.root)
    keys = None if connection.key is None else _node_keys(connection.key)
    if keys is not None and root is None:
        raise EnclaveError("A node's key needs TLS: name the certificates of the server's authority as well.")
    objects = ObjectStoreFactory()
    state, store = NodeStateFactory(objects).state(), objects.store()
    with http_request_response(connection.superlink, root is None, root, keys) as parts:
        node, receive, send, get_run, get_fab, pull_object, push_object, confirm = parts
        state.set_node_id(node)
        LOG.info("Node %d answers for %s, in one process", node, silo)
        last = time.monotonic()
        while more():
            run = _pull_and_store_message(
                state=state,
                object_store=store,
                node_config={},
                receive=receive,
                get_run=get_run,
                get_fab=get_fab,
                pull_object=pull_object,
                confirm_message_received=confirm,
                trusted_entities=None,
            )
            if run is None:
                time.sleep(min(LONGEST, max(SHORTEST, PART * (time.monotonic() - last))))
                continue
            _ANSWERING.append(run)
            try:
                _answer_all(state, store, run, silo, answer)
            finally:
                _ANSWERING.clear()
            _push_messages(state=state, object_store=store, send=send, push_object=push_object)
            last = time.monotonic()


def _answer_all(
    state: Any, store: Any, run_id: int, silo: Path, answer: Callable[[bytes, Any, Any, Path], Any]
) -> None:
    """Answer what was pulled: in the place of Flower's Runtime API, SuperExec and process of the app."""
    from flwr.common.constant import SubStatus
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
    from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute as unchanged
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supercore.task_identity import TaskIdentity

    for head in state.get_messages_legacy(run_ids=[run_id], is_reply=False):
        name = head.metadata.message_id
        state.record_message_processing_start(name)
        try:
            message: Any = inflate_object_from_contents(name, _contents(store, name))
        except Exception as error:  # what a server sends must not end a silo, whatever it is
            LOG.error("A message cannot be read, and is not answered: %s", type(error).__name__)
            state.record_message_processing_end(name)
            store.delete(name)
            continue
        message.metadata.__dict__["_message_id"] = name
        run = state.get_run(run_id)
        context = state.get_run_series_context(run.series_id)
        TaskIdentity.run_id, TaskIdentity.node_id = run_id, context.node_id
        reply = answer(state.get_fab(run.fab_hash).content, message, context, silo)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        state.set_run_series_context(run.series_id, context)
        state.record_message_processing_end(name)
        with unchanged():
            state.store_message(reply)
            store.preregister(run_id, get_object_tree(reply))
            for part, thing in get_all_nested_objects(reply).items():
                store.put(part, thing.deflate())
        store.delete(name)
    for task in state.get_tasks():
        if task.run_id == run_id and task.status.status != "finished":
            state.finish_task(task.task_id, sub_status=SubStatus.COMPLETED, details="")


def _contents(store: Any, name: str) -> dict[str, bytes]:
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    return {part.object_id: store.get(part.object_id) for part in iterate_object_tree(store.get_object_tree(name))}


def root_of(path: Path) -> bytes:
    """Read the certificates that the SuperLink's own has to be signed by.

    Raises
    ------
    EnclaveError
        If the file cannot be read, or holds none.
    """
    data = _read(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise EnclaveError(f"{path} holds no certificates in PEM.") from None
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnclaveError(f"{path} cannot be read: {error.strerror}.") from error


def _node_keys(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EnclaveError(f"{path} is no private key of a node: an EC key in OpenSSH's form, without a passphrase.")
    return key, key.public_key()


def end_on_signals() -> Callable[[], bool]:
    """Let SIGTERM and SIGINT end the work between two messages; return what says whether to go on."""
    asked: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if asked:  # asked twice: not when the message is done, but now
            raise KeyboardInterrupt
        asked.append(number)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)

    def stop_waiting(number: int, frame: FrameType | None) -> None:
        if not _ANSWERING:  # Flower tries for ever to reach a SuperLink that is away
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, stop_waiting)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return lambda: not asked
