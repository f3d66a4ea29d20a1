"""What was signed, held against the manifest that was checked: Gramine starts ``NAME.manifest.sgx``, not the rendering.

A rendering may have been made again since, and either file may be another's. Gramine writes its own defaults and the
same files with their hashes into what it signs; it changes nothing that a rendering says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quire.enclave.check import decoded, objection_to, read_text, spelled
from quire.enclave.errors import EnclaveError
from quire.enclave.sigstruct import SIZE, Sigstruct
from quire.text import visible

_TRUSTED = "sgx.trusted_files"


def refuse_another(manifest: Path, signed: Path, signature: Path) -> None:
    """Refuse to start what is not a sound manifest, signed.

    Parameters
    ----------
    manifest : pathlib.Path
        A rendering for ``sgx-prod`` that was found sound.
    signed, signature : pathlib.Path
        ``NAME.manifest.sgx`` and ``NAME.sig``.

    Raises
    ------
    EnclaveError
        If they are of another manifest, let the enclave start in debug mode, or cannot be read.
    """
    asked, found = decoded(read_text(manifest)), decoded(read_text(signed))
    again = f"run `quire enclave sign {manifest} --key KEY` again"
    for key in sorted(asked.keys() | found.keys()):
        if key in asked:
            good = key in found and _same(key, asked[key], found[key])
        else:  # a default of Gramine's: off, if it is one that weakens
            good = objection_to(key) is None or not found[key]
        if not good:
            raise EnclaveError(f"{signed} is not what {manifest} says: {visible(key)} differs; {again}.")
    try:
        with signature.open("rb") as stream:
            about = Sigstruct.decode(stream.read(SIZE + 1))
    except OSError as error:
        raise EnclaveError(f"{signature} cannot be read: {error.strerror}.") from error
    if about.debug:
        raise EnclaveError(f"{signature} lets the enclave start in debug mode; {again}.")
    if (about.product, about.version) != (asked["sgx.isvprodid"], asked["sgx.isvsvn"]):
        raise EnclaveError(
            f"{signature} is for product {about.product}, version {about.version}, and {manifest} is not; {again}."
        )


def _same(key: str, asked: Any, found: Any) -> bool:
    if key == _TRUSTED and isinstance(found, list):  # in whatever order
        return sorted(map(spelled, asked)) == sorted(map(spelled, found))
    return spelled(asked) == spelled(found)
