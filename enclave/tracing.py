"""Which files a silo really opens: it is run once, outside, with the environment that it will have inside.

Never a whole environment of Python's: what is not in the list cannot be opened inside, and what is in it is hashed and
measured, so a list of everything would be slow, and would change with every package that nobody uses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

import quire
from quire.enclave.bytecode import compiled
from quire.enclave.errors import EnclaveError
from quire.enclave.files import Listing, regular
from quire.enclave.settings import PLAIN, Enclave
from quire.text import visible

#: Of the kernel, not files: Gramine has its own.
_KERNEL = ("/proc/", "/sys/", "/dev/")
_TIME_LIMIT = 1800
_READ = re.compile(r'open(?:at)?\((?:AT_FDCWD, )?"(/[^"\\]*)", O_RDONLY[^)]*\)\s+= \d')


def environment(
    profile: str, path: Iterable[str], libraries: Iterable[str], bytecode: str, cores: int
) -> dict[str, str]:
    """Return the whole environment of what runs inside; nothing of the host's is in it.

    Parameters
    ----------
    profile : str
        ``direct-dev`` or ``sgx-prod``; ``trace`` while tracing.
    path, libraries : iterable of str
        Folders of modules, and of shared libraries.
    bytecode : str
        The folder of compiled modules.
    cores : int
        Threads of numerical libraries.
    """
    threads = str(cores)
    return {
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "HOME": "/silo/tmp",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": ":".join(libraries),
        "LOGNAME": "silo",
        "MKL_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": ":".join(path),
        "PYTHONPYCACHEPREFIX": bytecode,
        "PYTHONSAFEPATH": "1",
        "QUIRE_ENCLAVE": profile,
        "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": "/silo/tmp",
    }


def trace(settings: Enclave, strace: bool = False, seconds: float = _TIME_LIMIT) -> Listing:
    """Run what the enclave will run, and return what it opened, with its modules compiled.

    Parameters
    ----------
    settings : Enclave
    strace : bool
        Whether to ask the kernel as well, which sees what libraries open by themselves.
    seconds : float
        How long it may take.

    Raises
    ------
    EnclaveError
        If it fails, takes too long, or a program is missing.
    """
    python = os.path.realpath(sys.executable)
    found, path = _run(settings, python, strace, seconds)
    files = {name for name in found if not name.startswith(_KERNEL) and regular(Path(name))}
    files = {python, *files, *(os.path.realpath(name) for name in files)}
    files = {_source(name) for name in files}
    files |= set(_also_known_as(name for name in files if ".so" in Path(name).name))
    sources = sorted(name for name in files if name.endswith(".py"))
    files |= set(compiled(sources, settings.workspace))
    files = {name for name in files if name and not name.startswith((f"{settings.store}/", f"{settings.keys}/"))}
    if strange := sorted(name for name in files if not PLAIN.fullmatch(name)):
        raise EnclaveError(
            f"'{visible(strange[0], 400)}' was opened, and a manifest cannot name it: move it to a plain path."
        )
    path = tuple(one for one in path if any(name.startswith(one + "/") for name in files))
    return Listing(python, path, _libraries(files), str(settings.workspace), tuple(sorted(files)))


def _run(settings: Enclave, python: str, strace: bool, seconds: float) -> tuple[set[str], tuple[str, ...]]:
    here = str(Path(quire.__file__).resolve().parent.parent)
    standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    known = [os.path.realpath(name) for name in [here, *sys.path] if name and os.path.isdir(name)]
    path = tuple(dict.fromkeys(one for one in known if not any(one == top or _below(one, top) for top in standard)))
    with tempfile.TemporaryDirectory(prefix="quire-trace-") as scratch:
        out, log = Path(scratch) / "opened.json", Path(scratch) / "strace"
        variables = environment("trace", path, (), str(settings.workspace), settings.cores)
        variables |= {"HOME": scratch, "TMPDIR": scratch}
        del variables["LD_LIBRARY_PATH"], variables["PYTHONPYCACHEPREFIX"]
        command = [python, str(Path(__file__).with_name("traced.py")), str(out), *settings.command]
        if strace:
            command = [*_strace(), "-f", "-qq", "-e", "trace=open,openat", "-o", str(log), *command]
        try:
            done = subprocess.run(
                command, env=variables, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise EnclaveError(
                f"What the enclave runs had not ended after {seconds:g} seconds; give it less."
            ) from None
        if done.returncode or not out.is_file():
            last = visible((done.stderr or done.stdout).decode(errors="replace").strip().rpartition("\n")[2], 300)
            raise EnclaveError(f"What the enclave runs ended with {done.returncode}: {last or 'it said nothing'}.")
        seen = json.loads(out.read_text(encoding="utf-8"))
        found = {name for names in seen.values() for name in names}
        if strace:
            found |= {one.group(1) for one in map(_READ.search, log.read_text(errors="replace").splitlines()) if one}
    return {name for name in found if not name.startswith(scratch)}, path


def _strace() -> list[str]:
    program = shutil.which("strace")
    if program is None:
        raise EnclaveError(
            "There is no strace on the PATH; install it (apt-get install strace), or leave --strace out."
        )
    return [program]


def _below(path: str, folder: str) -> bool:
    """Say whether a path is of the standard library itself: what is installed besides is not."""
    inside = path.startswith(folder + "/")
    return inside and "site-packages" not in path and "dist-packages" not in path


def _source(name: str) -> str:
    """Return the source of a compiled module: it is compiled anew."""
    if not name.endswith(".pyc"):
        return name
    try:
        source = Path(name).parent.parent / (Path(name).name.split(".", 1)[0] + ".py")
        return str(source) if regular(source) else ""
    except ValueError:
        return ""


def _also_known_as(libraries: Iterable[str]) -> Iterable[str]:
    """Yield the links beside libraries that lead to them: by those names other libraries ask for them."""
    wanted: dict[Path, set[str]] = {}
    for name in libraries:
        real = Path(os.path.realpath(name))
        wanted.setdefault(real.parent, set()).add(str(real))
    for folder, names in wanted.items():
        for entry in os.scandir(folder):
            if entry.is_symlink() and os.path.realpath(entry.path) in names:
                yield entry.path


def _libraries(files: Iterable[str]) -> tuple[str, ...]:
    """Return the folders of the system's and the interpreter's shared libraries, Gramine's own first."""
    own = os.path.join(os.path.realpath(sys.base_prefix), "lib")
    found = {os.path.dirname(name) for name in files if ".so" in os.path.basename(name)}
    system = {one for one in found if one == own or (one.startswith(("/lib/", "/usr/lib/")) and "python" not in one)}
    return ("/lib", *sorted(system))
