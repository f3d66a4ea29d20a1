"""The environment that approved code sees: an allow-list, a home of its own, and nothing of the gate."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from quire.errors import QuireError

#: The one variable of ours that passes: the path of a file, without which approved code cannot open an encrypted key.
PASSPHRASE_FILE = "QUIRE_PASSPHRASE_FILE"
#: Variables that pass as they are: words of the locale, how many threads and which devices to use, and that path.
PASSED = frozenset(
    {
        PASSPHRASE_FILE,
        "LANG",
        "LANGUAGE",
        "TZ",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "CUBLAS_WORKSPACE_CONFIG",
        "LD_LIBRARY_PATH",
    }
)
_PASSED_FAMILIES = ("LC_",)
#: What no operator may pass by name: it would undo what the gate sets, or load code that nobody approved.
_NEVER = ("PYTHON", "LD_PRELOAD", "LD_AUDIT", "FLWR_", "QUIRE_GATE", "QUIRE_GUARDED", "HOME", "PATH", "TMPDIR")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class ScrubError(QuireError):
    """A variable cannot be handed to approved code."""

    exit_code = 2


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of variables that an operator hands on, if they can be.

    Raises
    ------
    ScrubError
        If one is no name, or one that the gate sets itself.
    """
    names = tuple(names)
    for name in names:
        if not _NAME.fullmatch(name):
            raise ScrubError(f"'{name[:60]}' is not the name of an environment variable.")
        if name.startswith(_NEVER):
            raise ScrubError(f"The variable {name} cannot be handed on: the gate sets it, or it would load other code.")
    return names


def scrubbed(variables: Mapping[str, str], home: Path, also: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of approved code.

    Parameters
    ----------
    variables : mapping of str to str
        The gate's own environment.
    home : pathlib.Path
        A folder for this message alone.
    also : iterable of str
        Names that the operator hands on, for example of the variables that hold a database's user and password.

    Raises
    ------
    ScrubError
        If one of them cannot be handed on.
    """
    passed = PASSED.union(check_names(also))
    kept = {name: value for name, value in variables.items() if name in passed or name.startswith(_PASSED_FAMILIES)}
    fixed = {
        "PATH": os.defpath,
        "HOME": str(home),
        "TMPDIR": str(home),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    return {**kept, **fixed}
