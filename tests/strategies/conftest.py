"""Messages and replies as a server sees them, without any runtime."""

import itertools

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.error import Error

from quire.clients import contract
from quire.clients.arrays import encode
from quire.simulation.grid import server_identity

CODE = "c" * 64


@pytest.fixture(autouse=True)
def _as_server():
    with server_identity(run_id=7):
        yield


@pytest.fixture
def model():
    return {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}


class Silos:
    """Writes requests and replies of named silos at nodes 10, 11, ..."""

    code = CODE

    def __init__(self, *names):
        self.by_node = {10 + place: name for place, name in enumerate(names)}
        self._ids = itertools.count()

    def sent(self, stage="train"):
        messages = [Message(RecordDict(), node, stage) for node in self.by_node]
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{next(self._ids)}"
        return messages

    def reply(self, request, update=None, weight=5, identity=(), metrics=(), **records):
        name = self.by_node[request.metadata.dst_node_id]
        told = {contract.SILO: name, contract.CODE_HASH: CODE, contract.CONTRACT: contract.VERSION, **dict(identity)}
        content = RecordDict(
            {"identity": ConfigRecord({key: value for key, value in told.items() if value is not None})}
        )
        if update is not None:
            content["update"] = encode(update)
        content["metrics"] = MetricRecord({"num-examples": weight, "train-loss": 0.5, **dict(metrics)})
        content.update(records)
        return Message(content, reply_to=request)

    def error(self, request, code, reason=""):
        return Message(Error(code, reason), reply_to=request)


@pytest.fixture
def silos():
    return Silos("a", "b", "c")
