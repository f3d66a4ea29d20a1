"""Which silos of a cohort can be at work together, and that done: before their apps are called one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from quire.clients import contract
from quire.clients.ahead import Asked, DoneAhead, train_ahead
from quire.clients.arrays import Arrays, decode
from quire.clients.data.own import load
from quire.clients.data.preprocess import prepare, preprocessing_of
from quire.clients.data.silo import Rows, SiloData
from quire.clients.entropy import Seeded
from quire.clients.member import Member, member_of
from quire.clients.private.ahead import PrivateAhead, train_privately_ahead
from quire.clients.private.plan import plan_of
from quire.clients.private.stacked import PrivateSilo
from quire.clients.scored import ScoredAhead, is_scorable, score_together
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
    RecordPrivacy,
    ScaffoldStrategy,
    Settings,
    SiloPrivacy,
)
from quire.privacy.csprng import Csprng

LOG = logging.getLogger("quire.simulation")

Ahead = DoneAhead | PrivateAhead | ScoredAhead


@dataclass(frozen=True)
class _Silo:
    """A silo that a message is about to be delivered to, and that nobody but the settings has a say about."""

    settings: Settings
    member: Member
    message: Message
    context: Context

    @cached_property
    def task(self) -> Task:
        where = self.member.where
        return task_of(self.settings) if isinstance(where, int) else task_of(self.settings, where.schema, where.plugins)

    @property
    def id(self) -> str:
        return self.message.metadata.message_id

    @property
    def round(self) -> int:
        return self.message.content[contract.CONFIG][contract.ROUND]  # type: ignore[return-value]

    @cached_property
    def data(self) -> SiloData:
        config, statistics = self.message.content[contract.CONFIG], None
        if MEAN in config:
            statistics = Statistics(tuple(config[MEAN]), tuple(config[SCALE]))  # type: ignore[arg-type]
        loaded = load(self.settings, self.member.where, self.member.name)
        return prepare(loaded, preprocessing_of(self.settings), statistics)


def can_be_done_ahead(settings: Settings) -> bool:
    """Tell whether silos of such a run ask for training that can be done together."""
    privacy = settings.privacy
    if isinstance(privacy, RecordPrivacy) and privacy.gradients not in ("auto", "ghost"):
        return False  # rows that are to be passed alone, or by Opacus
    return isinstance(settings.aggregation, PlainAggregation) and isinstance(
        privacy, NoPrivacy | SiloPrivacy | RecordPrivacy
    )


def look_ahead(messages: Sequence[Message], contexts: Mapping[int, Context]) -> dict[str, Ahead]:
    """Do the work of the silos to which messages are about to be delivered, as far as that is foreseeable and a gain.

    Whatever does not fit is left to the silos themselves: a message that cannot be read, rows that cannot be loaded, a
    silo whose operator's policy has a say. Nothing is refused or reported here.

    Parameters
    ----------
    messages : sequence of flwr.app.Message
        Of one cohort; they carry one model.
    contexts : mapping of int to flwr.app.Context

    Returns
    -------
    dict of str to DoneAhead, PrivateAhead or ScoredAhead
        By the messages' ids.
    """
    try:
        silos = list(_silos([message for message in messages if message.metadata.dst_node_id in contexts], contexts))
        if len(silos) < 2:
            return {}
        training = messages[0].metadata.message_type == contract.TRAIN
        return dict(_trained(silos) if training else _scored(silos))
    except Exception:  # the silos say themselves, in the words of the contract, what is wrong
        LOG.debug("a cohort could not be at work together", exc_info=True)
        return {}


def _silos(messages: Sequence[Message], contexts: Mapping[int, Context]) -> Iterator[_Silo]:
    """Yield those silos that get the same model and the same words, and whose rows anybody here may look at."""
    if len(messages) < 2:
        return
    first = messages[0]
    overrides = contexts[first.metadata.dst_node_id].run_config.get("overrides", "")
    settings = compose(str(overrides))
    if not isinstance(first.content[contract.CONFIG], ConfigRecord):
        return
    for message in messages:
        context = contexts[message.metadata.dst_node_id]
        if context.run_config.get("overrides", "") != overrides or not (message is first or _alike(message, first)):
            continue
        member = member_of(settings, context.node_config, simulated=True)
        if not _has_a_say(member):
            yield _Silo(settings, member, message, context)


def _trained(silos: Sequence[_Silo]) -> Mapping[str, DoneAhead | PrivateAhead]:
    settings, task = silos[0].settings, silos[0].task
    if not can_be_done_ahead(settings) or not is_dense(task):
        return {}
    model = _model(silos[0].message)
    Workbench.load(workbench(task), model)  # refuses arrays that are no model of the task
    silos = [silo for silo in silos if silo.task == task and len(silo.data.train)]
    private = isinstance(settings.privacy, RecordPrivacy)
    if len(silos) < 2 or not is_gain(task, settings.training, max(len(silo.data.train) for silo in silos), private):
        return {}
    mu = settings.strategy.mu if isinstance(settings.strategy, FedProxStrategy) else 0.0
    ids = [silo.id for silo in silos]
    if isinstance(settings.privacy, RecordPrivacy):
        plans = [_private(silo) for silo in silos]
        ahead = train_privately_ahead(task, settings.privacy.gradients, model, settings.training, mu, plans)
        return dict(zip(ids, ahead, strict=True))
    done = train_ahead(task, model, settings.training, mu, [_asked(silo, model) for silo in silos])
    return dict(zip(ids, done, strict=True))


def _scored(silos: Sequence[_Silo]) -> dict[str, ScoredAhead]:
    if silos[0].settings.selftest:  # of the noise: it reads no rows
        return {}
    task, model, rows = silos[0].task, _model(silos[0].message), dict[str, Rows]()
    for silo in silos:
        if silo.task == task and is_scorable(task, len(own := silo.data.scored)):
            rows[silo.id] = own
    if len(rows) < 2:
        return {}
    return dict(zip(rows, score_together(task, model, list(rows.values())), strict=True))


def _asked(silo: _Silo, model: Arrays) -> Asked:
    settings, rows = silo.settings, silo.data.train
    rng = Seeded(settings.seed).generator("batches", silo.round, silo.member.name)
    if not isinstance(settings.strategy, ScaffoldStrategy):
        return Asked(rows, rng)
    told = _decoded(silo.message.content[contract.TOLD])
    memory = _decoded(silo.context.state.get(contract.MEMORY, ArrayRecord()))
    correction = {name: told[name] - memory.get(name, np.zeros_like(array)) for name, array in model.items()}
    return Asked(rows, rng, correction)


def _private(silo: _Silo) -> PrivateSilo:
    """Return what the silo's app will ask for. Should it plan otherwise, it will not take what was done ahead."""
    settings, operator = silo.settings, silo.member.operator
    declared = operator.population if operator is not None else None
    records = declared.records if declared is not None else _loaded_rows(silo)
    source = Csprng(Seeded(settings.seed).key("private", silo.round, silo.member.name))
    return PrivateSilo(silo.data.train, plan_of(settings, records), source)


def _loaded_rows(silo: _Silo) -> int:
    return len(load(silo.settings, silo.member.where, silo.member.name).data.train)


def _has_a_say(member: Member) -> bool:
    """Tell whether an operator decides if this silo's rows may be read: then nobody reads them before it has."""
    operator = member.operator
    return operator is not None and (
        operator.policy is not None
        or operator.charter is not None
        or getattr(member.where, "consent", None) is not None
    )


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
