"""Consortia in folders of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from consortium_parties import Parties


@pytest.fixture
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave data to the page cache: a process that is killed loses nothing there, and the disk need not turn."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def parties(tmp_path: Path, no_power_cuts: None) -> Parties:
    """An operator whose server is 127.0.0.1; no silo yet."""
    return Parties(tmp_path).found()
