"""Why a silo's store refuses. Each is one sentence for the silo's operator; none of them travels."""

from __future__ import annotations

from quire.errors import QuireError


class StoreError(QuireError):
    """The silo's store cannot be used, or cannot be written."""


class StoreBusy(StoreError):
    """Another process works with the store, and did not finish in time."""


class StoreDamaged(StoreError):
    """Something in the store is not what was written there, or is missing."""


class RolledBack(StoreDamaged):
    """The store is older than what a counter elsewhere has seen: a copy was put back."""


class Replay(StoreError):
    """A position that was already passed was asked for again."""


class BudgetExceeded(StoreError):
    """A charge would spend more than the silo's operator allows; nothing was written, nothing may leave."""
