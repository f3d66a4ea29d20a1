"""``quire enclave record``: an answer verified against a charter, as what a roster takes in."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quire.clients.identity import Aggregator


def record(
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="What the enclave answered.")],
    collateral: Annotated[Path, typer.Option(metavar="FILE", help="Intel's collateral for the platform, as JSON.")],
    challenge: Annotated[Path, typer.Option(metavar="FILE", help="The challenge that it answers.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the record goes: a new file.")],
    charter: Annotated[
        Path | None, typer.Option(metavar="CHARTER", help="The charter that demands attestation: its folder, or file.")
    ] = None,
    allow: Annotated[Path | None, typer.Option(metavar="FILE", help="Without a charter: which are allowed.")] = None,
    at: Annotated[int | None, typer.Option(metavar="SECONDS", min=0, help="Verify as of this Unix time.")] = None,
    root: Annotated[Path | None, typer.Option(metavar="DER", help="Another root than Intel's, for tests.")] = None,
) -> None:
    """At an admin of the roster: verify an answer, and write what `quire roster create --attested` takes in.

    \b
    quire enclave record answer.json --charter charter --challenge challenge.json --collateral pck.json --out a.json
    """
    import hashlib

    from quire.clients.identity import INTEL
    from quire.enclave.chain import MAX_COLLATERAL, collateral_of, dcap_chain
    from quire.enclave.errors import EnclaveError
    from quire.enclave.files import write_whole
    from quire.enclave.policy import read_allowed
    from quire.enclave.record import Demand, attest, demand_of, encode
    from quire.enclave.verify import MAX_FILE, Answer, Challenge
    from quire.enclave_cli import read

    if (charter is None) == (allow is None):
        raise EnclaveError("Give --charter, or --allow with a list of your own.")
    if os.path.lexists(out):
        raise EnclaveError(f"{out} exists; choose a new name.")
    other = None if root is None else read(root, MAX_FILE)
    if charter is not None:
        demand = demand_of(charter)
    else:
        named = INTEL if other is None else hashlib.sha256(other).hexdigest()
        demand = Demand(read_allowed(allow or Path()), None, named)
    found = attest(
        Answer.decode(read(answer, MAX_FILE + 1)),
        Challenge.decode(read(challenge, MAX_FILE + 1)),
        demand,
        collateral_of(read(collateral, MAX_COLLATERAL + 1)),
        int(time.time()) if at is None else at,
        dcap_chain(other),
        other,
    )
    write_whole(out, encode(found))
    typer.echo(
        f"{out}: {found.identity}\nmeasurement  {found.attested.measurement}\nsigner       {found.attested.signer}"
        f"\nplatform     {found.attested.status}\nCompare the fingerprint with the silo's people, keep challenge, "
        "answer and collateral, then: quire roster create --attested NAME=FILE"
    )
    if other is not None:
        typer.echo("root         the one that was given, NOT INTEL'S: this proves nothing about any processor")


def records_of(pairs: dict[str, str]) -> dict[str, Aggregator]:
    """Read the records that ``--attested NAME=FILE`` names."""
    return {name: record_in(Path(place)) for name, place in pairs.items()}


def record_in(place: Path) -> Aggregator:
    """Read a record that :func:`record` wrote."""
    from quire.enclave.record import MAX_BYTES, decode
    from quire.enclave_cli import read

    return decode(read(place, MAX_BYTES + 1), str(place))
