"""An environment of its own for pfl, whose requirements are not ours; torch in it is the one that Quire runs with."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import harness

FOLDER = harness.ROOT / "runs" / "bench" / "pfl"
REQUIREMENT = "pfl==0.6.0"
_SECONDS = 300


def python() -> tuple[Path | None, str]:
    """Return the interpreter of the environment, made and filled if need be; or None, and why there is none."""
    found = FOLDER / "bin" / "python"
    ready = FOLDER / "ready"
    if ready.exists():
        return found, ""
    own = subprocess.run([str(found), "-c", "pass"], capture_output=True, check=False) if found.exists() else None
    try:
        if own is None or own.returncode:
            subprocess.run(
                [sys.executable, "-m", "venv", str(FOLDER)], capture_output=True, check=True, timeout=_SECONDS
            )
        place = next(FOLDER.glob("lib*/python*/site-packages"))
        # What is installed beside Quire can be imported there, after what is installed there itself: the same torch.
        (place / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        install = [str(found), "-m", "pip", "install", "-q", REQUIREMENT]
        subprocess.run(install, capture_output=True, check=True, timeout=_SECONDS)
        subprocess.run([str(found), "-c", "import pfl, torch"], capture_output=True, check=True, timeout=_SECONDS)
    except (OSError, StopIteration, subprocess.SubprocessError) as error:
        return None, f"pfl could not be installed ({type(error).__name__})"
    ready.touch()
    return found, ""
