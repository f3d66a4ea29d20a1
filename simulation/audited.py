"""What an audit of transcripts comes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.privacy.secagg.recording import Replay


@dataclass
class Attempt:
    """One transcript, replayed.

    Attributes
    ----------
    round, attempt : int
    file : str
        Its name in the folder.
    replay : Replay
    group : int or None
        Whose sum it is, from 1, where silos were summed in groups.
    models : bool
        Whether the model after the round was recomputed from its sum.
    """

    round: int
    attempt: int
    file: str
    replay: Replay
    group: int | None = None
    models: bool = False

    @property
    def name(self) -> str:
        """Which it is, in words."""
        return f"round {self.round}, attempt {self.attempt}" + (f" of group {self.group}" if self.group else "")


@dataclass
class Audit:
    """What came out.

    Attributes
    ----------
    attempts : list of Attempt
        Those that hold.
    wrong, notes : list of str
    """

    attempts: list[Attempt] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """What was covered, in a sentence."""
        sums = [attempt for attempt in self.attempts if attempt.replay.total is not None]
        vectors = sum(len(attempt.replay.u3) for attempt in sums)
        models = len({attempt.round for attempt in sums if attempt.models})
        return (
            f"Transcripts: {len(self.attempts)} attempts replayed from stored messages; {len(sums)} sums opened again, "
            f"out of {vectors} masked vectors, and {models} models recomputed from them."
        )
