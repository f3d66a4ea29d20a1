"""From an answer that was verified to what a roster records: made by the admins' own program, and kept as a file.

The file is one canonical JSON document: the keys that the enclave made, and the record. It proves nothing to anybody
else; what makes it count is the signature of the roster's admins who verified, and take it in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.charter.attestation import Attestation
from quire.charter.chain import read_chain
from quire.clients.gate.mark import BANNER
from quire.enclave.chain import Chain
from quire.enclave.errors import EnclaveError, QuoteRefused
from quire.enclave.policy import DEFAULT_AGE, Allowed, Signer
from quire.enclave.verify import Answer, Challenge, verify
from quire.privacy.identity.attested import INTEL, Aggregator, Attested
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import fields

FORMAT = "quire-attested-1"
TAG = "quire/enclave/evidence/1"
MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Demand:
    """What is asked for, and of whom: an allow-list, and the hash that a challenge has to name.

    Attributes
    ----------
    allowed : Allowed
    policy : bytes or None
        None: whatever the challenge names.
    root : str
        ``intel``, or the hash of another root.
    """

    allowed: Allowed
    policy: bytes | None
    root: str


def demand_of(charter: Path) -> Demand:
    """Return what a charter demands: the newest version's list, and the hash of the first, which silos pin.

    Raises
    ------
    CharterError
        If it does not hold.
    EnclaveError
        If it demands nothing.
    """
    chain = read_chain(charter)
    found = chain.last.attestation
    if found is None:
        raise EnclaveError(
            f"{charter}: {chain.last.label}, demands no attestation; use --allow with a list of your own."
        )
    return Demand(allowed_of(found), bytes.fromhex(chain.first.hash), found.root)


def allowed_of(demand: Attestation, max_age: int = DEFAULT_AGE) -> Allowed:
    """Return what a charter lets in as quotes are held against it."""
    return Allowed(
        measurements=demand.measurements,
        signers=tuple(Signer(*one) for one in sorted(demand.signers)),
        statuses=demand.statuses,
        advisories=demand.advisories,
        max_age=max_age,
        signed=demand.signed,
    )


def attest(
    answer: Answer, challenge: Challenge, demand: Demand, collateral: str, now: int, chain: Chain, root: bytes | None
) -> Aggregator:
    """Verify an answer, and return keys and record.

    Parameters
    ----------
    answer : Answer
    challenge : Challenge
    demand : Demand
    collateral : str
    now : int
        Seconds since 1970 UTC.
    chain : callable
        See :func:`quire.enclave.chain.dcap_chain`.
    root : bytes or None
        The root that the chain goes up to, as DER; None: Intel's.

    Raises
    ------
    QuoteRefused
        If the answer proves nothing.
    EnclaveError
        If the challenge is for another charter, or the root is another than the charter's.
    """
    used = INTEL if root is None else hashlib.sha256(root).hexdigest()
    if used != demand.root:
        raise EnclaveError(f"The charter asks for quotes up to the root {demand.root[:16]}, and --root is {used[:16]}.")
    if demand.policy is not None and challenge.policy != demand.policy:
        raise EnclaveError(
            f"The challenge is for {challenge.policy.hex()[:16]}, and the charter is {demand.policy.hex()[:16]}: draw "
            "one with `quire enclave challenge --charter`."
        )
    if answer.quote is None:
        raise QuoteRefused("malformed", f"There is no quote in this answer: {BANNER}.")
    quote, platform = verify(answer.quote, answer.identity, challenge, demand.allowed, collateral, now, chain)
    evidence = tagged_hash(TAG, challenge.encode(), answer.encode(), collateral.encode()).hex()
    return Aggregator(
        answer.identity,
        Attested(
            *(quote.measurement, quote.signer, quote.product, quote.version, platform.status, platform.advisories),
            *(challenge.policy.hex(), now, evidence, used),
        ),
    )


def encode(found: Aggregator) -> bytes:
    """Return keys and record as a file has them."""
    return dumps({"format": FORMAT, "identity": found.identity.encode().hex(), "attested": found.attested.to_json()})


def decode(data: bytes, where: str) -> Aggregator:
    """Read what :func:`encode` returned.

    Raises
    ------
    EnclaveError
        If it is anything else.
    """
    try:
        keys: dict[str, type | None] = {"format": str, "identity": str, "attested": dict}
        found: dict[str, Any] = fields(loads(data, MAX_BYTES), "record of an attested enclave", keys)
        if found["format"] != FORMAT:
            raise EnclaveError(f"{where} is not in the format {FORMAT}, the only one that this version reads.")
        identity = PublicIdentity.decode(bytes.fromhex(found["identity"]))
        return Aggregator(identity, Attested.from_json(found["attested"]))
    except (IdentityError, ValueError) as error:
        raise EnclaveError(
            f"{where} is no record of an attested enclave, as `quire enclave record` writes it: "
            f"{str(error).rstrip('.')}."
        ) from None
