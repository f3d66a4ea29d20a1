"""Consortia in folders of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from consortium_parties import Parties
from proxied import Place, proxied


@pytest.fixture
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave data to the page cache: a process that is killed loses nothing there, and the disk need not turn."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def parties(tmp_path: Path, no_power_cuts: None) -> Parties:
    """An operator whose server is 127.0.0.1; no silo yet."""
    return Parties(tmp_path).found()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The proxy before a server of ours, once for a file of tests."""
    with proxied(tmp_path_factory.mktemp("proxy")) as made:
        yield made
