"""A SuperNode's own state and Runtime API in this process; what a server would send is handed in."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from pathlib import Path
from types import TracebackType

import uvicorn
from flwr.app import Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _pull_and_store_message

from quire.simulation.flower_daemon import free_port

NODE = 7


class Node:
    """Flower's SuperNode, less its connection to a server.

    Attributes
    ----------
    address : str
        Of its Runtime API, on loopback, without TLS.
    """

    def __init__(self) -> None:
        self._factory = NodeStateFactory(ObjectStoreFactory())
        self.state, self._store = self._factory.state(), self._factory.objectstore_factory.store()
        self.state.set_node_id(NODE)
        self.address = f"127.0.0.1:{free_port()}"
        config = uvicorn.Config(
            create_app(self._factory), host="127.0.0.1", port=int(self.address.split(":")[1]), log_level="warning"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Node:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()

    def send(
        self,
        fab: bytes,
        content: RecordDict,
        *,
        fab_id: str = "us/app",
        task: str = "flwr-serverapp",
        series: int = 0,
        run_id: int | None = None,
    ) -> int:
        """Receive a message as from a server, which may say of its run what it likes; return the run's number."""
        number = run_id or next(self._numbers)
        run = Run.create_empty(number)
        run.fab_id, run.fab_version, run.fab_hash = fab_id, "1", hashlib.sha256(fab).hexdigest()
        run.primary_task_type, run.series_id = task, series or number
        metadata = Metadata(number, "", 1, NODE, "", "", time.time(), 600.0, "train")
        message = make_message(metadata, content)
        message.metadata.__dict__["_message_id"] = message.object_id
        objects = {name: thing.deflate() for name, thing in get_all_nested_objects(message).items()}
        assert number == _pull_and_store_message(
            state=self.state,
            object_store=self._store,
            node_config={},
            receive=lambda: (make_message(message.metadata, RecordDict()), get_object_tree(message)),
            get_run=lambda _: run,
            get_fab=lambda name, _: Fab(name, fab, {}),
            pull_object=lambda _, name: objects[name],
            confirm_message_received=lambda *_: None,
            trusted_entities=None,
        )
        return number

    def reply(self, run_id: int, limit: float = 60.0) -> Message:
        """Wait for the reply that would go to the server."""
        deadline = time.monotonic() + limit
        while not (found := self.state.get_messages_legacy(run_ids=[run_id], is_reply=True)):
            assert time.monotonic() < deadline, "there is no reply"
            time.sleep(0.05)
        name = found[0].metadata.message_id
        tree = self._store.get_object_tree(name)
        while not all(self._store.get(part.object_id) for part in iterate_object_tree(tree)):
            assert time.monotonic() < deadline, "the reply is not complete"
            time.sleep(0.05)
        contents = {part.object_id: self._store.get(part.object_id) for part in iterate_object_tree(tree)}
        reply = inflate_object_from_contents(name, contents)
        assert isinstance(reply, Message)
        while any(task.status.status != "finished" for task in self.state.get_tasks() if task.run_id == run_id):
            assert time.monotonic() < deadline, "the task does not end"
            time.sleep(0.05)
        return reply


def trace_of(folder: Path) -> list[str]:
    """Return the names of everything below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
