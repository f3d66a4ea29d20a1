"""One round of secure aggregation at the server: what is known of it while it goes on, and what it comes to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, Message

from quire.clients.secure.agreement import Agreement
from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.server_round import ServerRound
from quire.strategies.courier import Line
from quire.strategies.reading import Failure
from quire.strategies.report import RoundReport
from quire.strategies.secure_log import AttemptLog

#: Errors of the protocol: of a silo that has lost its state; of a dealer against whom no more shares help.
LOST = ("StageOrder", "Replay")
HOPELESS = ("UnrecoverableShare", "SealedListMismatch")
#: Why a silo is missing that is not waited for once more.
GONE = ("no_reply", "node_gone", "late", "app_crashed", "app_raised")


class RoundLost(Exception):
    """A sum that does not open, and never will, or none that honest silos come to: the round has no new model.

    Silos that gave shares for it take part in no other attempt of the round; the next round may have a model.
    """


@dataclass
class Round:
    """The round under way.

    Attributes
    ----------
    line : Line
    asked : list of int
        The cohort as it was drawn.
    told : flwr.app.ConfigRecord
        What the first message says beside the model.
    model : bytes
        32 bytes: the hash of the model, or of the whole state where the model chain is active.
    agreement : Agreement
    left_out : set of int
        Members that later attempts do without.
    ever : set of int
        Members that were in a cohort of any attempt.
    attempts : list of AttemptLog
    sent : list of flwr.app.Message
        The messages that begin the attempt under way.
    server : ServerRound or None
    clamped : float
        Share of coordinates that silos cut to the bound, in their weighted mean.
    exact : bool
        Whether a simulation sums in clear, without the protocol.
    reach : float
        How far the sum reached towards what honest silos can come to: 1 at most; 0 before one was held against it.
    rejected : bool
        Whether the sum was beyond that, and nothing was made of it.
    """

    line: Line
    asked: list[int]
    told: ConfigRecord
    model: bytes
    agreement: Agreement
    left_out: set[int] = field(default_factory=set)
    ever: set[int] = field(default_factory=set)
    attempts: list[AttemptLog] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    server: ServerRound | None = None
    clamped: float = 0.0
    exact: bool = False
    reach: float = 0.0
    rejected: bool = False

    @property
    def log(self) -> AttemptLog:
        """That of the attempt under way."""
        return self.attempts[-1]

    def failures(self, names: Mapping[int, str]) -> list[Failure]:
        """Return who failed, at which stage and how, each once."""
        found: list[Failure] = []
        for attempt in self.attempts:
            found += [failure for failure in attempt.failures(names) if failure not in found]
        return found

    def missing(self, names: Mapping[int, str], never: Sequence[str] = ()) -> str:
        """Say who failed, in words, and who was never there."""
        named = [f"{silo}: it takes no part in this run" for silo in never]
        named += [f"{failure.silo}, {failure.stage}: {failure.words}" for failure in self.failures(names)]
        return "; ".join(named[:5]) + (f"; and {len(named) - 5} more" if len(named) > 5 else "") or "nobody was missing"


def tell(rounds: Sequence[Round], report: RoundReport, names: Mapping[int, str], asked: set[int], **about: Any) -> None:
    """Put into a round's report how it went: stages, dropouts, bytes, seconds, blame, of every attempt.

    Parameters
    ----------
    rounds : sequence of Round
        That of all silos, or of each group.
    report : RoundReport
    names : mapping of int to str
        By roster index, in the order of the run's silos.
    asked : set of int
        Who counts as asked.
    **about
        Of the run, for the journal.
    """
    one, attempts = rounds[0], [attempt for part in rounds for attempt in part.attempts]
    report.failed += [failure for part in rounds for failure in part.failures(names)]
    report.cohort = [name for index, name in names.items() if index in asked]
    point = one.agreement.point
    report.secure = {"bits": point.bits, "length": point.length, **about}
    report.secure["attempts"] = [attempt.as_dict(names) for attempt in attempts]
    report.secure |= {"chain": True} if one.agreement.terms.chain else {}
    report.secure |= {"simulate": "exact_sum"} if one.exact else {}
    report.secure |= {"clamped": one.clamped} if one.clamped > 0.0 else {}
    report.secure |= {"rejected": True} if one.rejected else {}
    report.secure |= {"reach": one.reach} if one.reach > 0.0 else {}
    for stage in (stage for attempt in attempts for stage in attempt.stages.values()):
        report.bytes_down += stage.bytes_down
        report.bytes_up += stage.bytes_up


def filled_up(asked: list[int], able: AbstractSet[int], order: list[int], size: int) -> tuple[int, ...]:
    """Return those asked who are able, with as many of the others who are, in this order, as are lacking of a size."""
    cohort = [index for index in asked if index in able]
    others = sorted(able - set(cohort), key=order.index)
    return tuple(sorted(cohort + others[: max(0, size - len(cohort))]))


def clause(error: SecAggError, names: Mapping[int, str]) -> str:
    """Return an error's sentence as a part of another, with silos by their names."""
    text = str(error).rstrip(".")
    text = text if text.startswith("Member ") else text[0].lower() + text[1:]
    return re.sub(r"\b[Mm]ember (\d+)\b", lambda found: names.get(int(found[1]), found[0]), text)
