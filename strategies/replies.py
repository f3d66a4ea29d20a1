"""The answers to ``train`` and ``evaluate``, checked; see :mod:`quire.strategies.reading`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from quire.clients import contract
from quire.clients.arrays import Arrays, MalformedArray, byte_size, decode
from quire.clients.compression import NotPacked, expanded, is_packed
from quire.strategies.reading import (
    Exposed,
    Failure,
    Silos,
    Unusable,
    by_node,
    check_identity,
    content_of,
    of_kind,
    ordered,
    unreadable,
)
from quire.strategies.rounds import Update

Take = Callable[[Update], None]

# Beyond this a weight is a mistake or an attack: no silo has a thousand billion rows.
_MAX_WEIGHT = 1e12
_MAX_RECEIPT = 65_536  # bytes

# What is journalled, logged and shown to the operator under a silo's own name for it.
_METRIC_NAME, _MAX_METRICS = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,63}"), 64


@dataclass(frozen=True, eq=False)
class TrainReply:
    """A usable answer to ``train``; under privacy with the silo's receipt, and metrics from simulated silos only."""

    update: Update
    metrics: dict[str, float]
    received: int
    receipt: bytes = b""


@dataclass(frozen=True)
class EvaluateReply:
    """A usable answer to ``evaluate``."""

    silo: str
    weight: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Private:
    """How replies are read under differential privacy: nothing in them but the update and public figures.

    Attributes
    ----------
    records : mapping of str to int
        Each silo's declared number of records: its weight, where silos are weighted.
    simulated : bool
        Whether silos are simulated and may show metrics. Those of any other are dropped unread.
    objection : callable
        Says, in words, what is wrong with a silo's receipt; None if nothing.
    """

    records: Mapping[str, int]
    simulated: bool
    objection: Callable[[str, bytes], str | None] = lambda silo, receipt: None


