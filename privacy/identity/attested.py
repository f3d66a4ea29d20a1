"""What a roster records of an enclave that was attested: whose key it made, which code it runs, on what platform.

The record is what the admins of a roster sign when they have verified a quote; the quote itself, with the collateral
that it was held against, is kept by whoever verified, and the record names both by one hash. Who reads a roster takes
the admins' word for it, as for everything else in it, or asks them for the evidence and verifies again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from quire.privacy.identity.errors import BadEncoding, RosterError
from quire.privacy.identity.keys import PublicIdentity

#: The root that Intel's processors end at; any other is named by the SHA-256 of its certificate, and is for tests.
INTEL = "intel"
MAX_ADVISORIES = 64
#: A time that has a date; see :class:`datetime.date`.
YEAR_10000 = 253_402_300_800
_HASH = re.compile(r"[0-9a-f]{64}")
_STATUS = re.compile(r"[A-Za-z]{1,40}")
_ADVISORY = re.compile(r"INTEL-SA-[0-9]{5}")


@dataclass(frozen=True)
class Attested:
    """An enclave, as somebody verified it.

    Attributes
    ----------
    measurement, signer : str
        MRENCLAVE and MRSIGNER, 64 hexadecimal digits each.
    product, version : int
        ISVPRODID and ISVSVN.
    status : str
        The state of the platform, in Intel's word.
    advisories : tuple of str
        Intel's advisories that apply, sorted.
    policy : str
        The hash in the quote's report data: the charter's, of its first version.
    verified : int
        When, in seconds since 1970 UTC.
    evidence : str
        SHA-256 over challenge, answer and collateral.
    root : str
        ``intel``, or the hash of another root.

    Raises
    ------
    RosterError
        If a part has another form.
    """

    measurement: str
    signer: str
    product: int
    version: int
    status: str
    advisories: tuple[str, ...]
    policy: str
    verified: int
    evidence: str
    root: str = INTEL

    def __post_init__(self) -> None:
        for name in ("measurement", "signer", "policy", "evidence"):
            if not is_digest(getattr(self, name)):
                raise RosterError(f"'{name}' of an attested enclave must be 64 hexadecimal digits in lower case.")
        for name in ("product", "version"):
            if type(getattr(self, name)) is not int or not 0 <= getattr(self, name) < 2**16:
                raise RosterError(f"'{name}' of an attested enclave must be a whole number below 65536.")
        if type(self.verified) is not int or not 0 <= self.verified < YEAR_10000:
            raise RosterError("'verified' of an attested enclave must be a time in seconds since 1970.")
        if not isinstance(self.status, str) or not _STATUS.fullmatch(self.status):
            raise RosterError("'status' of an attested enclave must be a word of Intel's, as UpToDate.")
        if not is_root(self.root):
            raise RosterError("'root' of an attested enclave must be 'intel' or the hash of another root.")
        listed = self.advisories
        if len(listed) > MAX_ADVISORIES or list(listed) != sorted(set(listed)) or not all(map(is_advisory, listed)):
            raise RosterError("'advisories' of an attested enclave must be sorted, each once, as INTEL-SA-00615.")

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**vars(self), "advisories": list(self.advisories)}

    @classmethod
    def from_json(cls, value: Any) -> Attested:
        """Read what :meth:`to_json` returned.

        Raises
        ------
        BadEncoding
            If it has another form.
        RosterError
            If a part of it has.
        """
        names = {one.name for one in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise BadEncoding(f"An attested enclave has exactly the keys {', '.join(sorted(names))}.")
        listed = value["advisories"]
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise BadEncoding("'advisories' must be a list of texts.")
        return cls(**{**value, "advisories": tuple(listed)})


@dataclass(frozen=True)
class Aggregator:
    """The server that merges, where it was attested: the key that signs its transparency logs was made inside."""

    identity: PublicIdentity
    attested: Attested

    def refuse_shared(self, others: Iterable[PublicIdentity]) -> None:
        """Refuse a key that a member or an admin has: whoever runs a silo could sign the server's logs with it.

        Raises
        ------
        RosterError
            If one of theirs is the same.
        """
        for other in others:
            second = other.mldsa65 is not None and other.mldsa65 == self.identity.mldsa65
            if other.ed25519 == self.identity.ed25519 or second:
                raise RosterError(
                    f"The attested server has the key {self.identity.fingerprint[:16]}, which a member or an admin "
                    "has as well: record the answer of the server's own enclave."
                )


def is_digest(value: object) -> bool:
    """Say whether this is 64 hexadecimal digits in lower case."""
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def is_root(value: object) -> bool:
    """Say whether this names a root."""
    return value == INTEL or is_digest(value)


def is_advisory(value: object) -> bool:
    """Say whether this names one of Intel's advisories."""
    return isinstance(value, str) and bool(_ADVISORY.fullmatch(value))


def is_status(value: object) -> bool:
    """Say whether this can be Intel's word for the state of a platform."""
    return isinstance(value, str) and bool(_STATUS.fullmatch(value))
