"""One message of secure aggregation at a silo: read, answered by the protocol, written down, replied to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from quire.clients import contract
from quire.clients.answering import LOG, Refusal
from quire.clients.arrays import Arrays, encode
from quire.clients.contract import Code
from quire.clients.data.preprocess import Loaded
from quire.clients.member import Member
from quire.clients.receipts import Stand
from quire.clients.secure.desk import Desk, desk
from quire.clients.secure.protocols import Core, Stages, protocol_of
from quire.clients.secure.shown import standing
from quire.conf.schema import SecureAggregation, Settings
from quire.privacy.secagg.client import Step
from quire.privacy.secagg.errors import LogMismatch, SecAggError
from quire.privacy.secagg.wire import MAX_MESSAGE

_T = TypeVar("_T")
#: What is done once a stage is answered, before that is written down.
Before = Callable[[Desk, Step], None]


class Guard(Protocol):
    """Does what touches the rows; see :func:`quire.clients.secure.training.quiet`."""

    def __call__(self, work: Callable[[], _T], round_number: int, /) -> _T | None:
        """Return what the work returns; None where it fails."""


class Silo(Protocol):
    """What the stages have to know of a silo and a run; made by :mod:`quire.clients.client_app`."""

    @property
    def settings(self) -> Settings:
        """Those of the run."""

    @property
    def member(self) -> Member:
        """Who the silo is."""

    @property
    def private(self) -> bool:
        """Whether the run is under differential privacy."""

    @property
    def records(self) -> int:
        """The public number of records."""

    def charged(self, stand: Stand | None) -> Silo:
        """Return the same silo, after it was charged for a round."""

    def load(self, context: Context) -> Loaded:
        """Load the silo's rows."""

    def private_update(
        self, context: Context, model: Arrays, round_number: int, clip: float | None = None, guard: Guard | None = None
    ) -> tuple[Arrays | None, dict[str, float], bytes]:
        """Train under privacy; return the update, what a simulated silo shows, and the receipt.

        There is no update where the training failed, and the guard kept that to itself.
        """

    def shared_vector(
        self, context: Context, model: Arrays, attempt: tuple[int, int], members: int, guard: Guard
    ) -> tuple[np.ndarray | None, dict[str, float], bytes]:
        """Work out what an attempt adds under distributed noise, without any; and the same beside it."""


@dataclass(frozen=True)
class Stage:
    """A message of the protocol, and the silo that it is for.

    Attributes
    ----------
    name : str
        The stage, as the handler knows it: what the policy decides on.
    message : flwr.app.Message
    context : flwr.app.Context
    silo : Silo
    secure : SecureAggregation
        Of the run's settings.
    data : bytes
        What the protocol reads.
    code : str
        Hash of the code that runs here.
    """

    name: str
    message: Message
    context: Context
    silo: Silo
    secure: SecureAggregation
    data: bytes
    code: str

    @classmethod
    def read(cls, name: str, message: Message, context: Context, silo: Silo, code: str) -> Stage:
        """Read a message.

        Raises
        ------
        Refusal
            If it is none of secure aggregation, or the settings ask for none.
        """
        secure, record = silo.settings.aggregation, message.content.get(contract.PROTOCOL)
        data = record.get(contract.MESSAGE) if isinstance(record, ConfigRecord) else None
        if not isinstance(secure, SecureAggregation) or not isinstance(data, bytes) or len(data) > MAX_MESSAGE:
            raise Refusal(Code.BAD_REQUEST)
        return cls(name, message, context, silo, secure, data, code)

    @property
    def protocol(self) -> Stages:
        """What the silo answers by; see :func:`quire.clients.secure.protocols.protocol_of`."""
        return protocol_of(self.secure, self.silo.member)

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """Open what the silo needs to answer; see :func:`quire.clients.secure.desk.desk`."""
        silo, where = self.silo, (self.name, self.message, self.context)
        with desk(silo.settings, self.secure, silo.member, *where, self.code) as opened:
            yield opened

    def answer(self, core: Core, before: Before | None = None) -> Message:
        """Let the protocol answer, and write down how far the silo has come; to send a reply again changes nothing."""
        with self.desk() as opened:
            try:
                step = core(opened.party, opened.state, self.data)
            except SecAggError as error:
                return self.refuse(opened, error)
            if not step.again:
                if before is not None:
                    before(opened, step)
                opened.memory.save(step.state)
        return self.reply(step.reply)

    def refuse(self, opened: Desk, error: SecAggError) -> Message:
        """Reply with the number of an error; its words stay in the silo's log."""
        LOG.error("%s answered with %s: %s", self.name, error.code, error)
        told = standing(opened.memory, opened.terms.log) if isinstance(error, LogMismatch) else None
        return self.reply(opened.party.refuse(error), log=told)

    def reply(
        self,
        answer: bytes,
        receipt: bytes = b"",
        shown: dict[str, float] | None = None,
        log: ConfigRecord | None = None,
    ) -> Message:
        """Reply with a message of the protocol, who sends it, and what there is to say of the log."""
        identity = ConfigRecord(
            {
                contract.SILO: self.silo.member.name,
                contract.CODE_HASH: self.code,
                contract.CONTRACT: contract.VERSION,
            }
        )
        if receipt:
            identity[contract.RECEIPT] = receipt
        content = RecordDict({contract.IDENTITY: identity})
        content[contract.PROTOCOL] = _carried(answer)
        if log is not None:
            content[contract.LOG] = log
        if shown:
            content[contract.SHOWN] = MetricRecord(dict(shown))
        return Message(content, reply_to=self.message)


def _carried(answer: bytes) -> ArrayRecord:
    # As an array, not as a setting: Flower sends arrays in pieces, and a masked vector is as large as a model.
    return encode({contract.MESSAGE: np.frombuffer(answer, dtype=np.uint8)})
