"""Real silos in this process, each with its own file, keys and store: what is patched here holds for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from secure_silos import FIRST, Deployment, serve, write_silos

from quire.clients import client_app, contract
from quire.clients.client_app import SILO_KEY, app
from quire.clients.identity import load_identity
from quire.clients.store import Store
from quire.simulation.grid import _NODE_GONE, _isolated, _runtime_error, _stamped, server_identity

SILOS = 3
RUN = 7
RECORD = "modes: [record], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, epsilon: 40, delta: 1.0e-4"


class InProcess(Deployment):
    """The same silos, answered in this process: what is patched here holds for them."""

    swap: Callable[[Message, str], None] = staticmethod(lambda message, silo: None)

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        self.swap(message, self._names[node])
        kept = self._contexts[node]
        context = Context(kept.run_id, node, kept.node_config, RecordDict(), kept.run_config)
        return _stamped(_isolated(app(message, context)))


class Place:
    """Silos in a folder, and a run with them."""

    def __init__(self, folder: Path, overrides: str, policy: str, silos: int = SILOS) -> None:
        self.folder, self.overrides = folder, overrides
        self.files = write_silos(folder / "silos", silos, policy)
        self.grid = InProcess(self.files, RUN, overrides, folder / "left")

    def serve(self) -> list[Any]:
        return serve(self.grid, RUN, self.folder / "run", self.folder / "silos" / "roster.json", self.overrides)

    def store(self, silo: str) -> Store:
        folder = self.files[silo].parent
        return Store.open(folder / "store", load_identity(folder / "silo.key"))

    def charges(self, silo: str) -> int:
        (path,) = (self.files[silo].parent / "store" / "ledger").iterdir()
        return path.read_text().count('"kind":"charge"')

    def ask(self, stage: str, overrides: str | None = None, number: int = 1) -> Message:
        """Ask the first silo something that no protocol has: what counts is who refuses, and when."""
        model = client_app.encode({"w": np.zeros(1, np.float32)})
        content = RecordDict({contract.ARRAYS: model, contract.CONFIG: ConfigRecord({contract.ROUND: number})})
        content[contract.PROTOCOL] = ConfigRecord({contract.MESSAGE: b"?"})
        config = {"overrides": overrides or self.overrides}
        context = Context(RUN, FIRST, {SILO_KEY: str(self.files["hospital-1"])}, RecordDict(), config)
        with server_identity(RUN):
            message = Message(content, FIRST, stage)
            message.metadata.__dict__["_message_id"] = "m"
            return app(message, context)


def lose(place: Place, stage: str, *silos: str) -> None:
    """Let the first messages of a stage be lost on their way to silos."""
    deliver, gone = place.grid._deliver, set(silos)

    def losing(message: Message) -> Message:
        silo = place.grid._names[message.metadata.dst_node_id]
        if message.metadata.message_type == stage and silo in gone:
            gone.discard(silo)
            return _runtime_error(message, _NODE_GONE)
        return deliver(message)

    place.grid._deliver = losing  # type: ignore[method-assign]