def read_train_replies(
    sent: Sequence[Message],
    replies: Iterable[Message],
    silos: Silos,
    model: Arrays,
    code_hash: str | None,
    form: Arrays | None = None,
    objection: Callable[[Arrays], str | None] = lambda update: None,
    private: Private | None = None,
    take: Take | None = None,
) -> tuple[list[TrainReply], list[Failure]]:
    """Check the answers to ``train``.

    Parameters
    ----------
    sent : sequence of flwr.app.Message
        What was sent: who must answer.
    replies : iterable of flwr.app.Message
        Taken one by one, as they come.
    silos : dict of int to str
        Names by node id, in roster order: the order of the result.
    model : dict of str to numpy.ndarray
        The global model that was sent.
    code_hash : str or None
        The code that replies must come from; None takes any (a foreign app, replying with whole models).
    form : dict of str to numpy.ndarray, optional
        Arrays whose names, shapes and dtypes updates must have; by default those of the model.
    objection : callable
        Says, in words, what the strategy has against an update; None if nothing.
    private : Private, optional
        Set under differential privacy.
    take : callable, optional
        Given every usable update, in roster order and as soon as all before it are known; what is returned then holds
        no arrays. So replies that come in that order are let go of one by one.

    Returns
    -------
    good : list of TrainReply
        In roster order.
    failed : list of Failure
        In roster order. :class:`~quire.strategies.reading.Exposed` where a silo says that it runs the server's code,
        and sends what that code does not: it looks for values that are not finite, and then answers with a code.
    """
    reader = _Reader(silos, model, form or model, code_hash, objection, private)
    order, asked = ordered(sent, silos), dict[str, int]()
    found: dict[int, TrainReply | Failure] = {}
    settled = 0
    for reply in replies:
        asked = asked or {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
        node = asked.get(reply.metadata.reply_to_message_id)
        if node is None or node in found:
            continue
        found[node] = reader.read(node, reply)
        del reply  # before the next one comes: it holds arrays as large as the model
        while settled < len(order) and order[settled] in found:
            found[order[settled]] = _kept(found[order[settled]], take)
            settled += 1
    for node in order[settled:]:
        found[node] = _kept(found[node] if node in found else reader.read(node, None), take)
    good = [one for node in order if isinstance(one := found[node], TrainReply)]
    return good, [one for node in order if isinstance(one := found[node], Failure)]


def _kept(one: TrainReply | Failure, take: Take | None) -> TrainReply | Failure:
    if take is None or isinstance(one, Failure):
        return one
    take(one.update)
    return replace(one, update=Update(one.update.silo, {}, one.update.weight))


@dataclass(frozen=True, eq=False)
class _Reader:
    silos: Silos
    model: Arrays
    form: Arrays
    code_hash: str | None
    objection: Callable[[Arrays], str | None]
    private: Private | None

    def read(self, node: int, reply: Message | None) -> TrainReply | Failure:
        """Check one answer to ``train``."""
        silo, failure = self.silos[node], Failure
        strict = self.code_hash is not None
        try:
            content = content_of(reply)
            check_identity(content, silo, self.code_hash)
            failure = Exposed if strict and self.private is None else Failure
            arrays, received = _update(of_kind(content, ArrayRecord), self.model, self.form, strict)
            if (words := self.objection(arrays)) is not None:
                raise Unusable("impossible_update", words)
            if self.private is not None:
                return _private_reply(silo, arrays, received, content, self.private)
            weight, metrics = _metrics(of_kind(content, MetricRecord))
            return TrainReply(Update(silo, arrays, weight), metrics, received)
        except Unusable as why:
            return failure(silo, contract.TRAIN, why.code, why.words)
        except Exception:  # whatever a reply stumbles over, it is that silo's dropout and not the end of the run
            return unreadable(silo, contract.TRAIN)


def exposed(failed: Iterable[Failure]) -> int:
    """Return how many silos have shown by what they sent that they are not honest; who sent nothing has not."""
    return sum(isinstance(failure, Exposed) for failure in failed)


def read_evaluate_replies(
    sent: Iterable[Message], replies: Iterable[Message], silos: Silos, code_hash: str | None
) -> tuple[list[EvaluateReply], list[Failure]]:
    """Check the answers to ``evaluate``; see :func:`read_train_replies`."""
    good: list[EvaluateReply] = []
    failed: list[Failure] = []
    for node, reply in by_node(sent, replies, silos).items():
        try:
            content = content_of(reply)
            check_identity(content, silos[node], code_hash)
            weight, metrics = _metrics(of_kind(content, MetricRecord))
            good.append(EvaluateReply(silos[node], weight, metrics))
        except Unusable as why:
            failed.append(Failure(silos[node], contract.EVALUATE, why.code, why.words))
        except Exception:  # as above
            failed.append(unreadable(silos[node], contract.EVALUATE))
    return good, failed


def _private_reply(silo: str, arrays: Arrays, received: int, content: RecordDict, private: Private) -> TrainReply:
    shown, receipt = read_private(silo, content, private)
    return TrainReply(Update(silo, arrays, float(private.records[silo])), shown, received, receipt)


def read_private(silo: str, content: RecordDict, private: Private) -> tuple[dict[str, float], bytes]:
    """Read what travels beside an update under privacy: what a simulated silo shows, and the receipt.

    Raises
    ------
    Unusable
        If the receipt cannot be taken.
    """
    shown = of_kind(content, MetricRecord).get(contract.SHOWN, MetricRecord()) if private.simulated else MetricRecord()
    receipt = of_kind(content, ConfigRecord).get(contract.IDENTITY, ConfigRecord()).get(contract.RECEIPT, b"")
    if not isinstance(receipt, bytes) or len(receipt) > _MAX_RECEIPT:
        raise Unusable("bad_receipt", "its receipt is not one")
    if (words := private.objection(silo, receipt)) is not None:
        raise Unusable("bad_receipt", f"its receipt cannot be taken: {words}")
    return _scalars(shown), receipt


def weighted_mean(parts: Iterable[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    """Average metrics by weight, each over those silos that report it."""
    parts = list(parts)
    weights: dict[str, float] = {}
    for weight, metrics in parts:
        for name in metrics:
            weights[name] = weights.get(name, 0.0) + weight
    means = dict.fromkeys(weights, 0.0)
    for weight, metrics in parts:
        for name, value in metrics.items():
            means[name] += weight / weights[name] * value  # the share first: a mean of finite numbers stays finite
    return means


def _update(records: Mapping[str, ArrayRecord], model: Arrays, form: Arrays, strict: bool) -> tuple[Arrays, int]:
    """Return the update and its size in bytes; a foreign app may reply with its whole model instead."""
    name = contract.UPDATE if contract.UPDATE in records or strict else next(iter(records), "")
    if name not in records or len(records) != 1:
        raise Unusable("wrong_records", "its reply does not hold exactly one set of arrays")
    record, whole = records[name], name != contract.UPDATE
    if whole and set(form) != set(model):
        raise Unusable("wrong_records", "its reply is a whole model, which this strategy cannot use")
    try:
        arrays = decode(record)
    except MalformedArray as error:
        raise Unusable("malformed", "its arrays cannot be read") from error
    if not whole and is_packed(arrays):
        try:
            arrays = expanded(arrays, form)
        except NotPacked as error:
            raise Unusable("malformed", str(error)) from error
    if set(arrays) != set(form):
        raise Unusable("wrong_names", "its arrays have other names than the model's")
    for key, array in form.items():
        if arrays[key].shape != array.shape:
            raise Unusable("wrong_shape", f"its array '{key}' has the shape {arrays[key].shape}, not {array.shape}")
        if arrays[key].dtype != array.dtype:
            raise Unusable("wrong_dtype", f"its array '{key}' has the dtype {arrays[key].dtype}, not {array.dtype}")
        if array.dtype == np.bool_:
            raise Unusable("wrong_dtype", f"its array '{key}' holds truth values, of which there is no mean")
        if not np.isfinite(arrays[key]).all():
            raise Unusable("not_finite", f"its array '{key}' holds values that are not finite")
    ordered = {key: arrays[key] for key in form}
    if whole:  # in float64, where neither small integers wrap around nor large numbers overflow
        ordered = {key: array.astype(np.float64) - model[key].astype(np.float64) for key, array in ordered.items()}
    return ordered, byte_size(record)


def _metrics(records: Mapping[str, MetricRecord]) -> tuple[float, dict[str, float]]:
    """Return weight and metrics of a reply; lists, and names that nobody would give a metric, are left aside."""
    if len(records) != 1:
        raise Unusable("wrong_records", "its reply does not hold exactly one set of metrics")
    metrics = next(iter(records.values()))
    weight = metrics.get(contract.NUM_EXAMPLES)
    if not isinstance(weight, (int, float)) or not 0 < weight <= _MAX_WEIGHT:
        raise Unusable("bad_weight", f"its weight '{contract.NUM_EXAMPLES}' is not a positive, finite number")
    scalars = _scalars(metrics)
    scalars.pop(contract.NUM_EXAMPLES, None)
    return float(weight), scalars


def _scalars(metrics: MetricRecord) -> dict[str, float]:
    named = {name: metrics[name] for name in list(metrics)[:_MAX_METRICS] if _METRIC_NAME.fullmatch(name)}
    scalars = {name: value for name, value in named.items() if not isinstance(value, list)}
    if any(not math.isfinite(value) for value in scalars.values()):
        raise Unusable("not_finite", "its metrics hold values that are not finite")
    return {name: float(value) for name, value in scalars.items()}
