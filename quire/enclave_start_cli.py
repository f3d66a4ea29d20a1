"""``quire enclave start|pack``: the silo's command outside, in Gramine or in SGX, and what is laid on its desk."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer


def start(
    settings: Annotated[Path, typer.Argument(metavar="ENCLAVE.YAML", help="The settings of the enclave.")],
    where: Annotated[str, typer.Argument(metavar="enclave=none|direct|sgx", help="Where its command runs.")],
) -> None:
    """Run the command of enclave.yaml: outside, in Gramine without SGX, or in SGX; ends as that ends.

    \b
    quire enclave start enclave.yaml enclave=none
    """
    from quire.clients.gate.mark import BANNER
    from quire.enclave.errors import EnclaveError
    from quire.enclave.profiles import DIRECT, OUTSIDE, read_profile, start_command
    from quire.enclave.settings import read_settings

    chosen, folder = read_profile(where), settings.resolve().parent
    found = read_settings(settings)
    if chosen.where == OUTSIDE:
        for place in (found.store, found.keys):
            if not place.is_dir():
                raise EnclaveError(f"There is no folder {place}; run: mkdir -m 700 {place}")
    command, variables = start_command(found, folder, chosen)
    if chosen.where == DIRECT:
        typer.echo(f"{BANNER}: {chosen.profile} is for finding out whether things work.", err=True)
    raise typer.Exit(waited(command, folder, variables))


def waited(command: list[str], folder: Path, variables: dict[str, str] | None = None) -> int:
    """Run a command to its end and return its exit status; SIGTERM and SIGINT are passed on to it.

    Parameters
    ----------
    command : list of str
    folder : pathlib.Path
        In which it runs.
    variables : dict of str to str or None
        All of its environment; None: that of this process.
    """
    from quire.enclave.errors import EnclaveError

    try:
        process = subprocess.Popen(command, cwd=folder, env=variables)
    except OSError as error:
        raise EnclaveError(f"{command[0]} could not be run: {error.strerror}.") from error

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def pack(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="silo.yaml, and what it names: roster, charter, schema.")
    ],
) -> None:
    """Put files together for `--install`, on standard output: they are laid on the desk of an enclave.

    \b
    quire enclave pack silo.yaml roster.json charter/ | quire enclave run install.manifest --mode sgx
    """
    from quire.enclave.desk import packed

    sys.stdout.buffer.write(packed(files))
