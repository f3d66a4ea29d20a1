"""Progress shows every round, whatever the file that it follows is up to."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quire.errors import QuireError
from quire.simulation.progress import Progress

SILOS = [f"hospital-{place}" for place in range(1, 6)]


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "round",
        "round": number,
        "cohort": SILOS,
        "replied": SILOS,
        "failed": [],
        "train": {"loss": 0.6},
        "evaluate": {"accuracy": 0.912, "loss": 0.31},
        "seconds": {"train": 0.1, "aggregate": 0.05, "evaluate": 0.05},
    } | changes


def append(path: Path, *events: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in events)


def console(terminal: bool = False) -> tuple[Console, io.StringIO]:
    buffer = io.StringIO()
    return Console(file=buffer, force_terminal=terminal, width=120, _environ={"TERM": "xterm"}), buffer


def wait_for(buffer: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in buffer.getvalue():
        assert time.monotonic() < deadline, f"'{text}' was not shown: {buffer.getvalue()!r}"
        time.sleep(0.02)


def test_plain_lines(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()
    with Progress(path, 30, "plain", out):
        append(path, {"event": "start", "rounds": 30, "silos": SILOS}, event(3))
        failure = {"silo": "hospital-3", "stage": "train", "words": "its training raised an error"}
        append(path, event(4, replied=SILOS[:4], failed=[failure]), event(5, evaluate=None))
        append(path, event(6, evaluate={"accuracy": float("nan"), "loss": 0.0123}), {"event": "end"})
    assert buffer.getvalue().splitlines() == [
        "round 3/30  accuracy 0.912  loss 0.31  5/5 silos  0.2 s",
        "round 4: hospital-3 failed in train: its training raised an error",
        "round 4/30  accuracy 0.912  loss 0.31  4/5 silos  0.2 s",
        "round 5/30  training loss 0.60  5/5 silos  0.2 s",
        "round 6/30  loss 0.012  5/5 silos  0.2 s",
    ]


def test_lines_come_while_the_run_goes_on(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()
    with Progress(path, 2, "plain", out):
        append(path, event(1))
        wait_for(buffer, "round 1/2")
        with path.open("ab") as file:
            whole = json.dumps(event(2)).encode() + b"\n"
            file.write(whole[:40])
            file.flush()
            time.sleep(0.3)  # the torn line is seen, and left alone
            assert "round 2/2" not in buffer.getvalue()
            file.write(whole[40:])
        wait_for(buffer, "round 2/2")
    assert buffer.getvalue().count("\n") == 2


def test_torn_garbled_and_missing(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()
    with Progress(tmp_path / "missing" / "metrics.jsonl", 2, "plain", out):
        pass
    with Progress(path, 2, "plain", out):
        path.write_bytes(b'\xff\xfe\n[1]\nnull\n{"event":"round"}\n{"event":"round","round":"x"}\n')
        append(path, event(1, failed=None, cohort=None, replied=3, seconds=[], evaluate=[], train=None))
        with path.open("a", encoding="utf-8") as file:
            file.write('{"event":"rou')
    assert buffer.getvalue() == "round 1/2  0/0 silos  0.0 s\n"


def test_last_line_without_a_newline_counts(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()
    with Progress(path, 1, "plain", out):
        path.write_text(json.dumps(event(1)), encoding="utf-8")
    assert buffer.getvalue().startswith("round 1/1")


def test_the_end_is_read_also_when_the_run_fails(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()

    def run() -> None:
        with Progress(path, 2, "plain", out):
            append(path, event(1))
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run()
    assert buffer.getvalue().startswith("round 1/2")


def test_failures_once_each_and_not_without_end(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()
    failed = [{"silo": f"s{place}", "stage": "train", "words": "it was late"} for place in range(40)]
    with Progress(path, 2, "plain", out):
        append(path, event(1, failed=[failed[0], failed[0]]), event(2, failed=failed))
    lines = buffer.getvalue().splitlines()
    assert lines.count("round 1: s0 failed in train: it was late") == 1
    assert lines.count("round 2: s0 failed in train: it was late") == 1
    assert len([line for line in lines if line.startswith("round 2:")]) == 11
    assert "round 2: and 30 more failed" in lines


def test_silo_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console()
    with Progress(path, 1, "plain", out):
        append(path, event(1, failed=[{"silo": "[bold]x\x1b[2J\n", "stage": "train", "words": "w"}]))
    assert buffer.getvalue().splitlines()[0] == "round 1: [bold]x�[2J� failed in train: w"


def test_none_shows_nothing(tmp_path: Path) -> None:
    path, (out, buffer) = tmp_path / "metrics.jsonl", console(terminal=True)
    with Progress(path, 1, "none", out):
        append(path, event(1))
    assert buffer.getvalue() == ""


def test_auto_is_plain_away_from_a_terminal_and_a_bar_on_one(tmp_path: Path) -> None:
    for terminal in (False, True):
        path, (out, buffer) = tmp_path / f"{terminal}.jsonl", console(terminal)
        with Progress(path, 2, console=out):
            failure = {"silo": "hospital-3", "stage": "train", "words": "it was late"}
            append(path, event(1, failed=[failure]), event(2))
        assert ("\x1b[" in buffer.getvalue()) is terminal
        assert "round 1: hospital-3 failed in train: it was late" in buffer.getvalue()
        assert "2/2" in buffer.getvalue()
        assert ("1 failed so far" in buffer.getvalue()) is terminal


def test_closed_output_does_not_stop_the_run(tmp_path: Path) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    path = tmp_path / "metrics.jsonl"
    with Progress(path, 1, "plain", Console(file=Closed())):
        append(path, event(1))


def test_unknown_mode(tmp_path: Path) -> None:
    with pytest.raises(QuireError, match="no progress mode 'fancy'"):
        Progress(tmp_path / "metrics.jsonl", 1, "fancy")
