"""Which silos of a cohort can be trained together, and that done: before their apps are called one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from quire.clients import contract
from quire.clients.ahead import Asked, DoneAhead, train_ahead
from quire.clients.arrays import Arrays, decode
from quire.clients.data.own import load
from quire.clients.data.preprocess import prepare, preprocessing_of
from quire.clients.data.silo import Rows
from quire.clients.entropy import Seeded
from quire.clients.member import Member, member_of
from quire.clients.slopes import is_dense
from quire.clients.stacked import is_gain
from quire.clients.tasks import Task, task_of
from quire.clients.tasks.moments import MEAN, SCALE, Statistics
from quire.clients.training import Workbench, workbench
from quire.conf.compose import compose
from quire.conf.schema import (
    FedProxStrategy,
    NoPrivacy,
    PlainAggregation,
    ScaffoldStrategy,
    Settings,
    SiloPrivacy,
)

LOG = logging.getLogger("quire.simulation")


def can_be_done_ahead(settings: Settings) -> bool:
    """Tell whether silos of such a run ask for training that can be done together."""
    return isinstance(settings.aggregation, PlainAggregation) and isinstance(settings.privacy, NoPrivacy | SiloPrivacy)


def look_ahead(messages: Sequence[Message], contexts: Mapping[int, Context]) -> dict[str, DoneAhead]:
    """Train the silos to which messages are about to be delivered, as far as that is foreseeable and a gain.

    Whatever does not fit is left to the silos themselves: a message that cannot be read, rows that cannot be loaded, a
    silo whose operator's policy has a say. Nothing is refused or reported here.

    Parameters
    ----------
    messages : sequence of flwr.app.Message
        Of one cohort; they carry one model.
    contexts : mapping of int to flwr.app.Context

    Returns
    -------
    dict of str to DoneAhead
        By the messages' ids.
    """
    try:
        return _look_ahead([message for message in messages if message.metadata.dst_node_id in contexts], contexts)
    except Exception:  # the silos say themselves, in the words of the contract, what is wrong
        LOG.debug("a cohort could not be trained together", exc_info=True)
        return {}


def _look_ahead(messages: Sequence[Message], contexts: Mapping[int, Context]) -> dict[str, DoneAhead]:
    if len(messages) < 2:
        return {}
    first = messages[0]
    overrides = contexts[first.metadata.dst_node_id].run_config.get("overrides", "")
    settings = compose(str(overrides))
    if not can_be_done_ahead(settings):
        return {}
    model, asked, task = _model(first), dict[str, Asked](), None
    config = first.content[contract.CONFIG]
    if not isinstance(config, ConfigRecord):
        return {}
    for message in messages:
        context = contexts[message.metadata.dst_node_id]
        member = member_of(settings, context.node_config, simulated=True)
        if context.run_config.get("overrides", "") != overrides or _has_a_say(member):
            continue
        if message is not first and not _alike(message, first):
            continue
        own = _task(settings, member)
        task = task or own
        if own != task or not is_dense(own):
            continue
        silo = _asked(settings, member, model, message, context, config)
        if silo is not None:
            asked[message.metadata.message_id] = silo
    if task is None or len(asked) < 2:
        return {}
    Workbench.load(workbench(task), model)  # refuses arrays that are no model of the task
    if not is_gain(task, settings.training, max(len(silo.rows) for silo in asked.values())):
        return {}
    mu = settings.strategy.mu if isinstance(settings.strategy, FedProxStrategy) else 0.0
    done = train_ahead(task, model, settings.training, mu, list(asked.values()))
    return dict(zip(asked, done, strict=True))


def _asked(
    settings: Settings, member: Member, model: Arrays, message: Message, context: Context, config: ConfigRecord
) -> Asked | None:
    statistics = None
    if MEAN in config:
        statistics = Statistics(tuple(config[MEAN]), tuple(config[SCALE]))  # type: ignore[arg-type]
    rows: Rows = prepare(load(settings, member.where, member.name), preprocessing_of(settings), statistics).train
    if not len(rows):
        return None
    rng = Seeded(settings.seed).generator("batches", config[contract.ROUND], member.name)  # type: ignore[arg-type]
    if not isinstance(settings.strategy, ScaffoldStrategy):
        return Asked(rows, rng)
    told = _decoded(message.content[contract.TOLD])
    memory = _decoded(context.state.get(contract.MEMORY, ArrayRecord()))
    correction = {name: told[name] - memory.get(name, np.zeros_like(array)) for name, array in model.items()}
    return Asked(rows, rng, correction)


def _has_a_say(member: Member) -> bool:
    """Tell whether an operator decides if this silo's rows may be read: then nobody reads them before it has."""
    operator = member.operator
    return operator is not None and (
        operator.policy is not None
        or operator.charter is not None
        or getattr(member.where, "consent", None) is not None
    )


def _task(settings: Settings, member: Member) -> Task:
    where = member.where
    return task_of(settings) if isinstance(where, int) else task_of(settings, where.schema, where.plugins)


def _alike(one: Message, other: Message) -> bool:
    """Tell whether two messages carry the same model and the same words."""
    mine, theirs = one.content, other.content
    if list(mine) != list(theirs) or dict(mine[contract.CONFIG]) != dict(theirs[contract.CONFIG]):
        return False
    return all(
        isinstance(theirs[name], ArrayRecord)
        and list(record) == list(theirs[name])
        and all(array.data == theirs[name][key].data for key, array in record.items())  # type: ignore[union-attr]
        for name, record in mine.items()
        if isinstance(record, ArrayRecord)
    )


def _model(message: Message) -> Arrays:
    return _decoded(message.content[contract.ARRAYS])


def _decoded(record: object) -> Arrays:
    if not isinstance(record, ArrayRecord):
        raise TypeError("no arrays")
    return decode(record)
