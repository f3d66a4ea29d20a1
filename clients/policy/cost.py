"""What a run would still cost the silo's records, on top of what its books say. Kept in memory: it is asked often."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from quire.clients.private.plan import Plan

if TYPE_CHECKING:
    from quire.privacy.dp.spending import Spending


@lru_cache(maxsize=1024)
def rest_of(plan: Plan, rounds: int) -> Spending:
    """Return what so many further rounds of a plan cost the records; everything where there is no noise."""
    from quire.privacy.dp.spending import Spending

    return Spending.of(plan.charged(rounds)) if rounds else Spending.zero()


def epsilon_after(spent: Spending, plan: Plan, rounds: int, delta: float) -> float:
    """Return the epsilon of the records, at a delta, after so many further rounds."""
    return _epsilon_after(spent.rdp.tobytes(), spent.delta, plan, rounds, delta)


@lru_cache(maxsize=4096)
def _epsilon_after(rdp: bytes, extra: float, plan: Plan, rounds: int, delta: float) -> float:
    # By the bytes and not by the spending, for comparing two of those takes longer than all the rest of a decision.
    from quire.privacy.dp.spending import Spending

    return (Spending(np.frombuffer(rdp), extra) + rest_of(plan, rounds)).epsilon(delta)
