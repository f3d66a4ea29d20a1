"""What a silo states about a request for erasure: a signed attestation. Not a proof, and it says so itself.

A silo cannot prove what it did with its rows, nor take back what models have learned from them. It can sign what it
says it did, so that it can be held to that. The document is ``{"body": ..., "signature": hex, "signer": fingerprint}``
in the one spelling of :func:`quire.privacy.signed_body.canonical`. It names no subject: who holds the number of the
request knows whom it is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quire.privacy.approval import is_reason
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.identity.roster import is_hash
from quire.privacy.signed_body import SignedBody, canonical

MAX_BYTES = 1 << 20
MAX_RUNS = 4096

#: What every attestation says, word for word.
STATEMENT = (
    "An attestation, not a proof. By the silo's own record its rows of the subject were left out of every round that "
    "it trained after the request. The runs listed were trained on them before; models that came of those runs, and "
    "whatever was made of them, may still hold what they learned. The silo cannot tell what other silos hold."
)

_FORMAT = "quire-erasure-1"
_KEYS = {
    "format",
    "silo",
    "request",
    "requested",
    "attested",
    "rounds",
    "runs",
    "continued",
    "unknown",
    "said",
    "statement",
}
_RUN_KEYS = {"run", "simulated", "first", "last", "clean", "model"}
_NUMBER = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
_RUN = re.compile(r"[0-9]{1,20}")
_MAX_NAME = 100
_LIMIT = 2**53


class ErasureAttestationError(PrivacyError):
    """Bytes that are no attestation, or one that is not signed as it has to be."""


@dataclass(frozen=True)
class TouchedRun:
    """A run that was trained on the subject.

    Attributes
    ----------
    run : str
        Flower's number of the run.
    simulated : bool
    first, last : int
        The first and the last round that was.
    clean : int or None
        The round after which its model was last without the silo's rows of the subject; None if none is known.
    model : str
        SHA-256 (hex) of the model that round ``first`` began with.
    """

    run: str
    simulated: bool
    first: int
    last: int
    clean: int | None
    model: str


@dataclass(frozen=True)
class ErasureAttestation(SignedBody):
    """What a silo says it did about a request. Having one says nothing yet; :meth:`check` does.

    Attributes
    ----------
    body : mapping
        ``silo``; ``request``, its number; ``requested`` and ``attested``, when (UTC); ``rounds``, how many the silo has
        trained since, all without the subject; ``runs``, as :class:`TouchedRun`; ``continued``, numbers of runs that
        were not trained on the subject but may have gone on with a model of one that was; ``unknown``, numbers of
        runs of which the silo cannot tell in all rounds, for it knew rows by another column then; ``said``, the
        operator's own words about what else was done, or None; ``statement``, :data:`STATEMENT`.
    signature : bytes
    signer : str
        Fingerprint of who is said to have signed.
    """

    TAG: ClassVar[str] = "quire/erasure/1"
    ERROR: ClassVar[type[PrivacyError]] = ErasureAttestationError

    @classmethod
    def sign(
        cls,
        silo: str,
        request: str,
        times: tuple[str, str],
        rounds: int,
        runs: tuple[Sequence[TouchedRun], Sequence[str], Sequence[str]],
        said: str | None,
        identity: PrivateIdentity,
    ) -> ErasureAttestation:
        """Attest.

        Parameters
        ----------
        silo, request : str
        times : tuple of str
            When it was requested and when this is attested: ``2026-11-22T04:30:00+00:00``.
        rounds : int
        runs : tuple of (sequence of TouchedRun, sequence of str, sequence of str)
            Those that were trained on the subject, those that may have gone on with a model of one that was, and those
            of which the silo cannot tell.
        said : str or None
            One line of at most 500 printable characters.
        identity : PrivateIdentity
            The silo's.

        Raises
        ------
        ErasureAttestationError
            If a field says what it cannot say.
        """
        about = {"silo": silo, "request": request, "requested": times[0], "attested": times[1], "rounds": rounds}
        listed = {"runs": [vars(run) for run in runs[0]], "continued": list(runs[1]), "unknown": list(runs[2])}
        body = {**about, **listed, "format": _FORMAT, "said": said, "statement": STATEMENT}
        _check_body(body)
        return cls(body, identity.sign(cls.TAG, canonical(body)), identity.public.fingerprint)

    @classmethod
    def decode(cls, data: bytes) -> ErasureAttestation:
        """Read an attestation, strictly; no signature is checked.

        Raises
        ------
        ErasureAttestationError
            If the bytes are anything but what :meth:`encode` writes.
        """
        if len(data) > MAX_BYTES:
            raise ErasureAttestationError(f"An attestation of an erasure has at most {MAX_BYTES} bytes.")
        try:
            value = json.loads(data.decode("ascii"))
            if not isinstance(value, dict) or set(value) != {"body", "signature", "signer"}:
                raise ValueError("other keys")
            if not isinstance(value["signer"], str) or not is_hash(value["signer"]):
                raise ValueError("no fingerprint")
            found = cls(value["body"], bytes.fromhex(value["signature"]), value["signer"])
            if found.encode() != data:
                raise ValueError("another spelling")
        except (AttributeError, TypeError, ValueError, RecursionError):
            raise ErasureAttestationError("These bytes are no attestation of an erasure.") from None
        _check_body(value["body"])
        return found


def _check_body(body: Any) -> None:
    if not isinstance(body, dict) or set(body) != _KEYS or body["format"] != _FORMAT:
        raise ErasureAttestationError("An attestation of an erasure has other fields.")
    silo, said, runs = body["silo"], body["said"], body["runs"]
    good = (
        isinstance(silo, str) and 0 < len(silo) <= _MAX_NAME and silo.isprintable(),
        _matches(_NUMBER, body["request"]),
        _matches(_TIME, body["requested"]) and _matches(_TIME, body["attested"]),
        _count(body["rounds"], 0),
        said is None or (isinstance(said, str) and is_reason(said)),
        body["statement"] == STATEMENT,
        isinstance(runs, list) and len(runs) <= MAX_RUNS and all(_is_run(run) for run in runs),
        *(_are_numbers(body[key]) for key in ("continued", "unknown")),
    )
    if not all(good):
        raise ErasureAttestationError("An attestation of an erasure says something that it cannot say.")


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_RUNS and all(_matches(_RUN, run) for run in value)


def _is_run(run: Any) -> bool:
    if not isinstance(run, dict) or set(run) != _RUN_KEYS or type(run["simulated"]) is not bool:
        return False
    if not _matches(_RUN, run["run"]) or not isinstance(run["model"], str) or not is_hash(run["model"]):
        return False
    first, last, clean = run["first"], run["last"], run["clean"]
    return _count(first, 1) and _count(last, first) and (clean is None or (_count(clean, 1) and clean == first - 1))


def _count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < _LIMIT


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))
