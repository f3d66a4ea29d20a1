"""A manifest of Gramine's, rendered from one template as ``direct-dev`` or ``sgx-prod``.

Both fix what is run and its environment, and both list every file with its SHA-256. ``direct-dev`` runs without SGX, to
find out whether all works: what is sealed in ``sgx-prod`` is open there, and nothing is proven to anybody.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from quire.clients.gate.mark import BANNER, DIRECT, PROFILES, SGX
from quire.enclave.errors import EnclaveError
from quire.enclave.files import Listing, hashed, regular
from quire.enclave.settings import PLAIN, SEALS, Enclave
from quire.enclave.tracing import environment

__all__ = ["DIRECT", "PROFILES", "SGX", "mounts", "render"]

RUNTIME = "runtime/glibc"
STORE, KEYS, TEMPORARY = "/silo/store", "/silo/keys", "/silo/tmp"
_SYSTEM_DEPTH = 2  # folders from the root down to a mount: /usr/lib, never /usr


def render(settings: Enclave, listing: Listing, profile: str) -> str:
    """Return a manifest.

    Parameters
    ----------
    settings : Enclave
    listing : Listing
        What the silo opens; every file is hashed now.
    profile : str
        ``direct-dev`` or ``sgx-prod``.

    Raises
    ------
    EnclaveError
        If Gramine is not where the settings say, a file of the list cannot be read, or lies where it must not.
    """
    gramine = str(settings.gramine)
    own = _runtime(settings.gramine)
    for name in listing.files:
        if name.startswith((f"{settings.store}/", f"{settings.keys}/", "/silo/")):
            raise EnclaveError(
                f"{name} is in the list of files and in a sealed folder; what is sealed cannot be trusted."
            )
    trusted = hashed(sorted({*listing.files, *own}))
    return _template().render(
        profile=profile,
        banner=BANNER if profile == DIRECT else "",
        python=listing.python,
        gramine=gramine,
        argv=[listing.python, *settings.command],
        environment=environment(profile, listing.path, listing.libraries, listing.bytecode, settings.cores),
        folders=[("/lib", f"file:{gramine}/{RUNTIME}"), *((path, f"file:{path}") for path in mounts(listing.files))],
        sealed=[(STORE, f"file:{settings.store}"), (KEYS, f"file:{settings.keys}")],
        seal=SEALS[settings.seal],
        stack=settings.stack,
        descriptors=settings.descriptors,
        size=settings.size,
        threads=settings.threads,
        product=settings.product,
        version=settings.version,
        trusted=trusted,
    )


def mounts(paths: tuple[str, ...]) -> list[str]:
    """Return what has to be mounted for files to be seen: folders two levels down, and files that lie higher."""
    found = set()
    for path in paths:
        parts = path.split("/")[1:]
        found.add("/" + "/".join(parts[:_SYSTEM_DEPTH]) if len(parts) > _SYSTEM_DEPTH else path)
    return sorted(found)


def _runtime(gramine: Path) -> list[str]:
    """Return Gramine's own files: its library operating system, and its C library."""
    libos, folder = gramine / "libsysdb.so", gramine / RUNTIME
    if not regular(libos) or not folder.is_dir():
        raise EnclaveError(
            f"There is no Gramine in {gramine}: libsysdb.so and {RUNTIME}/ are missing. Set 'gramine' in enclave.yaml; "
            "`quire enclave doctor` says how to get it."
        )
    names = [str(libos), *(entry.path for entry in os.scandir(folder) if regular(Path(entry.path)))]
    if strange := [name for name in names if not PLAIN.fullmatch(name)]:
        raise EnclaveError(f"'{strange[0]}' has a name that a manifest cannot hold.")
    return names


def _toml(value: Any) -> str:
    """Write a text, a truth value or a list of texts; as TOML's basic strings, JSON's do but for surrogates."""
    return json.dumps(value, ensure_ascii=False)


@cache
def _template() -> Template:
    text = files("quire.enclave").joinpath("templates/silo.manifest.jinja").read_text(encoding="utf-8")
    made = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    made.filters["toml"] = _toml
    return made.from_string(text)
