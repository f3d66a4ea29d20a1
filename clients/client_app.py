"""The silo's side as a Flower ``ClientApp``: the same app in every runtime.

A handler composes the settings from the string that the server sent, loads the silo's own rows, works, and
answers in the terms of :mod:`quire.clients.contract`. It never raises: a failure is logged here, in words, and
leaves as one of the fixed codes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp

from quire.clients import contract
from quire.clients.arrays import Arrays, MalformedArray, decode, encode
from quire.clients.code import code_hash
from quire.clients.contract import Code
from quire.conf.compose import compose
from quire.conf.schema import Settings
from quire.errors import DataError, SettingsError

LOG = logging.getLogger("quire.clients")
# Taken when this code is loaded, not later when the files may have changed under it.
CODE_HASH = code_hash()

Handler = Callable[[Message, Context], Message]

app = ClientApp()


class Refusal(Exception):
    """Ends a handler with one of the fixed codes."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def _answering(failure: Code) -> Callable[[Handler], Handler]:
    """Turn every exception of a handler into a reply with a fixed code; the detail stays in the silo's log."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def answer(message: Message, context: Context) -> Message:
            try:
                return handler(message, context)
            except Refusal as refusal:
                code, why = refusal.code, refusal.__cause__
            except DataError as error:
                code, why = Code.DATA_UNAVAILABLE, error
            except Exception as error:
                code, why = failure, error
            LOG.error("%s answered with %s", message.metadata.message_type, code.name, exc_info=why)
            return Message(Error(code=int(code), reason=contract.reason(code)), reply_to=message)

        return answer

    return decorate


@dataclass(frozen=True)
class _Silo:
    """A simulated silo: its settings, its name, its place in the partition."""

    settings: Settings
    partition: int

    @property
    def name(self) -> str:
        return contract.silo_name(self.settings.task.silo_label, self.partition)

    def identity(self) -> ConfigRecord:
        return ConfigRecord(
            {contract.SILO: self.name, contract.CODE_HASH: CODE_HASH, contract.CONTRACT: contract.VERSION}
        )


def _silo(context: Context) -> _Silo:
    try:
        settings = compose(str(context.run_config.get("overrides", "")))
    except SettingsError as error:
        raise Refusal(Code.SETTINGS_REFUSED) from error
    partition, partitions = context.node_config.get("partition-id"), context.node_config.get("num-partitions")
    if not isinstance(partition, int) or partitions != settings.partition.silos or not 0 <= partition < partitions:
        raise Refusal(Code.DATA_UNAVAILABLE) from DataError(
            f"this node is partition {partition} of {partitions}, the settings have {settings.partition.silos} silos"
        )
    return _Silo(settings, partition)


def _request(message: Message) -> tuple[Arrays, int]:
    """Read the global model and the round from the server's message."""
    try:
        arrays = decode(message.content.array_records[contract.ARRAYS])
        round_number = message.content.config_records[contract.CONFIG][contract.ROUND]
    except (KeyError, MalformedArray) as error:
        raise Refusal(Code.BAD_REQUEST) from error
    if not isinstance(round_number, int):
        raise Refusal(Code.BAD_REQUEST)
    return arrays, round_number


def _decoded(record: ArrayRecord | None) -> Arrays:
    try:
        return decode(record) if record is not None else {}
    except MalformedArray as error:
        raise Refusal(Code.BAD_REQUEST) from error


def _reply(message: Message, silo: _Silo, records: Mapping[str, ArrayRecord | MetricRecord]) -> Message:
    content = RecordDict({contract.IDENTITY: silo.identity()})
    content.update(records)
    return Message(content, reply_to=message)


@app.query()
@_answering(Code.INTERNAL)
def query(message: Message, context: Context) -> Message:
    """Say who this silo is and which code it runs. Touches no data and imports no torch."""
    return _reply(message, _silo(context), {})


@app.train()
@_answering(Code.TRAINING_FAILED)
def train(message: Message, context: Context) -> Message:
    """Train the global model on the silo's own rows and reply with the update."""
    from quire.clients.work import train_update

    silo = _silo(context)
    model, round_number = _request(message)
    told = _decoded(message.content.array_records.get(contract.TOLD))
    memory = _decoded(context.state.array_records.get(contract.MEMORY))
    trained = train_update(silo.settings, silo.partition, silo.name, model, told, memory, round_number)
    if not np.isfinite(trained.loss) or not all(np.isfinite(part).all() for part in trained.update.values()):
        raise Refusal(Code.NOT_FINITE)
    metrics = MetricRecord({contract.NUM_EXAMPLES: trained.rows, contract.TRAIN_LOSS: trained.loss})
    reply = _reply(message, silo, {contract.UPDATE: encode(trained.update), contract.METRICS: metrics})
    if trained.memory:
        context.state[contract.MEMORY] = encode(trained.memory)
    return reply


@app.evaluate()
@_answering(Code.EVALUATION_FAILED)
def evaluate(message: Message, context: Context) -> Message:
    """Score the global model on the silo's own test rows."""
    from quire.clients.work import score_model

    silo = _silo(context)
    arrays, _ = _request(message)
    scores, rows = score_model(silo.settings, silo.partition, arrays)
    metrics = MetricRecord({contract.NUM_EXAMPLES: rows, **scores})
    return _reply(message, silo, {contract.METRICS: metrics})
