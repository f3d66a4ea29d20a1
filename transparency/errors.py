"""What can be wrong with a transparency log: each is one sentence for a person."""

from __future__ import annotations

from quire.errors import QuireError


class LogError(QuireError):
    """A log cannot be read or written."""


class LogBusy(LogError):
    """Another process writes to the log."""


class LogDamaged(LogError):
    """Something in a log is not what was written there, or is missing."""


class ProofError(LogError):
    """A proof does not show what it is said to show."""


class CheckpointError(LogError):
    """A checkpoint or a countersignature does not hold, or one is missing."""


class SplitView(LogError):
    """A log is not the one that was seen before: it was forked, rolled back, or signed with another key."""
