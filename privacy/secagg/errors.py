"""What can go wrong in secure aggregation: a small closed set, each with a fixed code.

A code may travel; the sentence may not, as it is written for the log of the party that raised it. No sentence holds
a secret, or a number that was computed from one.
"""

from __future__ import annotations

from typing import ClassVar


class SecAggError(ValueError):
    """Base of all errors of the protocol.

    Parameters
    ----------
    words : str
        One sentence for the log of the party that raises.
    peer : int, optional
        Roster index of the member that the error is about.

    Attributes
    ----------
    number : int
        The code as it travels, 1 to 255; never reused for anything else.
    code : str
        The code in words: the name of the class.
    """

    number: ClassVar[int] = 0

    def __init__(self, words: str, peer: int | None = None) -> None:
        super().__init__(words)
        self.peer = peer

    @property
    def code(self) -> str:
        """Return the name under which logs and reports know this error."""
        return type(self).__name__


class MalformedMessage(SecAggError):
    """Bytes that are not the one encoding of a message of the expected kind."""

    number = 1


class BadSignature(SecAggError):
    """A signature that does not verify under the roster, or over other contents than these."""

    number = 2


class UnknownIdentity(SecAggError):
    """A member that the roster, the session or the cohort does not have."""

    number = 3


class DuplicateIdentity(SecAggError):
    """One member listed twice, or adverts out of order."""

    number = 4


class DuplicateKey(SecAggError):
    """Two members with one session key."""

    number = 5


class OwnKeyMissing(SecAggError):
    """A list of adverts without the reader's own, or with another key in its place."""

    number = 6


class PairKeyFailure(SecAggError):
    """A pair of members that did not arrive at one key."""

    number = 7


class BadShareCiphertext(SecAggError):
    """A share that does not decrypt: tampered with, or sealed in another context."""

    number = 8


class MalformedShare(SecAggError):
    """A share that decrypts to something that is no share, or not the share that its dealer committed to."""

    number = 9


class EdgeMismatch(SecAggError):
    """Two members whose commitments to their common mask seed differ."""

    number = 10


class SealedListMismatch(SecAggError):
    """A sealed list of mask seeds that does not hold what its owner committed to."""

    number = 11


class NoQuorum(SecAggError):
    """Too few members signed one set of survivors."""

    number = 12


class BadSurvivorSignature(SecAggError):
    """A signature over another set of survivors, another round or by someone else."""

    number = 13


class StageOrder(SecAggError):
    """A message for another stage than the one that comes next: one answer per stage and attempt."""

    number = 14


class Replay(SecAggError):
    """A round, attempt, session or stored state that is over."""

    number = 15


class TooFewSurvivors(SecAggError):
    """Fewer survivors than the threshold, or than the policy asks for."""

    number = 16


class BadU3(SecAggError):
    """Survivors that are not distinct, ordered members of those who were asked to mask."""

    number = 17


class NotInU3(SecAggError):
    """A set of survivors without the reader, who did send its masked vector."""

    number = 18


class CohortTooSmall(SecAggError):
    """A cohort in which the thresholds cannot be met."""

    number = 19


class TooFewClients(SecAggError):
    """Too few members sent shares for a sum to be worth starting."""

    number = 20


class UnrecoverableShare(SecAggError):
    """A secret that no sufficient set of consistent shares yields; the sum stays masked."""

    number = 21


class PolicyViolation(SecAggError):
    """A request outside of what the silo's own policy allows."""

    number = 22


class BadCohort(SecAggError):
    """A cohort or set U2 that is not distinct, ordered, within its bounds or without the reader."""

    number = 23


class ContextMismatch(SecAggError):
    """A reply made for another model, configuration, cohort, round or log than the server's."""

    number = 24


class BadVector(SecAggError):
    """A vector of another length, kind or digest than was agreed on."""

    number = 25


class DuplicateMessage(SecAggError):
    """A second, different message where one was due; the first counts."""

    number = 26


class SessionExpired(SecAggError):
    """A round outside of those that the session's keys were made for."""

    number = 27


class ModelChainMismatch(SecAggError):
    """A model that does not follow, by the sums in between, from the last one that the silo took part with."""

    number = 28


class ImplausibleSum(SecAggError):
    """A sum beyond what the vectors of honest silos, and their noise, can come to."""

    number = 29


class LogMismatch(SecAggError):
    """A transparency log that is not the session's, or does not go on from what the silo has seen of it."""

    number = 30


#: Every error by its number.
BY_NUMBER: dict[int, type[SecAggError]] = {kind.number: kind for kind in SecAggError.__subclasses__()}
