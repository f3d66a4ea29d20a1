"""A run that some account of the server's machine submits, with code of its own."""

from __future__ import annotations

from pathlib import Path

from bundles import APP, packed
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from quire.clients.gate.bundle import Bundle
from quire.consortium.layout import OperatorFolder
from quire.consortium.superlink import read_running


def leaving(marker: Path) -> bytes:
    """Return a bundle that leaves a file behind as soon as it is imported."""
    return packed({**APP, "app/__init__.py": f"open({str(marker)!r}, 'w')\n".encode()})


def submit_foreign(operator: OperatorFolder, raw: bytes) -> int:
    """Submit a bundle as Flower's own command line does, and return the run's number."""
    with read_running(operator).connection.client() as control:
        return control.StartRun(StartRunRequest(fab=fab_to_proto(Fab(Bundle(raw).fab, raw, {})))).run_id
