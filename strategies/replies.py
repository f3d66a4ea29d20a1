"""Replies are not believed: each is checked, and one that does not hold counts as a dropout of that silo, by name.

Who failed is found from what was sent, never from what an error reply claims: Flower's runtime answers for nodes
that are gone, and puts its own id there.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from quire.clients import contract
from quire.clients.arrays import Arrays, MalformedArray, byte_size, decode
from quire.clients.tasks.moments import usable
from quire.strategies.rounds import Update

Silos = dict[int, str]

LOG = logging.getLogger("quire.strategies")
Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)

# Beyond this a weight is a mistake or an attack: no silo has a thousand billion rows.
_MAX_WEIGHT = 1e12

# What is journalled, logged and shown to the operator under a silo's own name for it.
_METRIC_NAME, _MAX_METRICS = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,63}"), 64

# Flower's own error codes, for a node or a process that is gone.
_FLOWER_CODES: dict[int, tuple[str, str]] = {
    1: ("app_not_loaded", "its node could not load the app"),
    2: ("app_raised", "its app raised an error"),
    3: ("message_lost", "the server's message was lost"),
    4: ("late", "it did not answer before the deadline"),
    5: ("node_gone", "its node is gone"),
    6: ("mod_failed", "a Flower mod failed at the silo"),
    7: ("bundle_refused", "its node refused the app bundle"),
    8: ("app_crashed", "its app crashed"),
}


@dataclass(frozen=True)
class Failure:
    """A silo that was asked and did not give a usable answer."""

    silo: str
    stage: str
    code: str
    words: str


@dataclass(frozen=True, eq=False)
class TrainReply:
    """A usable answer to ``train``."""

    update: Update
    metrics: dict[str, float]
    received: int


@dataclass(frozen=True)
class EvaluateReply:
    """A usable answer to ``evaluate``."""

    silo: str
    weight: float
    metrics: dict[str, float]


class Unusable(Exception):
    """Why a reply cannot be used."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


def read_identities(
    sent: Iterable[Message], replies: Iterable[Message], code_hash: str, schema: str | None = None
) -> tuple[Silos, list[Failure]]:
    """Read who answered ``query``.

    Parameters
    ----------
    sent, replies : iterable of flwr.app.Message
    code_hash : str
        The server's own code.
    schema : str or None
        Hash of the server's schema, where silos read their own rows.

    Returns
    -------
    silos : dict of int to str
        Node id to silo name, of those that run the server's own code.
    failed : list of Failure
        The others.
    """
    silos: Silos = {}
    failed: list[Failure] = []
    for node, reply in _by_node(sent, replies).items():
        try:
            content = _content(reply)
            name = _identity(content, code_hash)
            if schema is not None and content[contract.IDENTITY].get(contract.SCHEMA) != schema:
                raise Unusable("other_schema", "it has another schema than the server")
            if name in silos.values():
                raise Unusable("name_taken", f"another node already answered as {name}")
            silos[node] = name
        except Unusable as why:
            failed.append(Failure(f"node {node}", contract.QUERY, why.code, why.words))
        except Exception:  # as below
            failed.append(_unreadable(f"node {node}", contract.QUERY))
    return silos, failed


def read_moments(
    sent: Iterable[Message], replies: Iterable[Message], silos: Silos, features: int, code_hash: str | None
) -> tuple[dict[str, Arrays], list[Failure]]:
    """Check the answers to ``query.moments``; return the moments by silo, in roster order, and who gave none."""
    good: dict[str, Arrays] = {}
    failed: list[Failure] = []
    for node, reply in _by_node(sent, replies, silos).items():
        try:
            content = _content(reply)
            _check_identity(content, silos[node], code_hash)
            record = content.array_records.get(contract.ARRAYS, ArrayRecord())
            parts = decode(record)
            if not usable(parts, features):
                raise Unusable("bad_moments", "its moments cannot be those of its features")
            good[silos[node]] = parts
        except Unusable as why:
            failed.append(Failure(silos[node], contract.QUERY, why.code, why.words))
        except Exception:  # arrays that cannot be read, or whatever else a reply stumbles over
            failed.append(_unreadable(silos[node], contract.QUERY))
    return good, failed


