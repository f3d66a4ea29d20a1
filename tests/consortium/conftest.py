"""Consortia in folders of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from consortium_parties import Parties


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    """An operator whose server is 127.0.0.1; no silo yet."""
    return Parties(tmp_path).found()
