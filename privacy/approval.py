"""What a silo's operator decides about one run: a hash that binds it to that run, and a signed statement of it.

The hash is over Flower's number of the run, the code, the settings and the pinned roster: a decision is for these and
for nothing else. A statement is one JSON document ``{"body": ..., "signature": hex, "signer": fingerprint}`` in the
one spelling of :func:`quire.privacy.signed_body.canonical`. It holds everything that the hash is over, so that whoever
knows the silo's public keys checks it with nothing else at hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.identity.roster import is_hash
from quire.privacy.signed_body import SignedBody, canonical

APPROVED, REJECTED = "approved", "rejected"
DECISIONS = (APPROVED, REJECTED)

#: Characters of a reason.
MAX_REASON = 500
MAX_BYTES = 16_384

_RUN_TAG, _FORMAT = "quire/approval/run/1", "quire-approval-1"
_KEYS = {"format", "run", "code", "settings", "roster", "silo", "decision", "time", "reason"}
_MAX_NAME = 100


class ApprovalStatementError(PrivacyError):
    """Bytes that are no statement of a decision, or one that is not signed as it has to be."""


@dataclass(frozen=True)
class Binding:
    """The run that a decision is about.

    Attributes
    ----------
    run : str
        Flower's number of the run.
    code : str
        SHA-256 (hex) of the code that runs in silo and server.
    settings : str
        SHA-256 (hex) of the settings (:func:`quire.privacy.receipts.settings_hash`): task, privacy, aggregation,
        rounds, cohort and all else but what the launcher keeps for itself.
    roster : str or None
        SHA-256 (hex) of the roster that the silo has pinned; None where it has pinned none.
    """

    run: str
    code: str
    settings: str
    roster: str | None

    @property
    def hash(self) -> str:
        """The SHA-256 (hex) that a decision is bound to."""
        roster = b"" if self.roster is None else bytes.fromhex(self.roster)
        parts = (self.run.encode(), bytes.fromhex(self.code), bytes.fromhex(self.settings), roster)
        return tagged_hash(_RUN_TAG, *parts).hex()


@dataclass(frozen=True)
class Statement(SignedBody):
    """A decision as it travels. Having one says nothing yet; :meth:`check` does.

    Attributes
    ----------
    body : mapping
        The fields of :class:`Binding`; ``silo``; ``decision``, one of :data:`DECISIONS`; ``time``, in seconds since
        1970 UTC; ``reason``, None unless the operator lets it travel.
    signature : bytes
    signer : str
        Fingerprint of who is said to have signed.
    """

    TAG: ClassVar[str] = "quire/approval/1"
    ERROR: ClassVar[type[PrivacyError]] = ApprovalStatementError

    @classmethod
    def sign(
        cls, binding: Binding, silo: str, decision: str, time: int, reason: str | None, identity: PrivateIdentity
    ) -> Statement:
        """State a decision.

        Raises
        ------
        ApprovalStatementError
            If a field says what it cannot say.
        """
        told = {"run": binding.run, "code": binding.code, "settings": binding.settings, "roster": binding.roster}
        body = {**told, "format": _FORMAT, "silo": silo, "decision": decision, "time": time, "reason": reason}
        _check_body(body)
        return cls(body, identity.sign(cls.TAG, canonical(body)), identity.public.fingerprint)

    @classmethod
    def decode(cls, data: bytes) -> Statement:
        """Read a statement, strictly; no signature is checked.

        Raises
        ------
        ApprovalStatementError
            If the bytes are anything but what :meth:`encode` writes.
        """
        if len(data) > MAX_BYTES:
            raise ApprovalStatementError(f"A statement of a decision has at most {MAX_BYTES} bytes, not {len(data)}.")
        try:
            value = json.loads(data.decode("ascii"))
            if not isinstance(value, dict) or set(value) != {"body", "signature", "signer"}:
                raise ValueError("other keys")
            if canonical(value) != data or not _digest(value["signer"]):
                raise ValueError("another spelling")
            signature = bytes.fromhex(value["signature"])
            found = cls(value["body"], signature, value["signer"])
            if found.encode() != data:  # hexadecimal digits have more than one spelling
                raise ValueError("another spelling")
        except (AttributeError, TypeError, ValueError, RecursionError):
            raise ApprovalStatementError("These bytes are no statement of a decision.") from None
        _check_body(value["body"])
        return found

    @property
    def binding(self) -> Binding:
        """The run that it is about."""
        return Binding(self.body["run"], self.body["code"], self.body["settings"], self.body["roster"])


def is_reason(text: str) -> bool:
    """Tell whether a text can be a reason: one line of 1 to :data:`MAX_REASON` printable characters."""
    return bool(text.strip()) and len(text) <= MAX_REASON and text.isprintable()


def _digest(value: Any) -> bool:
    return isinstance(value, str) and is_hash(value)


def _check_body(body: Any) -> None:
    if not isinstance(body, dict) or set(body) != _KEYS or body["format"] != _FORMAT:
        raise ApprovalStatementError("A statement of a decision has other fields.")
    run, silo, reason = body["run"], body["silo"], body["reason"]
    good = (
        isinstance(run, str) and 0 < len(run) <= _MAX_NAME and run.isascii() and run.isdecimal(),
        _digest(body["code"]) and _digest(body["settings"]) and (body["roster"] is None or _digest(body["roster"])),
        isinstance(silo, str) and 0 < len(silo) <= _MAX_NAME and silo.isprintable(),
        body["decision"] in DECISIONS,
        type(body["time"]) is int and 0 <= body["time"] < 2**53,
        reason is None or (isinstance(reason, str) and is_reason(reason)),
    )
    if not all(good):
        raise ApprovalStatementError("A statement of a decision says something that it cannot say.")
