"""What runs inside, in one process, as every fork would be an enclave of its own: ``python -m quire.enclave.inside``.

=============  =============================================  ====================================================
argument       standard input                                 what it does
=============  =============================================  ====================================================
``--key``                                                     makes the silo's key if there is none, writes ``.pub``
``--charter``  a charter                                      writes it with the silo's signature
``--install``  files, as `quire enclave pack` writes them     lays them on the desk (:mod:`quire.enclave.desk`)
``--answer``   a challenge                                    writes the public key, and a quote that names it
``--work``                                                    is a silo of a federation (:mod:`quire.enclave.worker`)
settings                                                      runs a small federation with them, as a rehearsal
=============  =============================================  ====================================================
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from quire.clients.gate.mark import BANNER, ENCLAVE_VARIABLE
from quire.clients.gate.mark import SGX as SEALED
from quire.clients.identity.keyfile import write_public
from quire.enclave.desk import FOLDER, MAX_BYTES, SILO_FILE, hold_to_pin, install, own_key, sign_charter
from quire.enclave.errors import EnclaveError
from quire.enclave.quotes import POLICY_SIZE, report_data
from quire.enclave.verify import MAX_FILE, Answer, Challenge
from quire.errors import QuireError
from quire.text import visible

ANSWER, WORK, KEY, CHARTER, INSTALL = "--answer", "--work", "--key", "--charter", "--install"
KEYS, STORE = Path("/silo/keys"), Path("/silo/store")
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


def answer(challenge: Challenge, keys: Path = KEYS, device: Path = DEVICE, store: Path = STORE) -> Answer:
    """Answer a challenge: with the key of this enclave, made now if there is none, and a quote where there can be one.

    Raises
    ------
    QuireError
        If the key cannot be made or read, no quote is given where there should be one, or the challenge is for another
        charter than the silo's file pins.
    """
    hold_to_pin(challenge.policy, store)
    identity = own_key(keys)
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
    parser.add_argument("--silo", type=Path, default=_store() / FOLDER / SILO_FILE)
    parser.add_argument("--root-certificates", type=Path)
    parser.add_argument("--node-key", type=Path)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--rehearse", action="append", default=[])
    told = parser.parse_args(arguments)
    if told.insecure == (told.root_certificates is not None):
        raise EnclaveError(f"{WORK} needs --root-certificates FILE, or --insecure for a SuperLink without TLS.")
    tracing = os.environ.get(ENCLAVE_VARIABLE) == "trace"
    if not told.silo.is_file() and not tracing:
        raise EnclaveError(f"There is no file {told.silo}: --silo names the silo's own file.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s enclave %(levelname)s: %(message)s")
    one_process()
    if tracing:
        seen_working(told.silo, told.rehearse, told.root_certificates)
        return
    connection = Connection(told.superlink, told.root_certificates, told.node_key)
    with suppress(KeyboardInterrupt):  # told to end while nothing was being answered
        work(connection, told.silo.resolve(), end_on_signals())
    signal.setitimer(signal.ITIMER_REAL, 0)


def seen_working(silo: Path, rehearsals: list[str], root: Path | None = None) -> None:
    """Open what the worker would, and end: only to be seen doing so. A silo's own rows are read once.

    Parameters
    ----------
    silo : pathlib.Path
        The silo's own file, where it is outside; what lies on a desk that is sealed is not there yet.
    rehearsals : list of str
        Settings of small federations that are run, a run for each; none: two over made-up rows.
    root : pathlib.Path or None
        The certificates of the server's authority; what lies below /silo is not there yet.
    """
    from quire.clients.data.own import count_rows
    from quire.clients.data.silo_file import SiloFile, read_silo_file
    from quire.enclave.rehearsal import connect_to_nobody, import_all, rehearse_own_rows
    from quire.enclave.worker import root_of

    if root is not None and not root.is_relative_to("/silo"):
        root_of(root)
    import_all()
    connect_to_nobody()
    if not rehearsals:
        rehearse_own_rows()
    for overrides in rehearsals:
        rehearse(overrides)
    if silo.is_file():
        own = read_silo_file(silo)
        if isinstance(own, SiloFile):
            count_rows(own)


def _refuse_unsealed() -> None:
    """Refuse to go on where a manifest for SGX was started without SGX: what it would seal would lie open."""
    if os.environ.get(ENCLAVE_VARIABLE) == SEALED and not attestable():
        raise EnclaveError(
            f"This process was rendered for {SEALED} and is in no enclave, so that nothing would be sealed: start it "
            "with gramine-sgx, or render direct-dev to try things."
        )


def _keys() -> Path:
    return Path(os.environ.get("QUIRE_ENCLAVE_KEYS", KEYS))


def _store() -> Path:
    return Path(os.environ.get("QUIRE_ENCLAVE_STORE", STORE))


def _answer() -> Answer:
    if os.environ.get(ENCLAVE_VARIABLE) == "trace":  # only to be seen opening what it opens
        with tempfile.TemporaryDirectory(prefix="quire-") as keys:
            return answer(Challenge.new(bytes(POLICY_SIZE), 0), Path(keys))
    return answer(Challenge.decode(sys.stdin.buffer.read(MAX_FILE + 1)), _keys(), store=_store())


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit status."""
    say = sys.stderr.write
    if not attestable():
        say(f"{BANNER}: this process runs in no attested enclave ({os.environ.get(ENCLAVE_VARIABLE, 'no enclave')}).\n")
    try:
        _refuse_unsealed()
        if not attestable() and arguments[:1] in ([ANSWER], [KEY], [CHARTER], [INSTALL], [WORK]):
            say(f"{BANNER}: nothing is sealed here; the key is an ordinary file, for its owner alone (0600).\n")
        if arguments == [ANSWER]:
            sys.stdout.write(_answer().encode().decode())
        elif arguments == [KEY]:
            sys.stdout.write(write_public(own_key(_keys()), "silo").decode())
        elif arguments == [CHARTER]:
            sys.stdout.write(sign_charter(sys.stdin.buffer.read(MAX_BYTES + 1), _keys()).decode())
        elif arguments == [INSTALL]:
            names = install(sys.stdin.buffer.read(MAX_BYTES + 1), _store())
            sys.stdout.write(f"on the desk: {', '.join(names)}\n")
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
