"""Small federations inside this process."""

import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from quire.simulation.grid import InlineGrid, server_identity


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
