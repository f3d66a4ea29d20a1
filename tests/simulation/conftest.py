"""Small federations inside this process."""

import os
import sys
import uuid

import psutil
import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from quire.simulation import flower_daemon, grid
from quire.simulation.grid import InlineGrid, server_identity
from quire.simulation.processes import alive

FAKE_SUPERLINK = """
import http.server, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


@pytest.fixture
def as_server():
    """Create messages as Flower's server does."""
    with server_identity(run_id=7):
        yield


@pytest.fixture
def grid_of():
    """Make an InlineGrid of n nodes (ids 10, 11, ...) around handlers for train, evaluate and query."""

    def make(n=3, faults=(), names=None, **handlers):
        app = ClientApp()
        for stage, handler in handlers.items():
            getattr(app, stage)()(handler)
        contexts = {10 + place: Context(7, 10 + place, {"partition-id": place}, RecordDict(), {}) for place in range(n)}
        return InlineGrid(app, contexts, names or {10 + place: f"silo-{place + 1}" for place in range(n)}, faults)

    return make


@pytest.fixture
def left_behind(monkeypatch):
    """Return the living processes that a test started, directly or not, and that are not its children's zombies."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("TEST_OF_FLOWER", mark)

    def find():
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TEST_OF_FLOWER") == mark and alive(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    return find


@pytest.fixture
def fake_programs(tmp_path, monkeypatch):
    """Put programs, written in Python, before Flower's own; return the folder in which they lie."""

    def make(**programs):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, code in programs.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!{sys.executable}\n{code}")
            path.chmod(0o755)
        search = f"{folder}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setattr(flower_daemon, "scripts_path", lambda variables: search)
        return folder

    return make


@pytest.fixture
def fake_superlink():
    """Return the code of a program that answers as a SuperLink that is well, and does nothing else."""
    return FAKE_SUPERLINK


@pytest.fixture
def replies(monkeypatch):
    """Every reply that reaches the server of an inline run, by stage."""
    seen = {}
    pull = InlineGrid.pull_messages

    def watched(self, message_ids):
        found = list(pull(self, message_ids))
        for reply in found:
            seen.setdefault(reply.metadata.message_type, []).append(reply)
        return found

    monkeypatch.setattr(InlineGrid, "pull_messages", watched)
    return seen


@pytest.fixture
def flaky(monkeypatch):
    """Let silos miss the first message of a stage, and be there for the next."""
    deliver, missed = InlineGrid._deliver, set()

    def arm(stage, *nodes):
        def missing(self, message):
            place = (message.metadata.message_type.split(".")[-1], message.metadata.dst_node_id)
            if place in {(stage, 1000 + node) for node in nodes} - missed:
                missed.add(place)
                return grid._runtime_error(message, grid._NODE_GONE)
            return deliver(self, message)

        monkeypatch.setattr(InlineGrid, "_deliver", missing)

    return arm
