"""docs/bring-your-own-data.md does what it says: its blocks are run in order, as a reader would paste them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bring-your-own-data.md"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path):
    """Run a program in an empty folder, with `quire` and this Python on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "quire").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m quire "$@"\n', encoding="utf-8")
    (programs / "quire").chmod(0o755)
    (tmp_path / "here").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("QUIRE_")},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_the_page_does_what_it_says(shell, tmp_path: Path) -> None:
    here, printed = tmp_path / "here", ""
    for language, file, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "yaml":
            (here / file).write_text(text, encoding="utf-8")
        elif language == "python":
            printed += shell(sys.executable, "-c", text)
        elif language == "sh":
            printed += shell("bash", "-euc", text)
        else:
            assert language in ("text", "toml"), "a block that is not run is called text"
    for run in ("first", "second"):
        assert (here / "runs" / run / "report.html").stat().st_size > 10_000
    assert len(list((here / "runs" / "sweep").rglob("run.json"))) == 4
    assert "the column 'age' has values that are not numbers" in printed
    assert "exit status 2" in printed
    assert not (here / "runs" / "third" / "run.json").exists()


def test_the_page_names_every_connector_and_its_keys() -> None:
    from quire.clients.data.connectors import BUILT_IN

    text = PAGE.read_text(encoding="utf-8")
    for name, connector in BUILT_IN.items():
        (row,) = re.findall(rf"^\| `{name}` \|(.*)$", text, re.MULTILINE)
        assert all(f"`{key}`" in row for key in connector.keys)
