"""Silos to make offers of, and what a silo's folder looks like to this room's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Call, command_line
from offering import Offering


@pytest.fixture
def silo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offering:
    monkeypatch.chdir(tmp_path)
    return Offering(tmp_path)


@pytest.fixture
def quire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)
