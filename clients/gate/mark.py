"""How code can tell that a gate let it in, and in what kind of enclave it runs, if in any."""

from __future__ import annotations

import os

#: Set by the gate in the process of approved code, to the hash by which it was approved.
MARK_VARIABLE = "QUIRE_GUARDED"
#: Set in an enclave's manifest, to the profile that it was rendered for.
ENCLAVE_VARIABLE = "QUIRE_ENCLAVE"
DIRECT, SGX = "direct-dev", "sgx-prod"
PROFILES = (DIRECT, SGX)
#: What stands wherever ``direct-dev`` shows up.
BANNER = "NO CONFIDENTIALITY, NO ATTESTATION"


def guarded() -> bool:
    """Say whether a gate checked this code before it was started.

    Notes
    -----
    This is what the code of an honest server says about its silo, for cards and receipts: "no" means that the promise
    holds against an honest-but-curious server only. It proves nothing to anybody else, because code that no gate
    checked can claim what it likes.
    """
    return bool(os.environ.get(MARK_VARIABLE))


def enclave() -> str:
    """Return the profile of the enclave in which this process runs; empty outside of any. It proves nothing either."""
    found = os.environ.get(ENCLAVE_VARIABLE, "")
    return found if found in PROFILES else ""
