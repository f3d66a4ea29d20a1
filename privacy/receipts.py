"""Receipts: what a silo signs about one round, in public figures only, so that a privacy card can be verified.

A receipt is one JSON document ``{"body": ..., "signature": hex, "signer": fingerprint}`` in one spelling: keys in
ascending order, no white space, floats by their shortest exact form, infinity as the string ``"inf"``, ASCII. What is
signed is the body in that spelling, under a tag of its own. The body says which mechanism ran with which figures, on
which model, under which settings and code, and where the silo's ledger stands; no private number is in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from quire.privacy import randomness
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import (
    DiscreteGaussian,
    Event,
    Gaussian,
    Geometric,
    NonPrivate,
    SampledDiscreteGaussian,
    SampledGaussian,
    from_json,
    to_json,
)
from quire.privacy.identity.ephemeral import ephemeral_roster
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.identity.roster import Roster, is_hash
from quire.privacy.signed_body import SignedBody, canonical

FORMAT = "quire-receipt-1"
#: Of a receipt whose noise silos share: it has the fields of :data:`SHARED` as well.
SHARED_FORMAT = "quire-receipt-2"
TAG = "quire/receipt/1"
MAX_BYTES = 65_536
#: The delta of a statement without noise whose settings name none: epsilon is infinite at every delta.
NOMINAL_DELTA = 1e-5

BODY = (
    "format",
    "run",  # Flower's number of the run, as a string; null in a simulation, where it says nothing
    "round",
    "settings",  # hash of the settings, see settings_hash
    "code",  # hash of the code that ran in the silo
    "model",  # fingerprint of the global model that the silo received
    "silo",
    "population",  # whose ledger was charged; null in a simulation
    "records",  # the declared public number
    "unit",
    "relation",
    "weights",
    "clip",
    "noise_multiplier",
    "sampling_rate",
    "steps",  # noisy releases in this round
    "event",
    "delta",
    "epsilon",  # the target of the whole run, or "inf"
    "guarded",  # whether the silo's gate let this code in
    "simulated",
    "test_seed",  # whether a seed that the server knows decided the silo's randomness
    "broken_gradients",  # how many were not finite and added zero; told by simulated silos only, else null
    "ledger",  # null in a simulation
)
SHARED = (
    "members",  # n, of the roster that the silo has pinned
    "colluders",  # c, that may leave their noise out
    "min_survivors",  # U_min, the fewest in a sum that is opened
)
LEDGER = ("entries", "head", "epsilon", "delta")
"""After the charge: its entries and head, and what the population's records have spent in this run."""


class ReceiptError(PrivacyError):
    """Bytes that are no receipt, or one that is not signed as it has to be."""


@dataclass(frozen=True)
class Receipt(SignedBody):
    """A receipt as it travels. Having one says nothing yet; :meth:`check` does.

    Attributes
    ----------
    body : mapping
        With the keys of :data:`BODY`, and of :data:`SHARED` where silos share the noise, of the right types.
    signature : bytes
    signer : str
        Fingerprint of who is said to have signed.
    """

    TAG: ClassVar[str] = TAG
    ERROR: ClassVar[type[PrivacyError]] = ReceiptError

    @classmethod
    def sign(cls, body: Mapping[str, Any], identity: PrivateIdentity) -> Receipt:
        """Make a receipt.

        Raises
        ------
        ReceiptError
            If the body is not one.
        """
        _check_body(body)
        return cls(dict(body), identity.sign(TAG, canonical(body)), identity.public.fingerprint)

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Read a receipt, strictly; no signature is checked.

        Raises
        ------
        ReceiptError
            If the bytes are anything but what :meth:`encode` writes.
        """
        if len(data) > MAX_BYTES:
            raise ReceiptError(f"A receipt has at most {MAX_BYTES} bytes, not {len(data)}.")
        try:
            value = json.loads(data.decode("ascii"), parse_constant=_no_constant)
            if not isinstance(value, dict) or canonical(value) != data:
                raise ReceiptError("A receipt is one JSON object in canonical form.")
            if set(value) != {"body", "signature", "signer"}:
                raise ReceiptError("A receipt has a body, a signature and a signer, and nothing else.")
            signature = bytes.fromhex(_text(value["signature"]))
        except (ValueError, RecursionError) as error:
            raise error if isinstance(error, ReceiptError) else ReceiptError("These bytes are no receipt.") from None
        _hash(value, "signer")
        if not isinstance(value["body"], dict):
            raise ReceiptError("The body of a receipt is an object.")
        _check_body(value["body"])
        return cls(value["body"], signature, value["signer"])

    @property
    def event(self) -> Event:
        """What the round released."""
        return from_json(self.body["event"])


#: Groups of settings that are the launcher's own, and in no hash.
UNBOUND = ("output", "tracking")


def settings_hash(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the settings of a run, without those that the launcher keeps for itself.

    Parameters
    ----------
    tree : mapping
        ``Settings.as_dict()``, or what was read from ``settings.yaml``.
    """
    told = {key: value for key, value in tree.items() if key not in (*UNBOUND, "overrides")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":"), default=repr).encode()).hexdigest()


def simulated_roster(seed: int, silos: Sequence[str]) -> Roster:
    """Return the roster of a simulation: whoever knows the seed can sign for everybody, so it shows integrity only."""
    return ephemeral_roster(randomness.key(seed, "identity"), silos)[0]


@lru_cache(maxsize=4096)
def simulated_identity(seed: int, silo: str) -> PrivateIdentity:
    """Return the identity of one silo of a simulation."""
    return ephemeral_roster(randomness.key(seed, "identity"), [silo])[1][silo]


