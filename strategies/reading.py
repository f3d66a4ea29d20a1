"""What every reader of replies shares: who answered what, what a reply holds, and why one cannot be used.

Replies are not believed: each is checked, and one that does not hold counts as a dropout of that silo, by name. Who
failed is found from what was sent, never from what an error reply claims: Flower's runtime answers for nodes that are
gone, and puts its own id there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from quire.clients import contract

Silos = dict[int, str]

LOG = logging.getLogger("quire.strategies")
Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)

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


@dataclass(frozen=True)
class Exposed(Failure):
    """A silo whose own answer shows that it is not honest: the code that it says it runs does not send that."""


class Unusable(Exception):
    """Why a reply cannot be used."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


def unreadable(silo: str, stage: str) -> Failure:
    """Log the exception at hand, and return the failure of a silo whose reply raised it."""
    LOG.exception("the reply of %s to %s cannot be read", silo, stage)
    return Failure(silo, stage, "malformed", "its reply cannot be read")


def by_node(
    sent: Iterable[Message], replies: Iterable[Message], order: Silos | None = None
) -> dict[int, Message | None]:
    """Match replies to the nodes that were asked, in the order given; None where no reply came."""
    sent = list(sent)
    asked = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
    answers: dict[int, Message | None] = dict.fromkeys(asked.values())
    for reply in replies:
        node = asked.get(reply.metadata.reply_to_message_id)
        if node is not None and answers[node] is None:
            answers[node] = reply
    return {node: answers[node] for node in (ordered(sent, order) if order is not None else answers)}


def ordered(sent: Iterable[Message], order: Silos) -> list[int]:
    """Return the nodes that were asked, in the order given; those that it does not name are left out."""
    asked = {message.metadata.dst_node_id for message in sent}
    return [node for node in order if node in asked]


def content_of(reply: Message | None) -> RecordDict:
    """Return what a reply holds.

    Raises
    ------
    Unusable
        If there is no reply, or it is an error.
    """
    if reply is None:
        raise Unusable("no_reply", "it did not answer in time")
    if reply.has_content():
        return reply.content
    code = reply.error.code
    if code in contract.Code._value2member_map_:
        known = contract.Code(code)
        raise Unusable(known.name.lower(), contract.WORDS[known])
    raise Unusable(*_FLOWER_CODES.get(code, ("unknown_error", f"its node answered with error code {code}")))


def of_kind(content: RecordDict, kind: type[Record]) -> dict[str, Record]:
    """Return the records of one kind, by name."""
    # As Flower's `array_records` and its kin, which put together a dictionary that writes back whenever they are read.
    return {name: record for name, record in content.items() if isinstance(record, kind)}


def identity_of(content: RecordDict, code_hash: str) -> str:
    """Return the name of the silo that a reply says it is from.

    Raises
    ------
    Unusable
        If it does not say, or the reply comes from other code or another contract.
    """
    identity = of_kind(content, ConfigRecord).get(contract.IDENTITY, ConfigRecord())
    name = identity.get(contract.SILO)
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
        raise Unusable("no_identity", "its reply does not say which silo it is from")
    if identity.get(contract.CONTRACT) != contract.VERSION:
        raise Unusable("other_contract", "it speaks another version of the contract")
    if identity.get(contract.CODE_HASH) != code_hash:
        raise Unusable("other_code", "it runs other code than the server")
    return name


def check_identity(content: RecordDict, silo: str, code_hash: str | None) -> None:
    """Raise ``Unusable`` if a reply is not from the silo that was asked; without a code hash silos do not say."""
    if code_hash is not None and identity_of(content, code_hash) != silo:
        raise Unusable("other_silo", "its node answers under another silo's name")
