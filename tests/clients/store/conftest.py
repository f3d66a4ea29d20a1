"""A silo's store in a folder of its own, with a witness or without."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import Home

from quire.privacy.identity.keys import PrivateIdentity


@pytest.fixture(scope="session")
def identity() -> PrivateIdentity:
    return PrivateIdentity.from_seed(b"i" * 32)


@pytest.fixture
def home(tmp_path: Path, identity: PrivateIdentity) -> Home:
    return Home(tmp_path, identity)


@pytest.fixture
def witnessed(tmp_path: Path, identity: PrivateIdentity) -> Home:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return Home(tmp_path, identity, elsewhere / "witness.json")
