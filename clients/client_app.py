"""The silo's side as a Flower ``ClientApp``: the same app in every runtime.

A handler composes the settings from the string that the server sent, loads the silo's own rows, works, and
answers in the terms of :mod:`quire.clients.contract`. It never raises: a failure is logged here, in words, and
leaves as one of the fixed codes.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp

from quire.clients import contract
from quire.clients.arrays import Arrays, MalformedArray, decode, encode
from quire.clients.code import code_hash
from quire.clients.contract import Code
from quire.clients.data.own import Where, load
from quire.clients.data.preprocess import FEDERATED, Loaded, preprocessing_of
from quire.clients.data.silo_file import SILOS_VARIABLE, SiloFile, read_silo, silo_files
from quire.clients.tasks.moments import MEAN, SCALE, Statistics
from quire.conf.compose import compose
from quire.conf.schema import FilesData, Settings
from quire.errors import DataError, SettingsError

LOG = logging.getLogger("quire.clients")
# Taken when this code is loaded, not later when the files may have changed under it.
CODE_HASH = code_hash()
#: Key of a node's config that names the silo's own file.
SILO_KEY = "silo"
_ROWS = "rows"

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
    """A silo: the run's settings, its name, and where its rows are."""

    settings: Settings
    name: str
    where: Where

    def identity(self) -> ConfigRecord:
        told = {contract.SILO: self.name, contract.CODE_HASH: CODE_HASH}
        if not isinstance(self.where, int):
            told[contract.SCHEMA] = self.where.schema.sha256
        return ConfigRecord({**told, contract.CONTRACT: contract.VERSION})

    def load(self, context: Context) -> Loaded:
        """Load the silo's rows, and see to it that they are those that this run began with."""
        loaded = load(self.settings, self.where, self.name)
        if loaded.digest:
            known = context.state.config_records.get(_ROWS)
            if known is None:
                context.state[_ROWS] = ConfigRecord({"digest": loaded.digest})
            elif known["digest"] != loaded.digest:
                raise DataError(f"The rows of {self.name} changed during the run: start another run.")
        return loaded


def _silo(context: Context) -> _Silo:
    try:
        settings = compose(str(context.run_config.get("overrides", "")))
    except SettingsError as error:
        raise Refusal(Code.SETTINGS_REFUSED) from error
    partition, partitions = context.node_config.get("partition-id"), context.node_config.get("num-partitions")
    own_file = context.node_config.get(SILO_KEY)
    if isinstance(settings.data, FilesData) and own_file is not None:
        return _of_file(settings, read_silo(Path(str(own_file))), partition)
    if not isinstance(partition, int) or partitions != settings.partition.silos or not 0 <= partition < partitions:
        raise Refusal(Code.DATA_UNAVAILABLE) from DataError(
            f"this node is partition {partition} of {partitions}, the settings have {settings.partition.silos} silos"
        )
    if isinstance(settings.data, FilesData):
        return _of_file(settings, read_silo(_file_of(partition, partitions)), partition)
    return _Silo(settings, contract.silo_name(settings.task.silo_label, partition), partition)


def _of_file(settings: Settings, own: SiloFile, partition: object) -> _Silo:
    if own.name is not None:
        return _Silo(settings, own.name, own)
    if not isinstance(partition, int):
        raise DataError(f"{own.path} has no 'name', and this node has no partition-id to make one from.")
    return _Silo(settings, contract.silo_name(settings.task.silo_label, partition), own)


def _file_of(partition: int, partitions: object) -> Path:
    """Return the file of a silo that Flower simulates, out of the folder that the launcher named."""
    folder = os.environ.get(SILOS_VARIABLE)
    if folder is None:
        raise DataError("This node's config names no silo file: start it with --node-config 'silo=\"FILE\"'.")
    files = silo_files(Path(folder))
    if len(files) != partitions:
        raise DataError(f"The folder {folder} holds {len(files)} silos, the settings have {partitions}.")
    return files[partition]


def _statistics(message: Message) -> Statistics | None:
    """Read the mean and scale of the features, which are there where preprocessing is federated."""
    config = message.content[contract.CONFIG]
    if MEAN not in config and SCALE not in config:
        return None
    mean, scale = _numbers(config.get(MEAN)), _numbers(config.get(SCALE))
    if len(mean) != len(scale) or min(scale, default=1.0) <= 0.0:
        raise Refusal(Code.BAD_REQUEST)
    return Statistics(mean, scale)


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(isinstance(value, float) and np.isfinite(value) for value in values):
        raise Refusal(Code.BAD_REQUEST)
    return tuple(values)


def _request(message: Message) -> tuple[Arrays, int]:
    """Read the global model and the round from the server's message."""
    try:
        arrays = _arrays(message.content, contract.ARRAYS)
        config = message.content[contract.CONFIG]
    except KeyError as error:
        raise Refusal(Code.BAD_REQUEST) from error
    round_number = config.get(contract.ROUND)
    if not isinstance(config, ConfigRecord) or not isinstance(round_number, int):
        raise Refusal(Code.BAD_REQUEST)
    return arrays, round_number


def _arrays(records: RecordDict, name: str) -> Arrays:
    # Not by Flower's `array_records`: it puts together a dictionary that writes back whenever it is read.
    record = records[name]
    if not isinstance(record, ArrayRecord):
        raise Refusal(Code.BAD_REQUEST)
    try:
        return decode(record)
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


@app.query("moments")
@_answering(Code.DATA_UNAVAILABLE)
def moments(message: Message, context: Context) -> Message:
    """Reply with count, sum and sum of squares of the features, if the settings ask for them and not else."""
    silo = _silo(context)
    if preprocessing_of(silo.settings) != FEDERATED:
        raise Refusal(Code.BAD_REQUEST)
    return _reply(message, silo, {contract.ARRAYS: encode(silo.load(context).moments())})


@app.train()
@_answering(Code.TRAINING_FAILED)
def train(message: Message, context: Context) -> Message:
    """Train the global model on the silo's own rows and reply with the update."""
    from quire.clients.work import train_update

    silo = _silo(context)
    model, round_number = _request(message)
    told = _arrays(message.content, contract.TOLD) if contract.TOLD in message.content else {}
    memory = _arrays(context.state, contract.MEMORY) if contract.MEMORY in context.state else {}
    silo.load(context)
    trained = train_update(
        silo.settings, silo.where, silo.name, model, told, memory, round_number, _statistics(message)
    )
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
    silo.load(context)
    scores, rows = score_model(silo.settings, silo.where, silo.name, arrays, _statistics(message))
    metrics = MetricRecord({contract.NUM_EXAMPLES: rows, **scores})
    return _reply(message, silo, {contract.METRICS: metrics})
