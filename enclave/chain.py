"""The lowest layer of verification: signatures, certificates, revocation lists and TCB levels, by ``dcap-qvl``.

It holds a quote against collateral that Intel signed: certificates, revocation lists, which processors' microcode is
up to date. Nothing here asks the network: whoever verifies brings the collateral, and a moment in time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quire.enclave.errors import EnclaveError, QuoteRefused
from quire.text import TEXT, visible

#: The states of a platform that Intel's collateral knows and that are not final.
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
MAX_COLLATERAL = 1024 * 1024
_FIELDS = {
    *("pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info", "tcb_info_signature"),
    *("qe_identity_issuer_chain", "qe_identity", "qe_identity_signature"),
}
# What dcap-qvl says of certificates, lists or collateral whose time is over, or has not come.
_TIME = ("expired", "NotValidYet", "issue date is in the future")


@dataclass(frozen=True)
class Platform:
    """What the chain says about the machine.

    Attributes
    ----------
    status : str
        One of :data:`STATUSES`, or a word that no policy knows and so none accepts.
    advisories : tuple of str
        Intel's advisories that apply, sorted.
    """

    status: str
    advisories: tuple[str, ...]


Chain = Callable[[bytes, str, int], Platform]


def collateral_of(data: bytes) -> str:
    """Check that bytes are collateral in form: JSON with nine texts, as ``dcap-qvl`` writes it.

    Raises
    ------
    EnclaveError
        If they are not.
    """
    words = "; it is JSON with " + ", ".join(sorted(_FIELDS)) + "."
    if len(data) > MAX_COLLATERAL:
        raise EnclaveError(f"Collateral has at most {MAX_COLLATERAL} bytes, this file has {len(data)}.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise EnclaveError("This is not collateral" + words) from None
    if not isinstance(found, dict) or set(found) - {"pck_certificate_chain"} != _FIELDS:
        raise EnclaveError("This is not collateral" + words)
    if not all(isinstance(found[name], str) for name in _FIELDS):
        raise EnclaveError("This is not collateral" + words)
    # The chain is taken from the quote alone, where the quoting enclave put it.
    return json.dumps({name: found[name] for name in sorted(_FIELDS)})


def dcap_chain(root: bytes | None = None) -> Chain:
    """Return the verification of ``dcap-qvl``.

    Parameters
    ----------
    root : bytes or None
        A root certificate (DER) in the place of Intel's: for tests, which make a chain of their own.

    Raises
    ------
    EnclaveError
        If ``dcap-qvl`` is not installed.
    """
    try:
        import dcap_qvl
    except ImportError:
        raise EnclaveError(
            "Quotes are verified with dcap-qvl, which is not installed; run: pip install 'quire[enclave]'."
        ) from None

    def chain(raw: bytes, collateral: str, now: int) -> Platform:
        try:
            parsed = dcap_qvl.QuoteCollateralV3.from_json(collateral)
            if root is None:
                found = dcap_qvl.verify(raw, parsed, now)
            else:
                found = dcap_qvl.verify_with_root_ca(raw, parsed, root, now)
        except ValueError as error:
            raise _refused(str(error)) from None
        return Platform(_text(found.status), tuple(sorted(map(_text, found.advisory_ids))))

    return chain


def _text(value: Any) -> str:
    return str(value)


def _refused(words: str) -> QuoteRefused:
    words = visible(" ".join(words.removeprefix("Verification failed: ").split()), TEXT).rstrip(".")
    if "Debug mode" in words:
        return QuoteRefused("debug", "The enclave runs in debug mode: whoever owns the machine can read it.")
    if "TCB status is invalid" in words or "CertRevoked" in words:
        return QuoteRefused("revoked", f"The platform, or a certificate of it, is revoked: {words}.")
    if any(mark.lower() in words.lower() for mark in _TIME):
        return QuoteRefused("time", f"Certificates or collateral are not valid at this time: {words}.")
    return QuoteRefused("chain", f"The chain from the quote to the root does not hold: {words}.")
