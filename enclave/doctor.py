"""What this machine lacks for an enclave, and how to get it. Reads, and changes nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quire.enclave.settings import Enclave

#: What Gramine needs to start a large process with many threads: each mapping is one.
MAP_COUNT = 1_048_576
_INSTALL = "install Gramine 1.9: packages at https://gramine.readthedocs.io/en/stable/installation.html, or from source"
_PROGRAMS = (
    ("gramine-direct", "direct"),
    ("gramine-manifest-check", "direct"),
    ("gramine-sgx", "sgx"),
    ("gramine-sgx-sign", "sgx"),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
    good : bool
    words : str
        What was found; if it is not good, also what to do.
    mode : str
        Who needs it: ``direct`` (and so ``sgx``), ``sgx``, or ``verify``.
    """

    what: str
    good: bool
    words: str
    mode: str


def examine(settings: Enclave | None = None, root: Path = Path("/")) -> list[Finding]:
    """Look at this machine.

    Parameters
    ----------
    settings : Enclave or None
        With them, Gramine's folder and the memory that the enclave wants are looked at too.
    root : pathlib.Path
        Where ``dev``, ``proc`` and ``var`` are; for tests.
    """
    return [*_programs(), *_kernel(root), *_hardware(root), *_settings(settings, root), _verifier()]


def _programs() -> Iterator[Finding]:
    for name, mode in _PROGRAMS:
        found = shutil.which(name)
        yield Finding(name, found is not None, found or f"not on the PATH; {_INSTALL}", mode)


def _kernel(root: Path) -> Iterator[Finding]:
    path = root / "proc/sys/vm/max_map_count"
    try:
        count = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        yield Finding("vm.max_map_count", False, "cannot be read; this is no Linux, or /proc is hidden", "direct")
        return
    words = f"{count}" if count >= MAP_COUNT else f"{count}; run: sysctl -w vm.max_map_count={MAP_COUNT}"
    yield Finding("vm.max_map_count", count >= MAP_COUNT, words, "direct")


def _hardware(root: Path) -> Iterator[Finding]:
    device = root / "dev/sgx_enclave"
    there = device.exists()
    words = f"not there; a processor with SGX, SGX and FLC switched on in the BIOS, Linux 5.11 or later ({device})"
    yield Finding("SGX device", there, str(device) if there else words, "sgx")
    if there:
        may = os.access(device, os.R_OK | os.W_OK)
        yield Finding("SGX device, access", may, "yes" if may else "no; add this user to the device's group", "sgx")
    socket = root / "var/run/aesmd/aesm.socket"
    there = socket.exists()
    words = f"not there; install sgx-aesm-service and libsgx-aesm-quote-ex-plugin, and start aesmd ({socket})"
    yield Finding("AESM, for quotes", there, str(socket) if there else words, "sgx")


def _settings(settings: Enclave | None, root: Path) -> Iterator[Finding]:
    if settings is None:
        return
    libos = settings.gramine / "libsysdb.so"
    words = str(libos) if libos.is_file() else f"there is no {libos}; set 'gramine' in enclave.yaml, or {_INSTALL}"
    yield Finding("Gramine's library", libos.is_file(), words, "direct")
    for what, folder in (("store", settings.store), ("keys", settings.keys)):
        good = folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)
        words = (
            str(folder) if good else f"{folder} is no folder that this user may write to; run: mkdir -m 700 {folder}"
        )
        yield Finding(f"folder for the {what}", good, words, "direct")
    need = int(settings.size[:-1]) * {"M": 2**20, "G": 2**30}[settings.size[-1]]
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, ValueError, StopIteration):
        yield Finding("memory", False, "how much there is cannot be read", "sgx")
        return
    words = f"{memory / 2**30:.1f} GiB for an enclave of {settings.size}"
    yield Finding("memory", memory > need, words if memory > need else f"{words}; make 'size' smaller", "sgx")


def _verifier() -> Finding:
    there = importlib.util.find_spec("dcap_qvl") is not None
    words = "installed" if there else "not installed; run: pip install 'quire[enclave]'"
    return Finding("dcap-qvl, to verify quotes", there, words, "verify")
