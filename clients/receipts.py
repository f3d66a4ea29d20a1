"""The silo's receipt for a round: what it released, in public figures, signed with its own identity.

It is made after the ledger was charged and travels with the update. A simulated silo signs with a key that is derived
from the run's seed: such a signature shows that nothing was changed since, not who made it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quire.clients.gate.mark import guarded
from quire.clients.private.plan import Plan, SharedPlan
from quire.conf.schema import NoPrivacy, Settings, SiloPrivacy
from quire.privacy.dp.contract import RELATIONS, Weights
from quire.privacy.dp.events import NonPrivate, to_json
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import (
    FORMAT,
    NOMINAL_DELTA,
    SHARED,
    SHARED_FORMAT,
    Receipt,
    ReceiptError,
    settings_hash,
    simulated_identity,
)


@dataclass(frozen=True)
class Stand:
    """Where a real silo's books stand after it was charged for a round.

    Attributes
    ----------
    signer : PrivateIdentity
        The silo's own.
    population : str
    entries : int
        Of the population's ledger.
    head : str
        Hash of its last line.
    epsilon : float
        What one record of the population has spent in this run, at ``delta``: not what the ledger holds of others.
    delta : float
        The run's.
    """

    signer: PrivateIdentity
    population: str
    entries: int
    head: str
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Round:
    """What a receipt says about one round.

    Attributes
    ----------
    silo : str
    records : int
        The declared public number.
    run : int
        Flower's number of the run.
    number : int
        Of the round.
    model : str
        Fingerprint of the global model that was received.
    code : str
        Hash of the code that runs here.
    simulated : bool
        Whether nothing left the machine on which the silo is.
    test_seed : bool
        Whether the operator lets a seed decide the silo's randomness.
    broken_gradients : int or None
        How many were not finite; None in a real silo, which tells nobody.
    """

    silo: str
    records: int
    run: int
    number: int
    model: str
    code: str
    simulated: bool
    test_seed: bool
    broken_gradients: int | None


def receipt_of(settings: Settings, plan: Plan, about: Round, stand: Stand | None) -> bytes:
    """Make and sign a receipt.

    Parameters
    ----------
    settings : Settings
        With privacy.
    plan : Plan
        What the silo did in the round.
    about : Round
    stand : Stand or None
        None in a simulated silo.

    Returns
    -------
    bytes
        See :mod:`quire.privacy.receipts`.

    Raises
    ------
    ReceiptError
        If a silo that is no simulated one was not charged, or the other way round.
    """
    if about.simulated != (stand is None):
        raise ReceiptError("A simulated silo has no ledger, and every other one states where its ledger stands.")
    privacy, event = settings.privacy, plan.released(1)
    target = math.inf if isinstance(privacy, NoPrivacy) else privacy.epsilon
    noise = plan.noise if isinstance(plan, SharedPlan) else None
    shared = {} if noise is None else {key: getattr(noise, key) for key in SHARED}
    body = {
        **shared,
        "format": FORMAT if noise is None else SHARED_FORMAT,
        "run": None if stand is None else str(about.run),
        "round": about.number,
        "settings": settings_hash(settings.as_dict()),
        "code": about.code,
        "model": about.model,
        "silo": about.silo,
        "population": None if stand is None else stand.population,
        "records": about.records,
        "unit": str(plan.unit),
        "relation": str(RELATIONS[plan.unit]),
        "weights": privacy.weights if isinstance(privacy, SiloPrivacy) else str(Weights.UNIFORM),
        "clip": float(plan.clip),
        "noise_multiplier": 0.0 if isinstance(event, NonPrivate) else float(event.noise_multiplier),
        "sampling_rate": 1.0 if isinstance(event, NonPrivate) else float(plan.rate),
        "steps": 0 if isinstance(event, NonPrivate) else plan.steps,
        "event": to_json(event),
        "delta": plan.delta or NOMINAL_DELTA,
        "epsilon": _shown(target),
        "guarded": guarded(),
        "simulated": about.simulated,
        "test_seed": about.test_seed,
        "broken_gradients": about.broken_gradients if stand is None else None,
        "ledger": None
        if stand is None
        else {
            "entries": stand.entries,
            "head": stand.head,
            "epsilon": _shown(stand.epsilon),
            "delta": stand.delta,
        },
    }
    signer = simulated_identity(settings.seed, about.silo) if stand is None else stand.signer
    return Receipt.sign(body, signer).encode()


def _shown(epsilon: float) -> float | str:
    return "inf" if math.isinf(epsilon) else float(epsilon)
