"""Which enclaves are let in: measurements, signers, states of the platform. A YAML file, read strictly.

::

    measurements: [5f3c...]          # MRENCLAVE, as `quire enclave measure` prints it
    signed_measurements:             # or: a measurement as this key signed it, for enclaves with `seal: signer`
      - {measurement: 5f3c..., signer: 0b7a...}
    signers:                         # or: whatever this key signed for this product, of at least this version
      - {signer: 0b7a..., product: 1, version: 3}
    statuses: [UpToDate, SWHardeningNeeded]
    advisories: [INTEL-SA-00615]     # which may apply all the same; any other refuses
    max_age: 300                     # seconds from challenge to answer

Reasons for which a quote is refused, as fixed words: ``malformed``, ``debug``, ``measurement``, ``report-data``,
``stale``, ``chain``, ``time``, ``revoked``, ``status``, ``advisory``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quire.conf.strict_yaml import Entry, read_yaml
from quire.enclave.chain import STATUSES, Platform
from quire.enclave.errors import QuoteRefused
from quire.enclave.quotes import INITIALISED, Quote

_HEX = re.compile(r"[0-9a-f]{64}")
_ADVISORY = re.compile(r"INTEL-SA-[0-9]{5}")
DEFAULT_AGE = 300


@dataclass(frozen=True)
class Signer:
    """A key whose enclaves are let in: MRSIGNER, ISVPRODID, and the least ISVSVN."""

    signer: str
    product: int
    version: int


@dataclass(frozen=True)
class Allowed:
    """What a quote has to be of; see the module for the file.

    Attributes
    ----------
    measurements : frozenset of str
    signers : tuple of Signer
    statuses : frozenset of str
    advisories : frozenset of str
    max_age : int
        Seconds from challenge to answer.
    signed : frozenset of tuple of str
        Measurements, each with the signer that it must have. Anybody can sign an enclave anew, with the same
        measurement; where it seals for its signer, whoever did can read the key that it answers with.
    """

    measurements: frozenset[str]
    signers: tuple[Signer, ...] = ()
    statuses: frozenset[str] = frozenset({"UpToDate"})
    advisories: frozenset[str] = frozenset()
    max_age: int = DEFAULT_AGE
    signed: frozenset[tuple[str, str]] = frozenset()

    def check_report(self, quote: Quote) -> None:
        """Hold the report against the list.

        Raises
        ------
        QuoteRefused
            If the enclave is in debug mode, or none that is allowed.
        """
        if quote.debug:
            raise QuoteRefused("debug", "The enclave runs in debug mode: whoever owns the machine can read it.")
        if not quote.flags & INITIALISED:
            raise QuoteRefused("malformed", "The report is of an enclave that was never initialised.")
        if quote.measurement in self.measurements or (quote.measurement, quote.signer) in self.signed:
            return
        same = [one for one in self.signers if one.signer == quote.signer and one.product == quote.product]
        if any(quote.version >= one.version for one in same):
            return
        if same:
            least = min(one.version for one in same)
            raise QuoteRefused(
                "measurement", f"The enclave's version (ISVSVN) is {quote.version}; at least {least} is allowed."
            )
        if any(quote.measurement == measurement for measurement, _ in self.signed):
            raise QuoteRefused(
                "measurement",
                f"The measurement {quote.measurement} is allowed, but not as the signer {quote.signer} signed it.",
            )
        raise QuoteRefused(
            "measurement",
            f"Neither the measurement {quote.measurement} nor the signer {quote.signer} with product {quote.product} "
            "is allowed.",
        )

    def check_platform(self, platform: Platform) -> None:
        """Hold the state of the machine against the list.

        Raises
        ------
        QuoteRefused
            If its state is not allowed, or an advisory applies that is not.
        """
        if platform.status not in self.statuses:
            raise QuoteRefused(
                "status",
                f"The platform's TCB status is {platform.status}; allowed: {', '.join(sorted(self.statuses))}.",
            )
        if unknown := sorted(set(platform.advisories) - self.advisories):
            raise QuoteRefused("advisory", f"Advisories apply that are not allowed: {', '.join(unknown)}.")


def read_allowed(path: Path) -> Allowed:
    """Read a file of allowed enclaves.

    Raises
    ------
    DataError
        If it is not as it should be.
    """
    entry = read_yaml(path)
    keys = ("measurements", "signed_measurements", "signers", "statuses", "advisories", "max_age")
    found = entry.mapping(optional=keys)
    measurements = frozenset(_digest(item) for item in found["measurements"].items()) if "measurements" in found else ()
    signers = tuple(map(_signer, found["signers"].items())) if "signers" in found else ()
    pairs = found["signed_measurements"].items() if "signed_measurements" in found else ()
    signed = frozenset(map(_signed, pairs))
    if not measurements and not signed and not signers:
        entry.fail("it allows nothing: give measurements, signed_measurements or signers")
    statuses = frozenset({"UpToDate"})
    if "statuses" in found:
        statuses = frozenset(_one_of(item) for item in found["statuses"].items())
    advisories: frozenset[str] = frozenset()
    if "advisories" in found:
        advisories = frozenset(_advisory(item) for item in found["advisories"].items())
    age = found["max_age"].whole(1, 86400) if "max_age" in found else DEFAULT_AGE
    return Allowed(frozenset(measurements), signers, statuses, advisories, age, signed)


def _digest(entry: Entry) -> str:
    text = entry.text()
    if not _HEX.fullmatch(text):
        entry.fail(f"{entry.key or 'a measurement'} must have 64 hexadecimal digits, in small letters")
    return text


def _signer(entry: Entry) -> Signer:
    found = entry.mapping(required=("signer", "product", "version"))
    return Signer(_digest(found["signer"]), found["product"].whole(0, 65535), found["version"].whole(0, 65535))


def _signed(entry: Entry) -> tuple[str, str]:
    found = entry.mapping(required=("measurement", "signer"))
    return _digest(found["measurement"]), _digest(found["signer"])


def _one_of(entry: Entry) -> str:
    text = entry.text()
    if text not in STATUSES:
        entry.fail(f"there is no such status; there are {', '.join(STATUSES)}")
    return text


def _advisory(entry: Entry) -> str:
    text = entry.text()
    if not _ADVISORY.fullmatch(text):
        entry.fail("an advisory is written as INTEL-SA-00615")
    return text
