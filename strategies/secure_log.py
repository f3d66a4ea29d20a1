"""What the server notes of secure aggregation in a round: who took part in what, how large it was, who was to blame."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from quire.privacy.secagg.blame import Blame
from quire.strategies.reading import Failure

# What the errors of the protocol mean for a person, where a silo refused; all others by their name alone.
_WHY = {
    "StageOrder": "it has lost what it kept for this round, or was asked out of order",
    "Replay": "it takes this for a round that is over",
    "PolicyViolation": "its own policy does not allow this session",
    "CohortTooSmall": "its own policy asks for more silos",
    "TooFewSurvivors": "its own policy asks for more survivors",
    "UnknownIdentity": "it has pinned another roster, or another list of members whose keys count now",
    "BadSignature": "a signature that it was shown does not verify",
    "PairKeyFailure": "what {peer} sent for their common key does not open",
    "BadShareCiphertext": "the shares that {peer} dealt it do not open",
    "MalformedShare": "the shares that {peer} dealt it are not those that it named",
    "ModelChainMismatch": "the model does not follow, by the sums that it was told, from the last one that it knows",
    "LogMismatch": "the transparency log that it was shown does not go on from the one that it has seen",
    "ImplausibleSum": "a sum that it was told is beyond what honest silos can come to",
}
# And where the server found that what it sent does not hold.
_WHAT = {
    "BadSignature": "a signature does not verify",
    "ContextMismatch": "it is about another model, cohort, round or configuration",
    "EdgeMismatch": "it and {peer} have different keys",
    "MalformedShare": "a share is not the one that {peer} dealt it",
    "SealedListMismatch": "its sealed mask seeds are not those that it named",
    "UnknownIdentity": "it was not asked",
    "UnrecoverableShare": "the shares that it dealt are of no one secret",
}


# The core names what it waits for; everywhere else an exchange goes by the name of its message.
_EXCHANGES = {"adverts": "open", "masked": "mask", "survivors": "confirm", "unmasked": "unmask"}
_REFUSED = " refused"


@dataclass
class StageLog:
    """One exchange with the silos.

    Attributes
    ----------
    asked, answered : int
        Silos.
    bytes_down, bytes_up : int
        Of all messages of the stage, without framing.
    seconds : float
    """

    asked: int = 0
    answered: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    _since: float = field(default_factory=time.perf_counter, repr=False)

    def done(self) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self._since

    def as_dict(self) -> dict[str, Any]:
        """Return it for the journal."""
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}


@dataclass
class AttemptLog:
    """One attempt of a round.

    Attributes
    ----------
    number : int
        From 1.
    group : int or None
        Whose attempt it is, from 0; None where all members are summed together.
    cohort, u2, u3 : list of str
        Silos that were asked, that sent shares, and whose masked vector arrived.
    stages : dict of str to StageLog
        By the stage's name; with the three of a session where one was made.
    failed : list of Failure
    blame : list of Blame
    bytes_of : dict of str to list of int
        Of each silo what it was sent and what it sent, in bytes, over all stages.
    error : str or None
        Why it came to nothing.
    threshold : int
        Silos that have to go through with it.
    transcript : dict
        Where one is kept: its file, SHA-256, and the digest of the opened sum or None.
    """

    number: int
    group: int | None = None
    cohort: list[str] = field(default_factory=list)
    u2: list[str] = field(default_factory=list)
    u3: list[str] = field(default_factory=list)
    stages: dict[str, StageLog] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)
    blame: list[Blame] = field(default_factory=list)
    bytes_of: dict[str, list[int]] = field(default_factory=dict)
    error: str | None = None
    threshold: int = 0
    transcript: dict[str, Any] = field(default_factory=dict)

    def note(self, blame: Iterable[Blame]) -> None:
        """Add what is not noted yet."""
        self.blame += [note for note in blame if note not in self.blame]

    def moved(self, silo: str, down: int = 0, up: int = 0) -> None:
        """Count the bytes of a message to or from a silo."""
        sizes = self.bytes_of.setdefault(silo, [0, 0])
        sizes[0] += down
        sizes[1] += up

    def as_dict(self, names: Mapping[int, str]) -> dict[str, Any]:
        """Return it for the journal."""
        return {
            "attempt": self.number,
            **({} if self.group is None else {"group": self.group + 1}),
            "cohort": self.cohort,
            "threshold": self.threshold,
            "u2": self.u2,
            "u3": self.u3,
            "stages": {name: stage.as_dict() for name, stage in self.stages.items()},
            "bytes": self.bytes_of,
            "blame": [
                {
                    "silo": names.get(note.member, str(note.member)),
                    "stage": _exchange(note),
                    "refused": is_refusal(note),
                    "error": note.code,
                    "peer": None if note.peer is None else names.get(note.peer, str(note.peer)),
                    "proven": note.proven,
                }
                for note in self.blame
            ],
            "error": self.error,
            **({"transcript": self.transcript} if self.transcript else {}),
        }

    def failures(self, names: Mapping[int, str]) -> list[Failure]:
        """Return who failed and how, one entry for a silo and stage."""
        found = list(dict.fromkeys(self.failed))
        known = {(failure.silo, failure.stage) for failure in found}
        for note in self.blame:
            silo, stage = names.get(note.member, str(note.member)), _exchange(note)
            if (silo, stage) not in known:
                known.add((silo, stage))
                found.append(Failure(silo, stage, _snake(note.code), _words(note, names)))
        return found

    def suspects(self) -> set[int]:
        """Return the members that a next attempt does better without: who sent what does not hold, by itself.

        What it takes two for is a quarrel; see :mod:`quire.strategies.secure_conduct`.
        """
        return {note.member for note in self.blame if not is_refusal(note) and note.peer in (None, note.member)}


def is_refusal(note: Blame) -> bool:
    """Whether a member refused to go on, rather than sent what does not hold."""
    return note.stage.endswith(_REFUSED)


def _words(note: Blame, names: Mapping[int, str]) -> str:
    if note.code == "PairKeyFailure" and not is_refusal(note):
        what = "it and {peer} have different keys" if note.peer is not None else "the key that it advertised is none"
    else:
        what = (_WHY if is_refusal(note) else _WHAT).get(note.code, note.code)
    peer = "another silo" if note.peer is None else names.get(note.peer, "another silo")
    start = "it refused to go on" if is_refusal(note) else "what it sent does not hold"
    return f"{start}: {what.format(peer=peer)}"


def _exchange(note: Blame) -> str:
    stage = note.stage.removesuffix(_REFUSED)
    return _EXCHANGES.get(stage, stage)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
