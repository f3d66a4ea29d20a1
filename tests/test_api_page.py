"""The API reference is generated: what it says is what the docstrings say now."""

import subprocess
import sys
from pathlib import Path

import quire

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_up_to_date():
    done = subprocess.run([sys.executable, "docs/generate_api.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run `make docs`"


def test_every_public_name_is_on_it():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [name for name in quire.__all__ if name != "__version__" and f".{name}`\n" not in page]
    assert missing == []