def statement(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Return what the receipts of one silo say together, as :data:`quire.privacy.dp.card.STATEMENT` wants it."""
    first, events = receipts[0].body, merged(receipt.event for receipt in receipts)
    same = ("silo", "unit", "relation", "weights", "clip", "noise_multiplier", "sampling_rate")
    return {
        **{key: first[key] for key in same},
        "mechanism": first["event"]["kind"],
        "steps": sum(receipt.body["steps"] for receipt in receipts),
        "records": first["records"],
        "delta": first["delta"],
        "epsilon": first["epsilon"],
        "events": [to_json(event) for event in events],
    }


def merged(events: Iterable[Event]) -> list[Event]:
    """Join events of one mechanism with the same figures: what they cost is the same, told in one line."""
    joined: dict[Event, Event] = {}
    for event in events:
        match event:
            case Gaussian() | Geometric():
                key: Event = replace(event, count=1)
                joined[key] = _more(joined.get(key), event, "count")
            case DiscreteGaussian():
                key = replace(event, count=1, failure=0.0)
                joined[key] = _more(joined.get(key), event, "count", "failure")
            case SampledGaussian():
                key = replace(event, steps=1)
                joined[key] = _more(joined.get(key), event, "steps")
            case SampledDiscreteGaussian():
                key = replace(event, steps=1, failure=0.0)
                joined[key] = _more(joined.get(key), event, "steps", "failure")
            case NonPrivate():
                joined[event] = event
    return list(joined.values())


def repeated(event: Event, times: int) -> Event:
    """Return an event that many times over."""
    match event:
        case Gaussian() | Geometric():
            return replace(event, count=times * event.count)
        case DiscreteGaussian():
            return replace(event, count=times * event.count, failure=times * event.failure)
        case SampledGaussian():
            return replace(event, steps=times * event.steps)
        case SampledDiscreteGaussian():
            return replace(event, steps=times * event.steps, failure=times * event.failure)
        case NonPrivate():
            return event


def _more(known: Any, event: Any, *added: str) -> Event:
    if known is None:
        return event  # type: ignore[no-any-return]
    return replace(known, **{name: getattr(known, name) + getattr(event, name) for name in added})  # type: ignore[no-any-return]


def _check_body(body: Mapping[str, Any]) -> None:
    shared = body.get("format") == SHARED_FORMAT
    wrong = sorted(map(str, set(body) ^ {*BODY, *(SHARED if shared else ())}))
    if wrong:
        raise ReceiptError(f"A receipt has missing or unknown fields: {', '.join(wrong)[:200]}.")
    if not shared and body["format"] != FORMAT:
        raise ReceiptError(f"A receipt is of the format {FORMAT}, or {SHARED_FORMAT} where silos share the noise.")
    for key, least in (("members", 2), ("colluders", 0), ("min_survivors", 2)) if shared else ():
        _whole(body, key, least)
    for key in ("settings", "code", "model"):
        _hash(body, key)
    for key in ("silo", "unit", "relation", "weights"):
        _text(body[key])
    for key in ("round", "records"):
        _whole(body, key, 1)
    _whole(body, "steps", 0)
    for key in ("guarded", "simulated", "test_seed"):
        if not isinstance(body[key], bool):
            raise ReceiptError(f"A receipt's {key} is true or false.")
    for key in ("clip", "noise_multiplier", "sampling_rate", "delta"):
        _finite(body, key)
    _finite_or_inf(body, "epsilon")
    if not isinstance(body["event"], dict):
        raise ReceiptError("A receipt's event is an object.")
    try:
        from_json(body["event"])
    except (PrivacyError, OverflowError) as error:
        raise ReceiptError(str(error)) from None
    if body["simulated"]:
        if any(body[key] is not None for key in ("run", "population", "ledger")):
            raise ReceiptError("A simulated silo has no run, no population and no ledger.")
        _whole(body, "broken_gradients", 0, none=True)
        return
    _text(body["run"])
    _text(body["population"])
    if body["broken_gradients"] is not None:
        raise ReceiptError("How many gradients were broken is private: only a simulated silo says so.")
    ledger = body["ledger"]
    if not isinstance(ledger, dict) or set(ledger) != set(LEDGER):
        raise ReceiptError(f"A silo says where its ledger stands: {', '.join(LEDGER)}.")
    _whole(ledger, "entries", 1)
    _hash(ledger, "head")
    _finite_or_inf(ledger, "epsilon")
    _finite(ledger, "delta")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 10_000 or not value.isascii() or not value.isprintable():
        raise ReceiptError("A text in a receipt is printable ASCII.")
    return value


def _hash(values: Mapping[str, Any], key: str) -> None:
    if not isinstance(values[key], str) or not is_hash(values[key]):
        raise ReceiptError(f"A receipt's {key} is a hash: 64 hexadecimal digits in lower case.")


def _whole(values: Mapping[str, Any], key: str, least: int, none: bool = False) -> None:
    value = values[key]
    if value is None and none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**53:
        raise ReceiptError(f"A receipt's {key} is a whole number of at least {least}.")


def _finite(values: Mapping[str, Any], key: str) -> None:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, float) or not (math.isfinite(value) and value >= 0.0):
        raise ReceiptError(f"A receipt's {key} is a finite number, at least 0, written as a float.")


def _finite_or_inf(values: Mapping[str, Any], key: str) -> None:
    if values[key] != "inf":
        _finite(values, key)


def _no_constant(text: str) -> Any:
    raise ReceiptError(f"A receipt holds no {text}.")
