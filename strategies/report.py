"""What a strategy reports of every round, and to whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from quire.strategies.fairness import spreads
from quire.strategies.reading import Failure
from quire.strategies.rounds import RoundState

_WHERE_KNOWN = "lost", "fairness", "suspicion", "byzantine"  # keys that only lines of such rounds have


@dataclass
class RoundReport:
    """What happened in one round, for the journal.

    Attributes
    ----------
    round : int
    cohort, replied : list of str
        Who was asked to train, and whose reply could be used.
    failed : list of Failure
        Of either stage.
    train, evaluate : dict of str to float
        Weighted means over the silos; ``evaluate`` is None where nobody was asked.
    silos : dict of str to dict
        What is known of each.
    bytes_down, bytes_up : int
    seconds : dict of str to float
        By stage.
    receipts : dict of str to str
        Under privacy, in base64.
    released : dict of str to float
        What left beside the model; see :meth:`quire.strategies.rounds.Aggregator.released`.
    byzantine : dict of str to int
        Under a rule that takes f, where silos sent what no honest one does: ``stated`` is f, ``exposed`` how many did,
        and ``left`` what the rule went by.
    suspicion : dict of str to dict
        How each silo's update was scored, and whether it is in the mean; see :mod:`quire.strategies.suspicion`.
    secure : dict
        Under secure aggregation, how the round went; see :meth:`quire.strategies.secure.SecureRounds.tell`.
    lost : str or None
        Under secure aggregation, why the round has no sum: the model is then that of the round before.
    """

    round: int
    cohort: list[str] = field(default_factory=list)
    replied: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    train: dict[str, float] = field(default_factory=dict)
    evaluate: dict[str, float] | None = None
    silos: dict[str, dict[str, float]] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    released: dict[str, float] = field(default_factory=dict)
    byzantine: dict[str, int] = field(default_factory=dict)
    suspicion: dict[str, dict[str, Any]] = field(default_factory=dict)
    secure: dict[str, Any] = field(default_factory=dict)
    lost: str | None = None

    def journalled(self) -> dict[str, Any]:
        """Return the round as the journal has it, with how evenly the scores fall to the silos."""
        failed = [asdict(failure) for failure in self.failed]
        line = {**vars(self), "failed": failed, "fairness": spreads(self.silos)}
        return {key: value for key, value in line.items() if value or key not in _WHERE_KNOWN}

    def too_few(self, minimum: int) -> str:
        """Say that fewer replies than are needed could be used, and why."""
        why = "; ".join(f"{failure.silo}: {failure.words}" for failure in self.failed[:5])
        more = f"; and {len(self.failed) - 5} more" if len(self.failed) > 5 else ""
        return (
            f"Round {self.round} failed: {len(self.replied)} of {len(self.cohort)} silos gave a usable answer, "
            f"{minimum} are needed ({why}{more})."
        )


class Observer(Protocol):
    """Told of every completed round; what it must not lose, it writes down before it returns."""

    def round_done(self, report: RoundReport, state: RoundState) -> None:
        """Called once for every completed round."""

    def round_failed(self, report: RoundReport, error: str) -> None:
        """Called for a round of secure aggregation that ends the run: what was seen of it is to be known."""