def read_train_replies(
    sent: Iterable[Message],
    replies: Iterable[Message],
    silos: Silos,
    model: Arrays,
    code_hash: str | None,
    form: Arrays | None = None,
    objection: Callable[[Arrays], str | None] = lambda update: None,
) -> tuple[list[TrainReply], list[Failure]]:
    """Check the answers to ``train``.

    Parameters
    ----------
    sent : iterable of flwr.app.Message
        What was sent: who must answer.
    replies : iterable of flwr.app.Message
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

    Returns
    -------
    good : list of TrainReply
        In roster order.
    failed : list of Failure
        In roster order.
    """
    good: list[TrainReply] = []
    failed: list[Failure] = []
    for node, reply in _by_node(sent, replies, silos).items():
        try:
            content = _content(reply)
            _check_identity(content, silos[node], code_hash)
            arrays, received = _update(
                _of_kind(content, ArrayRecord), model, form or model, strict=code_hash is not None
            )
            if (words := objection(arrays)) is not None:
                raise Unusable("impossible_update", words)
            weight, metrics = _metrics(_of_kind(content, MetricRecord))
            good.append(TrainReply(Update(silos[node], arrays, weight), metrics, received))
        except Unusable as why:
            failed.append(Failure(silos[node], contract.TRAIN, why.code, why.words))
        except Exception:  # whatever a reply stumbles over, it is that silo's dropout and not the end of the run
            failed.append(_unreadable(silos[node], contract.TRAIN))
    return good, failed


def read_evaluate_replies(
    sent: Iterable[Message], replies: Iterable[Message], silos: Silos, code_hash: str | None
) -> tuple[list[EvaluateReply], list[Failure]]:
    """Check the answers to ``evaluate``; see :func:`read_train_replies`."""
    good: list[EvaluateReply] = []
    failed: list[Failure] = []
    for node, reply in _by_node(sent, replies, silos).items():
        try:
            content = _content(reply)
            _check_identity(content, silos[node], code_hash)
            weight, metrics = _metrics(_of_kind(content, MetricRecord))
            good.append(EvaluateReply(silos[node], weight, metrics))
        except Unusable as why:
            failed.append(Failure(silos[node], contract.EVALUATE, why.code, why.words))
        except Exception:  # as above
            failed.append(_unreadable(silos[node], contract.EVALUATE))
    return good, failed


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


def _unreadable(silo: str, stage: str) -> Failure:
    LOG.exception("the reply of %s to %s cannot be read", silo, stage)
    return Failure(silo, stage, "malformed", "its reply cannot be read")


def _by_node(
    sent: Iterable[Message], replies: Iterable[Message], order: Silos | None = None
) -> dict[int, Message | None]:
    """Match replies to the nodes that were asked, in the order given; None where no reply came."""
    asked = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
    answers: dict[int, Message | None] = dict.fromkeys(asked.values())
    for reply in replies:
        node = asked.get(reply.metadata.reply_to_message_id)
        if node is not None and answers[node] is None:
            answers[node] = reply
    nodes = [node for node in order if node in answers] if order is not None else list(answers)
    return {node: answers[node] for node in nodes}


def _content(reply: Message | None) -> RecordDict:
    if reply is None:
        raise Unusable("no_reply", "it did not answer before the deadline")
    if reply.has_content():
        return reply.content
    code = reply.error.code
    if code in contract.Code._value2member_map_:
        known = contract.Code(code)
        raise Unusable(known.name.lower(), contract.WORDS[known])
    raise Unusable(*_FLOWER_CODES.get(code, ("unknown_error", f"its node answered with error code {code}")))


def _of_kind(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    # As Flower's `array_records` and its kin, which put together a dictionary that writes back whenever they are read.
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def _identity(content: RecordDict, code_hash: str) -> str:
    identity = _of_kind(content, ConfigRecord).get(contract.IDENTITY, ConfigRecord())
    name = identity.get(contract.SILO)
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
        raise Unusable("no_identity", "its reply does not say which silo it is from")
    if identity.get(contract.CONTRACT) != contract.VERSION:
        raise Unusable("other_contract", "it speaks another version of the contract")
    if identity.get(contract.CODE_HASH) != code_hash:
        raise Unusable("other_code", "it runs other code than the server")
    return name


def _check_identity(content: RecordDict, silo: str, code_hash: str | None) -> None:
    if code_hash is not None and _identity(content, code_hash) != silo:
        raise Unusable("other_silo", "its node answers under another silo's name")


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
    named = {name: metrics[name] for name in list(metrics)[:_MAX_METRICS] if _METRIC_NAME.fullmatch(name)}
    scalars = {name: value for name, value in named.items() if not isinstance(value, list)}
    if any(not math.isfinite(value) for value in scalars.values()):
        raise Unusable("not_finite", "its metrics hold values that are not finite")
    scalars.pop(contract.NUM_EXAMPLES, None)
    return float(weight), {name: float(value) for name, value in scalars.items()}
