"""``quire enclave start|pack``: the silo's command outside, in Gramine or in SGX, and what is laid on its desk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
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
    try:
        done = subprocess.run(command, cwd=folder, env=variables, check=False)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except OSError as error:
        raise EnclaveError(f"{command[0]} could not be run: {error.strerror}.") from error
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


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
