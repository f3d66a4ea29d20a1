"""Where the command of ``enclave.yaml`` runs: ``enclave=none``, ``enclave=direct`` or ``enclave=sgx``.

The three are files that ship with this room, and are chosen on the silo's own command line. They are no settings of a
run: these travel from the server, and where a silo runs is not for a server to say.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import quire
from quire.conf.strict_yaml import read_yaml
from quire.enclave.errors import EnclaveError
from quire.enclave.inside import KEYS, STORE
from quire.enclave.programs import command_to_run
from quire.enclave.settings import Enclave
from quire.enclave.tracing import environment
from quire.text import visible

OUTSIDE, DIRECT, SGX = "outside", "direct", "sgx"
NAMES = ("none", "direct", "sgx")
_GROUP = "enclave="


@dataclass(frozen=True)
class Profile:
    """One of the three.

    Attributes
    ----------
    name : str
    where : str
        ``outside``, ``direct`` or ``sgx``.
    profile : str or None
        What the manifest is rendered for; None outside.
    manifest : str or None
        Its name, with the enclave's for ``{name}``.
    """

    name: str
    where: str
    profile: str | None
    manifest: str | None

    def place(self, settings: Enclave, folder: Path) -> Path | None:
        """Return where the manifest lies: beside ``enclave.yaml``."""
        return None if self.manifest is None else folder / self.manifest.format(name=settings.name)


def read_profile(override: str) -> Profile:
    """Read a profile by its override: ``enclave=direct``.

    Raises
    ------
    EnclaveError
        If there is none of that name.
    """
    name = override.removeprefix(_GROUP)
    if not override.startswith(_GROUP) or name not in NAMES:
        known = ", ".join(f"{_GROUP}{one}" for one in NAMES)
        raise EnclaveError(f"'{visible(override, 60)}' says nothing of where the silo runs: it is one of {known}.")
    with as_file(files("quire.enclave").joinpath(f"profiles/{name}.yaml")) as path:
        found = read_yaml(path).mapping(["where"], ["profile", "manifest"])
    optional = {key: found[key].text() if key in found else None for key in ("profile", "manifest")}
    return Profile(name, found["where"].text(), **optional)


def start_command(settings: Enclave, folder: Path, profile: Profile) -> tuple[list[str], dict[str, str] | None]:
    """Return what starts the command of ``enclave.yaml``, and its environment; None: that of whoever starts it.

    Parameters
    ----------
    settings : Enclave
    folder : pathlib.Path
        In which ``enclave.yaml`` lies.
    profile : Profile

    Raises
    ------
    EnclaveError
        If the manifest is not there, not sound or not signed, or Gramine is not there.
    """
    manifest = profile.place(settings, folder)
    if manifest is not None:
        return command_to_run(manifest, profile.where), None
    return [sys.executable, *(_outside(settings, word) for word in settings.command)], _variables(settings)


def _outside(settings: Enclave, word: str) -> str:
    """Return a word of the command with the folders of the host in the place of those that they are inside."""
    for inside, host in ((STORE, settings.store), (KEYS, settings.keys)):
        if word == str(inside) or word.startswith(f"{inside}/"):
            return f"{host}{word.removeprefix(str(inside))}"
    return word


def _variables(settings: Enclave) -> dict[str, str]:
    """Return the environment that it has inside, as far as it means anything outside."""
    here = str(Path(quire.__file__).resolve().parent.parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    told = environment("none", (), (), "", settings.cores)
    kept = {name: value for name, value in told.items() if name.startswith(("FLWR_", "RAY_")) or "THREADS" in name}
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    folders = {"QUIRE_ENCLAVE_STORE": str(settings.store), "QUIRE_ENCLAVE_KEYS": str(settings.keys)}
    return {**own, **kept, **folders, "PYTHONPATH": path}
