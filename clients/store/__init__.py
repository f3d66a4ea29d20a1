"""The silo's store: counters, state, secrets and the privacy ledger, durable before a reply leaves the silo."""

from quire.clients.store.counters import Counters, Position
from quire.clients.store.entries import Charge
from quire.clients.store.errors import BudgetExceeded, Replay, RolledBack, StoreBusy, StoreDamaged, StoreError
from quire.clients.store.ledger import Ledger, Receipt
from quire.clients.store.secrets import secret_key
from quire.clients.store.store import Store
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.spending import Budget, Spending

__all__ = [
    "Budget",
    "BudgetExceeded",
    "Charge",
    "Counters",
    "Ledger",
    "Position",
    "Receipt",
    "Replay",
    "RolledBack",
    "Spending",
    "Store",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "Unit",
    "secret_key",
]
