"""Runs that are killed at a chosen moment, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quire import compose
from quire.simulation.inline import run_inline
from quire.simulation.launch import launch
from quire.strategies.folder import read_about


def lines(path: Path) -> list[dict[str, Any]]:
    """The journal without what differs from run to run: times."""
    kept = []
    for text in (path / "metrics.jsonl").read_text().splitlines():
        event = json.loads(text)
        event.pop("seconds", None)
        if event["event"] != "resume":
            kept.append(event)
    return kept


def killed(overrides: str, path: Path, arm: Callable[[], None]) -> None:
    """Run in a child process, in which ``arm`` has planted a SIGKILL; return when it is dead."""
    child = os.fork()
    if child == 0:
        try:
            arm()
            run_inline(compose(overrides), path)
        finally:
            os._exit(0)  # only reached if the kill never came
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def resumed(overrides: str, path: Path) -> str:
    launch(compose(overrides), path, resume=True)
    return str(read_about(path)["model"])
