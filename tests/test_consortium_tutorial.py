"""docs/tutorial-consortium.md does what it says: from nothing to a trained model with four hospitals, as pasted."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import Reader

PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
HOSPITALS = ("aachen", "basel", "calais", "delft")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path, limit=1200)
    yield made
    for file in made.here.glob("*.pid"):  # what a failed page has left running
        try:
            os.kill(int(file.read_text()), signal.SIGTERM)
        except ProcessLookupError:
            continue


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(shutil.which("haproxy", path=PLACES) is None, reason="haproxy is not installed")
def test_the_page_does_what_it_says(reader: Reader) -> None:
    printed = reader.follow("tutorial-consortium.md")
    (run,) = (reader.here / "consortium" / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "completed"
    card = json.loads((run / "privacy_card.json").read_text())
    assert card["standing"] == "stated"
    assert card["verdict"].startswith("Every record has epsilon 3 at delta 1e-05, or better")
    assert (run / "report.html").stat().st_size > 10_000
    assert printed.count("Accepted: this silo would take part.") == 4
    assert "Verified." in printed
    assert "is completed" in printed
    accuracies = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("accuracy ")]
    assert len(accuracies) == 4
    assert min(accuracies) > 0.6  # a coin reaches a half
    for name in HOSPITALS:
        secret = (reader.here / name / "identity" / "silo.key").read_bytes()
        assert not [
            file for file in (reader.here / "consortium").rglob("*") if file.is_file() and secret in file.read_bytes()
        ]
        words = (reader.here / f"{name}.out").read_text()
        assert "Traceback" not in words
        with pytest.raises(ProcessLookupError):
            os.kill(int((reader.here / f"{name}.pid").read_text()), 0)
