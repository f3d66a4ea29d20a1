"""A real silo in a folder, asked as Flower's own process asks it: the app is called, no grid and no daemon."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from quire.clients import contract
from quire.clients.arrays import encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.identity import load_identity, new_identity
from quire.clients.store import Store
from quire.simulation.grid import server_identity

RECORDS = 60
RUN = (
    "task=tabular partition.silos=4 strategy.min_silos=4 strategy.rounds=4 training.batch_size=12 training.steps=2 "
    "privacy=record privacy.epsilon=2 privacy.delta=1e-4"
)
POLICY = {
    **{"modes": "[record]", "aggregation": "[plain]", "code": "[]", "epsilon": "4.0", "delta": "1.0e-4"},
    **{"min_cohort": "4", "colluders": "1"},
}
SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
MODEL = {"0.weight": np.zeros((1, 1), np.float32), "0.bias": np.zeros(1, np.float32)}

_watching: list[str] | None = None


def _notice(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _watching is not None:
        _watching.append(str(args[0]))


sys.addaudithook(_notice)  # for good: Python has no way to take one back


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Note every file that this process opens, whoever asks for it."""
    global _watching
    _watching = []
    try:
        yield _watching
    finally:
        _watching = None


class RealSilo:
    """The folder of a silo called ``clinic-1``: its file, schema, rows, key, store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.state = folder, 5, RecordDict()
        if not (folder / "silo.key").exists():
            (folder / "schema.yaml").write_text(SCHEMA)
            new_identity(folder / "silo.key")
            self.rows(RECORDS)
            self.write()

    @property
    def csv(self) -> Path:
        return self.folder / "rows.csv"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def ledger_file(self) -> Path:
        return self.store / "ledger" / "clinic.jsonl"

    def rows(self, count: int, more: str = "") -> None:
        ages = np.random.default_rng(1).integers(10, 90, count)
        self.csv.write_text("age,sick\n" + "".join(f"{age},{int(age > 50)}\n" for age in ages) + more)

    def write(self, more: str = "", records: int = RECORDS, **policy: object) -> None:
        """Write ``silo.yaml``, with changes to the policy; None leaves a key out."""
        lines = "".join(f"  {key}: {value}\n" for key, value in {**POLICY, **policy}.items() if value is not None)
        (self.folder / "silo.yaml").write_text(
            "name: clinic-1\ndata: {connector: csv, path: rows.csv}\n"
            f"population: {{name: clinic, records: {records}}}\n{more}policy:\n{lines}"
        )

    def ask(
        self,
        stage: str = "train",
        overrides: str = "",
        round_number: int = 1,
        model: Mapping[str, np.ndarray] | None = None,
    ) -> Message:
        """Return the reply to a message; later overrides win over those of :data:`RUN`."""
        records = {}
        if not stage.startswith("query"):
            records = {
                "arrays": encode(MODEL if model is None else model),
                "config": ConfigRecord({"server-round": round_number}),
            }
        config = {"overrides": merged(overrides)}
        context = Context(self.run, 10, {SILO_KEY: str(self.folder / "silo.yaml")}, self.state, config)
        with server_identity(self.run):
            message = Message(RecordDict(records), 10, stage)
            message.metadata.__dict__["_message_id"] = "m"
            return app(message, context)

    def code(self, *args: Any, **more: Any) -> str:
        return code_of(self.ask(*args, **more))

    def refused(self, *args: Any, **more: Any) -> str:
        """Return the code of a refusal, having made sure that it came before the rows were opened."""
        with opened_files() as files:
            reply = self.ask(*args, **more)
        assert str(self.csv) not in files, "data was touched"
        return code_of(reply)

    def ledger(self) -> list[dict[str, Any]]:
        if not self.ledger_file.exists():
            return []
        return [json.loads(line) for line in self.ledger_file.read_text().splitlines()]

    def charges(self) -> list[dict[str, Any]]:
        return [entry for entry in self.ledger() if entry["kind"] == "charge"]

    def open(self, **options: Any) -> Store:
        return Store.open(self.store, load_identity(self.folder / "silo.key"), **options)


def merged(overrides: str) -> str:
    """Return the overrides of :data:`RUN` with changes."""
    items = {item.split("=")[0]: item for item in RUN.split()}
    changes = {item.split("=")[0]: item for item in overrides.split()}
    if changes.get("privacy", "privacy=record") != "privacy=record":
        items = {key: item for key, item in items.items() if not key.startswith("privacy")}
    return " ".join({**items, **changes}.values())


def code_of(reply: Message) -> str:
    """Return the name of the code of a refusal, whose words are the fixed ones; ANSWERED for any other reply."""
    if not reply.has_error():
        return "ANSWERED"
    code = contract.Code(reply.error.code)
    assert reply.error.reason == contract.reason(code)
    return code.name


def all_bytes(reply: Message) -> bytes:
    """Return every byte of a reply that would travel, and what its metadata and error say."""
    if not reply.has_error():
        told = b"".join(part.deflate() for part in get_all_nested_objects(reply).values())
    else:
        told = repr(vars(reply.error)).encode()
    return told + repr(vars(reply.metadata)).encode()
