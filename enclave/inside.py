"""What runs inside: one process, which answers a challenge or rehearses rounds. ``python -m quire.enclave.inside``.

``--answer``: reads a challenge from standard input, makes the silo's key if there is none yet, and writes an answer:
the public key, and a quote that names it. Else its arguments are settings, and it runs a small federation with them in
this one process, as ``quire run`` does: every fork would be an enclave of its own.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

from quire.clients.identity import load_identity, new_identity
from quire.enclave.errors import EnclaveError
from quire.enclave.quotes import POLICY_SIZE, report_data
from quire.enclave.verify import MAX_FILE, Answer, Challenge
from quire.errors import QuireError

ANSWER = "--answer"
BANNER = "NO CONFIDENTIALITY, NO ATTESTATION"
KEYS = Path("/silo/keys")
#: Gramine's own files; outside of SGX those of attestation are not there.
DEVICE = Path("/dev/attestation")


def attestable(device: Path = DEVICE) -> bool:
    """Say whether this process can prove anything about itself."""
    return (device / "quote").exists()


def quote_for(data: bytes, device: Path = DEVICE) -> bytes:
    """Ask the processor for a quote.

    Parameters
    ----------
    data : bytes
        The 64 bytes of report data.
    device : pathlib.Path

    Raises
    ------
    EnclaveError
        If it is not given.
    """
    try:
        (device / "user_report_data").write_bytes(data)
        return (device / "quote").read_bytes()
    except OSError as error:
        raise EnclaveError(f"The enclave was given no quote: {error.strerror}; see `quire enclave doctor`.") from error


def answer(challenge: Challenge, keys: Path = KEYS, device: Path = DEVICE) -> Answer:
    """Answer a challenge: with the key of this enclave, made now if there is none, and a quote where there can be one.

    Raises
    ------
    QuireError
        If the key cannot be made or read, or no quote is given where there should be one.
    """
    place = keys / "identity.key"
    identity = load_identity(place).public if place.exists() else new_identity(place, "silo")
    if not attestable(device):
        return Answer(identity, None)
    return Answer(identity, quote_for(report_data(identity, challenge.nonce, challenge.policy), device))


def rehearse(overrides: str) -> str:
    """Run a federation in this process, in a folder that is forgotten; return the fingerprint of its model.

    Raises
    ------
    QuireError
        If the settings are refused, or the run had to stop.
    """
    from quire.simulation.inline import run

    with tempfile.TemporaryDirectory(prefix="quire-") as folder:
        return run(overrides, Path(folder) / "run").model


def _answer() -> Answer:
    if os.environ.get("QUIRE_ENCLAVE") == "trace":  # only to be seen opening what it opens
        with tempfile.TemporaryDirectory(prefix="quire-") as keys:
            return answer(Challenge.new(bytes(POLICY_SIZE), 0), Path(keys))
    return answer(Challenge.decode(sys.stdin.buffer.read(MAX_FILE + 1)))


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit status."""
    say = sys.stderr.write
    if not attestable():
        say(f"{BANNER}: this process runs in no attested enclave ({os.environ.get('QUIRE_ENCLAVE', 'no enclave')}).\n")
    try:
        if arguments == [ANSWER]:
            if not attestable():
                say(f"{BANNER}: nothing is sealed here; the key is an ordinary file, for its owner alone (0600).\n")
            sys.stdout.write(_answer().encode().decode())
        else:
            logging.getLogger().setLevel(logging.WARNING)
            sys.stdout.write(f"rehearsed; model {rehearse(' '.join(arguments))}\n")
    except QuireError as error:
        say(f"quire: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
