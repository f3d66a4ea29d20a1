"""What a charter demands of enclaves: whose have to be attested, and which are good enough.

::

    attestation:
      of: [silos, server]              # whose
      measurements: ["5f3c..."]        # MRENCLAVE, as `quire enclave measure` prints it
      signed_measurements: [{measurement: "5f3c...", signer: "0b7a..."}]
      signers: [{signer: "0b7a...", product: 1, version: 3}]      # of at least this version
      statuses: [UpToDate]             # of the platform; this alone where it is left out
      advisories: [INTEL-SA-00615]     # which may apply all the same; none where it is left out
      days: 90                         # for which a verification counts
      root: "a1b2..."                  # for tests alone: another root than Intel's

What is demanded is held against what the roster records (:mod:`quire.privacy.identity.attested`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quire.charter.errors import CharterError
from quire.privacy.identity.attested import INTEL, Attested, is_advisory, is_digest, is_root, is_status
from quire.privacy.identity.roster import fields

SILOS, SERVER = "silos", "server"
MAX_LISTED = 256
DAYS, MAX_DAYS = 90, 3650
_DAY = 86_400
_AHEAD = 3600  # seconds by which the clock of whoever verified may be ahead


@dataclass(frozen=True)
class Attestation:
    """A demand.

    Attributes
    ----------
    of : frozenset of str
        ``silos``, ``server``, or both.
    measurements : frozenset of str
    signed : frozenset of tuple of str
        Measurements, each with the signer that it must have.
    signers : frozenset of tuple
        Signer, product, least version.
    statuses, advisories : frozenset of str
    days : int
        For which a verification counts.
    root : str
        ``intel``, or the hash of another root, for tests.

    Raises
    ------
    CharterError
        If it contradicts itself, or lets in nothing.
    """

    of: frozenset[str]
    measurements: frozenset[str] = frozenset()
    signed: frozenset[tuple[str, str]] = frozenset()
    signers: frozenset[tuple[str, int, int]] = frozenset()
    statuses: frozenset[str] = frozenset({"UpToDate"})
    advisories: frozenset[str] = frozenset()
    days: int = DAYS
    root: str = INTEL

    def __post_init__(self) -> None:
        if not self.of or self.of - {SILOS, SERVER}:
            raise CharterError(f"'attestation' is of {SILOS}, of {SERVER}, or of both.")
        if not (self.measurements or self.signed or self.signers):
            raise CharterError("'attestation' lets in nothing: give measurements, signed_measurements or signers.")
        listed = (self.measurements, self.signed, self.signers, self.statuses, self.advisories)
        if max(map(len, listed)) > MAX_LISTED or not self.statuses:
            raise CharterError(f"The lists of 'attestation' have at most {MAX_LISTED} entries, and one status or more.")
        digests = [
            *self.measurements,
            *(text for pair in self.signed for text in pair),
            *(s for s, _, _ in self.signers),
        ]
        if not all(map(is_digest, digests)):
            raise CharterError("A measurement or signer in 'attestation' is not 64 hexadecimal digits in lower case.")
        if not all(type(n) is int and 0 <= n < 2**16 for _, *numbers in self.signers for n in numbers):
            raise CharterError("Products and versions in 'attestation' are whole numbers below 65536.")
        if not all(map(is_status, self.statuses)) or not all(map(is_advisory, self.advisories)):
            raise CharterError("In 'attestation' a status is a word as UpToDate, an advisory is as INTEL-SA-00615.")
        if type(self.days) is not int or not 1 <= self.days <= MAX_DAYS:
            raise CharterError(f"'days' of 'attestation' must be a whole number from 1 to {MAX_DAYS}.")
        if not is_root(self.root):
            raise CharterError("'root' of 'attestation' must be 'intel' or the hash of another root.")

    @property
    def silos(self) -> bool:
        """Whether every silo has to be attested."""
        return SILOS in self.of

    @property
    def server(self) -> bool:
        """Whether the server has to be."""
        return SERVER in self.of

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, its lists in order."""
        return {
            "of": sorted(self.of),
            "measurements": sorted(self.measurements),
            "signed_measurements": [{"measurement": one, "signer": by} for one, by in sorted(self.signed)],
            "signers": [{"signer": by, "product": of, "version": least} for by, of, least in sorted(self.signers)],
            "statuses": sorted(self.statuses),
            "advisories": sorted(self.advisories),
            "days": self.days,
            "root": self.root,
        }

    @classmethod
    def from_json(cls, value: Any) -> Attestation:
        """Read what :meth:`to_json` returned.

        Raises
        ------
        CharterError, BadEncoding
            If it has another form. That lists are in order, whoever reads the charter finds out.
        """
        lists = ("of", "measurements", "signed_measurements", "signers", "statuses", "advisories")
        found = fields(value, "demand for attestation", {**dict.fromkeys(lists, list), "days": int, "root": str})
        for name in ("of", "measurements", "statuses", "advisories"):
            if not all(isinstance(one, str) for one in found[name]):
                raise CharterError(f"'{name}' of 'attestation' must be a list of texts.")
        pairs = [fields(one, "signed measurement", {"measurement": str, "signer": str}) for one in found[lists[2]]]
        signers = [fields(one, "signer", {"signer": str, "product": int, "version": int}) for one in found["signers"]]
        return cls(
            of=frozenset(found["of"]),
            measurements=frozenset(found["measurements"]),
            signed=frozenset((one["measurement"], one["signer"]) for one in pairs),
            signers=frozenset((one["signer"], one["product"], one["version"]) for one in signers),
            statuses=frozenset(found["statuses"]),
            advisories=frozenset(found["advisories"]),
            days=found["days"],
            root=found["root"],
        )

    def objection(self, attested: Attested | None, policy: str, now: int) -> str | None:
        """Say why a record is not good enough; None if it is.

        Parameters
        ----------
        attested : Attested or None
            What the roster records, if anything.
        policy : str
            What its quote has to name: the hash of the charter's first version.
        now : int
            Seconds since 1970 UTC.
        """
        if attested is None:
            return "has no attested enclave"
        if attested.root != self.root:
            return f"was verified up to the root {attested.root[:16]}, and {self.root[:16]} is asked for"
        if attested.policy != policy:
            return f"has a quote for another charter ({attested.policy[:16]})"
        if attested.verified - now > _AHEAD:
            return "was verified at a time that is still to come, by this clock"
        if now - attested.verified > self.days * _DAY:
            return f"was last verified more than {self.days} days ago"
        if not self._lets_in(attested):
            which = f"the enclave {attested.measurement[:16]} of the signer {attested.signer[:16]}"
            return f"runs {which}, which is not listed"
        if attested.status not in self.statuses:
            return f"has a platform whose state is {attested.status}"
        if unknown := sorted(set(attested.advisories) - self.advisories):
            return f"has a platform to which {', '.join(unknown)} applies"
        return None

    def _lets_in(self, one: Attested) -> bool:
        return (
            one.measurement in self.measurements
            or (one.measurement, one.signer) in self.signed
            or any(
                (one.signer, one.product) == (signer, product) and one.version >= least
                for signer, product, least in self.signers
            )
        )
