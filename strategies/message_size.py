"""How large a run's messages are, known before anybody trains, and the limit that a deployment sets them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from quire.errors import RunFailed
from quire.strategies.rounds import RoundState

if TYPE_CHECKING:
    from quire.strategies.strategy import FederatedStrategy

#: Names to a ServerApp the most bytes that the arrays of one message may have; without it there is no limit of ours.
LIMIT_VARIABLE = "QUIRE_MESSAGE_BYTES"
_MIB = 2**20


def check_message_size(strategy: FederatedStrategy, state: RoundState) -> None:
    """See to it that a run's messages are not larger than the deployment can carry.

    Parameters
    ----------
    strategy : FederatedStrategy
    state : RoundState
        With which the rounds begin.

    Raises
    ------
    RunFailed
        If they are.
    """
    named = os.environ.get(LIMIT_VARIABLE)
    if not named:
        return
    down, up = message_bytes(strategy, state)
    if max(down, up) > int(named):
        size = sum(array.size for array in state.model.values())
        raise RunFailed(
            f"This model has {size:,} parameters, so that a message to a silo would have {down / _MIB:.0f} MiB and its "
            f"answer {up / _MIB:.0f} MiB; {int(named) / _MIB:.0f} MiB is the most that this server carries in one "
            "message: train a smaller model, or part of this one."
        )


def message_bytes(strategy: FederatedStrategy, state: RoundState) -> tuple[int, int]:
    """Return the bytes of the arrays in the largest message to a silo, and in the largest from one.

    Under secure aggregation the answer is the masked vector, packed to as many bits as its words need.
    """
    told = strategy.algorithm.told(state)
    down = _bytes(state.model) + _bytes(told)
    if strategy.secure is not None:
        point = strategy.secure.agreement(state.model).point
        return down, -(-point.length * point.bits // 8)
    form = strategy.aggregator.reply_form(strategy.algorithm.reply_form(state.model))
    return down, _bytes(form)


def _bytes(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())
