"""Faults on demand: a silo that is gone, late or failing, at a stage and round of one's choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message


@dataclass(frozen=True)
class Fault:
    """One fault: ``kind:stage:round:silo[:seconds]``, with ``*`` for any.

    Attributes
    ----------
    kind : str
        ``drop`` (the node is gone), ``error`` (its app raises) or ``delay``.
    stage : str
        ``query``, ``train``, ``evaluate``, a stage of secure aggregation (``open`` to ``unmask``) or ``*``.
    round : str
        A round's number, 0 for the enrolment before the first, or ``*``.
    silo : str
        A silo's name or ``*``.
    seconds : float
        Delay of the reply on the runtime's virtual clock; a reply that would come after the message's time to
        live is late, however fast the test runs.
    """

    kind: str
    stage: str
    round: str
    silo: str
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read a fault that :mod:`quire.conf.rules` has accepted."""
        kind, stage, round_number, silo, *seconds = text.split(":")
        return cls(kind, stage, round_number, silo, float(seconds[0]) if seconds else 0.0)

    def strikes(self, silo: str, message: Message) -> bool:
        """Tell whether this fault befalls a message on its way to a silo."""
        # "train" befalls "train.mask" as well, and so does "mask".
        stages = ("*", *message.metadata.message_type.split("."))
        return self.stage in stages and self.round in ("*", message.metadata.group_id) and self.silo in ("*", silo)


def striking(faults: Iterable[Fault], silo: str, message: Message) -> Fault | None:
    """Return the first fault that befalls a message, if any does."""
    return next((fault for fault in faults if fault.strikes(silo, message)), None)
