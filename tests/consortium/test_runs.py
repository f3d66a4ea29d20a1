"""What a run's state is called, of what SuperLink and run folder say."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from flwr.proto.run_pb2 import Run, RunStatus

import quire
from quire.consortium.submit import _line, _tell_rounds
from quire.strategies.folder import RunFolder


@pytest.mark.parametrize(
    ("flower", "folder", "expected"),
    [
        ("pending", None, "pending"),
        ("starting", None, "pending"),
        ("running", None, "running"),
        ("running", "running", "running"),
        ("running", "completed", "running"),  # its process is still handing in
        ("finished:completed", "completed", "completed"),
        ("finished:failed", "failed", "failed"),
        ("finished:failed", None, "failed"),  # refused before it had a folder
        ("finished:failed", "running", "lost"),
        ("finished:stopped", "running", "stopped"),
        (None, "running", "lost"),
        (None, "completed", "completed"),
    ],
)
def test_the_state_of_a_run(tmp_path: Path, flower: str | None, folder: str | None, expected: str) -> None:
    known = None
    if flower is not None:
        status, _, sub = flower.partition(":")
        details = "App failed with exception: Too few silos." if sub == "failed" else ""
        known = Run(run_id=7, status=RunStatus(status=status, sub_status=sub, details=details))
    place = tmp_path / "7"
    if folder is not None:
        with contextlib.closing(RunFolder(place)) as opened:
            opened.begin(quire.compose(""), runtime="deployment", code_hash="0" * 64)
            if folder != "running":
                opened.finish(folder, "Too few silos." if folder == "failed" else None)
    line = _line(7, known, place if folder is not None else None, answered=True)
    assert (line.run, line.status) == (7, expected)
    assert line.over == (expected not in ("pending", "running"))
    if expected == "failed":
        assert line.error == "Too few silos."
    if expected == "lost":
        assert line.error


def test_who_is_left_out_and_each_round_are_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    failed = [{"silo": "clinic", "stage": "query", "code": "another_member", "words": "..."}]
    lines: list[dict[str, object]] = [{"event": "enrolment", "failed": failed}, {"event": "start", "rounds": 2}]
    round_ = {"event": "round", "round": 1, "replied": ["ward"], "failed": [], "seconds": {"train": 1.0}}
    journal = tmp_path / "metrics.jsonl"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    count = _tell_rounds(tmp_path, 0, told.append)
    journal.write_text("".join(json.dumps(line) + "\n" for line in [*lines, round_]))
    assert _tell_rounds(tmp_path, count, told.append) == 2
    assert _tell_rounds(tmp_path / "later", 2, told.append) == 2  # a folder that is linked once the run is admitted
    assert told == ["left out: clinic another_member", "round 1: 1 silos, 1.0 s"]
