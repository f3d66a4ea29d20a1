"""Public numbers of secure aggregation that follow from the settings: what is averaged besides, and the rotation."""

from __future__ import annotations

import math
from dataclasses import replace

from quire.clients.contract import CLAMPED, STEPS, TRAIN_LOSS
from quire.conf.schema import FedNovaStrategy, NoPrivacy, SecureAggregation, Settings
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.receipts import settings_hash

#: A training loss beyond this counts as this: the sum has room for no more.
LOSS_BOUND = 1000.0
#: A silo may have so many times the rows that count, before the length of its course (FedNova) is cut.
_ROOM = 1000


def metrics_of(settings: Settings, max_rows: int) -> tuple[tuple[str, float], ...]:
    """Return what is averaged beside the update. Under differential privacy a loss is not accounted for, so none is."""
    if not isinstance(settings.privacy, NoPrivacy):
        return ()
    metrics = [(TRAIN_LOSS, LOSS_BOUND), (CLAMPED, 1.0)]
    if isinstance(settings.strategy, FedNovaStrategy):
        plan = settings.training
        steps = plan.steps or plan.epochs * math.ceil(_ROOM * max_rows / plan.batch_size)
        metrics.append((STEPS, steps / (1.0 - plan.momentum)))
    return tuple(metrics)


def rotation_of(settings: Settings, secure: SecureAggregation) -> str | None:
    """Return the key of the random rotation; None where there is none."""
    # Public, and the same at all silos; what it has to be independent of is the data. And of how a simulation sums: the
    # short cut comes to the model of the protocol, so it rounds what the protocol would.
    if not secure.rotation:
        return None
    whole = replace(settings, aggregation=replace(secure, simulate="protocol"))
    return tagged_hash("quire/secure/rotation/1", bytes.fromhex(settings_hash(whole.as_dict()))).hex()
