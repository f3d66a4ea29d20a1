"""Run folders as processes leave them behind that were killed, or came to an end."""

from __future__ import annotations

import contextlib
from pathlib import Path

import quire
from quire.clients.code import code_hash
from quire.strategies.folder import RunFolder

OVERRIDES = "task=breast_cancer partition.silos=2 strategy.rounds=4"


def began(place: Path, status: str = "running", overrides: str = OVERRIDES, code: str = "") -> Path:
    """Leave a run folder behind, as a process that was killed would, or one that came to an end."""
    with contextlib.closing(RunFolder(place)) as folder:
        folder.begin(quire.compose(overrides), runtime="deployment", code_hash=code or code_hash())
        if status != "running":
            folder.finish(status, None if status == "completed" else "Too few silos.")
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
