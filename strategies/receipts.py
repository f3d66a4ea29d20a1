"""What the server makes of a receipt: is it signed by whom the roster says, and does it say what was agreed?

A silo whose receipt does not hold is a dropout of that round, by name. The same questions are asked again, offline, by
``quire verify``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from quire.clients.secure.noise import noise_of
from quire.conf.schema import DistributedPrivacy, NoPrivacy, RecordPrivacy, Settings, SiloPrivacy
from quire.errors import DataError
from quire.privacy.dp.accounting import default_delta
from quire.privacy.dp.card import conflicts
from quire.privacy.dp.contract import RELATIONS, PrivacyError, Unit
from quire.privacy.dp.events import to_json
from quire.privacy.dp.spending import Spending
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.roster import Roster
from quire.privacy.identity.signed import MAX_BYTES, SignedRoster, check_signed
from quire.privacy.receipts import (
    FORMAT,
    NOMINAL_DELTA,
    SHARED,
    SHARED_FORMAT,
    Receipt,
    ReceiptError,
    repeated,
    settings_hash,
    statement,
)

#: The roster's name in the run folder.
ROSTER_FILE = "roster.json"


@dataclass(frozen=True)
class Receipts:
    """What the receipts of a run are held against.

    Attributes
    ----------
    settings : Settings
    code : str
        Hash of the code of the run.
    roster : Roster or None
        Who signs with which keys; None: signatures are not checked, and the card says so.
    run : str or None
        Flower's number of the run; None in a simulation.
    """

    settings: Settings
    code: str
    roster: Roster | None
    run: str | None

    def objections(
        self, records: Mapping[str, int], round_number: int, model: str, clip: float | None = None
    ) -> Callable[[str, bytes], str | None]:
        """Return what says, in words, why a silo's receipt for a round cannot be taken; None where it can.

        Parameters
        ----------
        records : mapping of str to int
            What silos declared when they joined.
        round_number : int
        model : str
            Fingerprint of the global model that was sent.
        clip : float, optional
            What silos were told to clip to, where the clip moves.
        """

        def objection(silo: str, data: bytes) -> str | None:
            try:
                receipt = Receipt.decode(data)
                if self.roster is not None:
                    member = self.roster.member(silo)
                    receipt.check(member.identity)
                    if not member.active(int(time.time())):
                        return "the roster's entry for it is not valid now"
            except (ReceiptError, IdentityError) as error:
                return str(error).rstrip(".")
            if receipt.body["silo"] != silo or receipt.body["run"] != self.run:
                return "it is about another silo or run"
            if receipt.body["records"] != records[silo]:
                return "it counts other records than were declared"
            members = None if self.roster is None else len(self.roster.members)
            found = contradictions(receipt, self.settings, self.code, round_number, model, clip, members)
            return found[0] if found else None

        return objection


def contradictions(
    receipt: Receipt,
    settings: Settings,
    code: str,
    round_number: int,
    model: str,
    clip: float | None = None,
    members: int | None = None,
) -> list[str]:
    """Say where a receipt is not about this round of this run, or its promise is not the one of the settings.

    Parameters
    ----------
    receipt : Receipt
    settings : Settings
        With privacy.
    code : str
        Hash of the code of the run.
    round_number : int
    model : str
        Fingerprint of the global model that went out.
    clip : float, optional
        What silos had to clip to in this round; by default what the settings say.
    members : int, optional
        Of the roster, by which distributed noise is planned; by default as many as the run has silos.

    Returns
    -------
    list of str
        In words that follow "the receipt:"; empty if there is nothing.
    """
    body = receipt.body
    expected: dict[str, Any] = {
        "round": round_number,
        "settings": settings_hash(settings.as_dict()),
        "code": code,
        "model": model,
    }
    try:
        expected |= {"format": FORMAT, **_agreed(settings, body["records"], members)}
    except PrivacyError as error:
        return [f"noise cannot be held against the settings: {str(error).rstrip('.')}"]
    if clip is not None:
        expected["clip"] = clip
    if body["event"]["kind"] == "non_private":  # then there is nothing to sample, and no step has noise
        expected |= {"sampling_rate": 1.0, "steps": 0, "noise_multiplier": 0.0}
    wrong = [
        f"{key} is {_short(body.get(key))}, not {_short(value)}"
        for key, value in expected.items()
        if body.get(key) != value
    ]
    if not wrong and _breaks_promise(receipt, settings.strategy.rounds):
        wrong.append("so many rounds of what it says was released exceed the epsilon that was promised")
    return wrong + [words.rstrip(".") for words in conflicts(statement([receipt]))]


def read_server_roster(path: Path) -> SignedRoster:
    """Read the roster that a deployment's server is given, its admins' signatures checked.

    Raises
    ------
    DataError
        If it cannot be read, or is no roster that a quorum of its admins has signed.
    """
    try:
        with path.open("rb") as file:
            signed = SignedRoster.decode(file.read(MAX_BYTES + 1))
        check_signed(signed)
    except OSError as error:
        raise DataError(f"The roster {path} cannot be read: {error.strerror}.") from error
    except IdentityError as error:
        raise DataError(f"The roster {path} cannot be used: {error}") from error
    return signed


def _agreed(settings: Settings, records: int, members: int | None) -> dict[str, Any]:
    """Return what the settings make of a silo with so many declared records."""
    privacy, training = settings.privacy, settings.training
    if isinstance(privacy, NoPrivacy):
        return {}
    epsilon: float | str = "inf" if math.isinf(privacy.epsilon) else privacy.epsilon
    if isinstance(privacy, RecordPrivacy):
        return {
            "unit": str(Unit.RECORD),
            "relation": str(RELATIONS[Unit.RECORD]),
            "weights": "uniform",
            "clip": privacy.clip,
            "epsilon": epsilon,
            "delta": privacy.delta if privacy.delta is not None else default_delta(records),
            "sampling_rate": training.batch_size / records,
            "steps": training.steps or training.epochs * math.ceil(records / training.batch_size),
        }
    if isinstance(privacy, DistributedPrivacy):
        noise = noise_of(settings, members)
        delta = default_delta(records) if noise.unit is Unit.RECORD else NOMINAL_DELTA
        return {
            "format": SHARED_FORMAT,
            **{key: getattr(noise, key) for key in SHARED},
            "unit": str(noise.unit),
            "relation": str(RELATIONS[noise.unit]),
            "weights": "uniform",
            "clip": privacy.clip,
            "epsilon": epsilon,
            "delta": privacy.delta or delta,
            "sampling_rate": noise.sampling_rate,
            "steps": 1,
            "event": to_json(noise.released(1)),
        }
    return _agreed_of_silo(privacy, epsilon)


def _agreed_of_silo(privacy: SiloPrivacy, epsilon: float | str) -> dict[str, Any]:
    return {
        "unit": str(Unit.SILO),
        "relation": str(RELATIONS[Unit.SILO]),
        "weights": privacy.weights,
        "clip": privacy.clip,
        "epsilon": epsilon,
        "delta": privacy.delta or NOMINAL_DELTA,
        "sampling_rate": 1.0,
        "steps": 1,
    }


def _breaks_promise(receipt: Receipt, rounds: int) -> bool:
    body = receipt.body
    if body["epsilon"] == "inf":
        return False
    try:
        return _whole_run(receipt.event, rounds, body["delta"]) > float(body["epsilon"])
    except PrivacyError:
        return True


@lru_cache(maxsize=4096)
def _whole_run(event: Any, rounds: int, delta: float) -> float:
    return Spending.of(repeated(event, rounds)).epsilon(delta)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
