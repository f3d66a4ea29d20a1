"""What runs inside: one process, which answers a challenge or rehearses rounds. ``python -m quire.enclave.inside``.

``--answer``: reads a challenge from standard input, makes the silo's key if there is none yet, and writes an answer:
the public key, and a quote that names it. ``--work``: is a silo of a federation, until told to end
(:mod:`quire.enclave.worker`). Else its arguments are settings, and it runs a small federation with them. All of it is
in this one process, and the system is not asked for another: every fork would be an enclave of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from quire.clients.gate.mark import BANNER, ENCLAVE_VARIABLE
from quire.clients.identity import load_identity, new_identity
from quire.enclave.errors import EnclaveError
from quire.enclave.quotes import POLICY_SIZE, report_data
from quire.enclave.verify import MAX_FILE, Answer, Challenge
from quire.errors import QuireError
from quire.text import visible

ANSWER, WORK = "--answer", "--work"
KEYS = Path("/silo/keys")
_STARTS = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn"}
    | {"subprocess.Popen"}
)
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


def one_process() -> None:
    """Refuse, from here on and for good, to start another process: what works then needs none inside either.

    Python's audit hooks (PEP 578) see every way in which Python itself starts one.
    """
    sys.addaudithook(_refuse_processes)


def _refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS:
        raise PermissionError(1, f"an enclave is one process, and {event} would start another")


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise EnclaveError(f"{WORK}: {visible(message, 300)}; it takes --superlink HOST:PORT --silo FILE.")


def _work(arguments: list[str]) -> None:
    from quire.enclave.worker import Connection, end_on_signals, work

    parser = _Arguments(add_help=False, allow_abbrev=False)
    parser.add_argument("--superlink", required=True)
    parser.add_argument("--silo", type=Path, required=True)
    parser.add_argument("--root-certificates", type=Path)
    parser.add_argument("--node-key", type=Path)
    parser.add_argument("--insecure", action="store_true")
    told = parser.parse_args(arguments)
    if told.insecure == (told.root_certificates is not None):
        raise EnclaveError(f"{WORK} needs --root-certificates FILE, or --insecure for a SuperLink without TLS.")
    if not told.silo.is_file():
        raise EnclaveError(f"There is no file {told.silo}: --silo names the silo's own file.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s enclave %(levelname)s: %(message)s")
    one_process()
    work(Connection(told.superlink, told.root_certificates, told.node_key), told.silo.resolve(), end_on_signals())


def _answer() -> Answer:
    if os.environ.get(ENCLAVE_VARIABLE) == "trace":  # only to be seen opening what it opens
        with tempfile.TemporaryDirectory(prefix="quire-") as keys:
            return answer(Challenge.new(bytes(POLICY_SIZE), 0), Path(keys))
    return answer(Challenge.decode(sys.stdin.buffer.read(MAX_FILE + 1)))


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit status."""
    say = sys.stderr.write
    if not attestable():
        say(f"{BANNER}: this process runs in no attested enclave ({os.environ.get(ENCLAVE_VARIABLE, 'no enclave')}).\n")
    try:
        if arguments == [ANSWER]:
            if not attestable():
                say(f"{BANNER}: nothing is sealed here; the key is an ordinary file, for its owner alone (0600).\n")
            sys.stdout.write(_answer().encode().decode())
        elif arguments[:1] == [WORK]:
            _work(arguments[1:])
        else:
            logging.getLogger().setLevel(logging.WARNING)
            sys.stdout.write(f"rehearsed; model {rehearse(' '.join(arguments))}\n")
    except QuireError as error:
        say(f"quire: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
