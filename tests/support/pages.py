"""Pages of the documentation, run block by block as a reader would paste them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Return language, file and text of each block of a page in ``docs/``."""
    return _BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


class Reader:
    """Somebody in an empty folder, with `quire` and this Python on the path.

    Attributes
    ----------
    here : pathlib.Path
        The folder.
    limit : float
        Seconds that a block may take.
    """

    def __init__(self, folder: Path, limit: float = 280) -> None:
        programs, self.here, self.limit = folder / "bin", folder / "here", limit
        programs.mkdir()
        self.here.mkdir()
        (programs / "quire").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m quire "$@"\n', encoding="utf-8")
        (programs / "quire").chmod(0o755)
        self.variables: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("QUIRE_")},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def follow(self, page: str) -> str:
        """Do what a page says; return what was printed."""
        printed = ""
        for language, file, text in blocks(page):
            if language == "yaml":
                (self.here / file).write_text(text, encoding="utf-8")
            elif language == "python":
                printed += self.run(sys.executable, "-c", text)
            elif language == "sh":
                printed += self.run("bash", "-euc", text)
            else:
                assert language in ("text", "toml"), "a block that is not run is called text"
        return printed

    def run(self, *command: str) -> str:
        """Run a program, which must succeed; return what it printed."""
        done = subprocess.run(
            command, cwd=self.here, env=self.variables, capture_output=True, text=True, timeout=self.limit, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
