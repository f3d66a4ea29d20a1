"""Gramine's own programs, where they are: sign, start, check. Where they are not, one sentence says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from quire.enclave.check import check
from quire.enclave.errors import EnclaveError
from quire.enclave.manifest import DIRECT, SGX
from quire.enclave.signed import refuse_another
from quire.text import visible

#: What runs an enclave in each mode, and the profile that it must be rendered for.
MODES = {"direct": ("gramine-direct", DIRECT), "sgx": ("gramine-sgx", SGX)}
CHECKER, SIGNER = "gramine-manifest-check", "gramine-sgx-sign"
_SUFFIX = ".manifest"
_LIMIT = 600  # seconds; none of the programs that are waited for takes that long


def program(name: str) -> str:
    """Return where a program of Gramine's is.

    Raises
    ------
    EnclaveError
        If it is not on the PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise EnclaveError(f"There is no {name} on the PATH: install Gramine 1.9; `quire enclave doctor` says how.")
    return found


def gramine_check(manifest: Path) -> str | None:
    """Ask Gramine what it thinks of a manifest; None if it is content.

    Raises
    ------
    EnclaveError
        If Gramine is not there.
    """
    done = _wait([program(CHECKER), str(manifest)])
    return None if done.returncode == 0 else _last(done)


def sign(manifest: Path, key: Path) -> Path:
    """Sign a rendering for ``sgx-prod``; return the file of the signature, ``NAME.sig`` beside ``NAME.manifest``.

    Raises
    ------
    EnclaveError
        If the manifest is not sound, Gramine is not there, or it refuses.
    """
    name = named(manifest)
    refuse_unsound(manifest, SGX)
    if not key.is_file():
        raise EnclaveError(f"There is no key {key}; `gramine-sgx-gen-private-key {key}` makes one.")
    target, signature = manifest.with_name(f"{name}.manifest.sgx"), manifest.with_name(f"{name}.sig")
    fresh = [path.with_name(f".{path.name}.new") for path in (target, signature)]
    command = [program(SIGNER), "--key", str(key), "--manifest", str(manifest)]
    try:
        done = _wait([*command, "--output", str(fresh[0]), "--sigfile", str(fresh[1])])
        if done.returncode or not all(path.is_file() for path in fresh):
            raise EnclaveError(f"Gramine did not sign {manifest}: {_last(done)}.")
        os.replace(fresh[0], target)
        os.replace(fresh[1], signature)
    finally:
        for path in fresh:
            path.unlink(missing_ok=True)
    return signature


def command_to_run(manifest: Path, mode: str) -> list[str]:
    """Return the command that starts an enclave; it is to be started in the manifest's folder.

    Raises
    ------
    EnclaveError
        If the manifest is not sound, is not signed, another was, or Gramine is not there.
    """
    starter, profile = MODES[mode]
    name = named(manifest)
    refuse_unsound(manifest, profile)
    if mode == "sgx":
        signed, signature = manifest.with_name(f"{name}.manifest.sgx"), manifest.with_name(f"{name}.sig")
        for path in (signed, signature):
            if not path.is_file():
                raise EnclaveError(f"There is no {path}: run `quire enclave sign {manifest} --key KEY` first.")
        refuse_another(manifest, signed, signature)
    return [program(starter), name]


def named(manifest: Path) -> str:
    """Return the name by which Gramine's programs know a manifest: without ``.manifest``."""
    name = manifest.name.removesuffix(_SUFFIX)
    if name == manifest.name or not name or name.startswith("-"):
        raise EnclaveError(f"{manifest} is not named NAME{_SUFFIX}, as Gramine's programs expect.")
    return name


def refuse_unsound(manifest: Path, profile: str) -> None:
    """Refuse a manifest that `quire enclave check` would."""
    if wrong := check(manifest, profile):
        more = f" ({len(wrong)} problems in all)" if len(wrong) > 1 else ""
        raise EnclaveError(f"{manifest} is no sound {profile} manifest{more}: {wrong[0]}")


def _wait(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnclaveError(f"{command[0]} could not be run: {visible(str(error), 200)}.") from error


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return visible(text.rpartition("\n")[2], 300).rstrip(".") or f"it ended with {done.returncode}"
