"""Which run may go on in the folder of which: tickets, links and a lock, as the server's gate goes by them."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import APP, packed
from flwr.proto.fab_pb2 import Fab
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullTaskInputResponse
from flwr.proto.transport_pb2 import Scalar
from hypothesis import given, settings
from hypothesis import strategies as st
from left_behind import OVERRIDES, began, contents

from quire.consortium.server_gate import GATE_VARIABLE, Refused, ServerGate
from quire.consortium.tickets import RESUME_CONFIG, ResumeError, Tickets, continued, lineage
from quire.strategies.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gate(tmp_path: Path) -> ServerGate:
    began(tmp_path / "runs" / "7")
    return ServerGate(
        *(tmp_path / "list.json", tmp_path / "homes", tmp_path / "runs", "/usr/bin", "RUN_DIR"),
        *(tmp_path / "log", tmp_path / "resumes", "AGAIN"),
    )


def task(word: str, run: int = 8) -> PullTaskInputResponse:
    config = {RESUME_CONFIG: Scalar(string=word), "overrides": Scalar(string=OVERRIDES)}
    return PullTaskInputResponse(run=Run(run_id=run, override_config=config), fab=Fab(content=packed(APP)))


def issued(gate: ServerGate, root: int = 7) -> str:
    asked = Tickets(gate.resumes, gate.runs)
    with asked.asking():
        return asked.issue(root)


def held_by(gate: ServerGate, run: int) -> subprocess.Popen[bytes]:
    """Redeem in a process of its own, which then becomes another program by `execve`, as the gate does."""
    program = (
        "import os, sys; from quire.consortium.tickets import Tickets; from pathlib import Path; "
        "Tickets(Path(sys.argv[1]), Path(sys.argv[2])).redeem(sys.argv[3], int(sys.argv[4])); "
        "os.execv('/bin/sh', ['/bin/sh', '-c', 'echo held; exec cat'])"
    )
    command = [sys.executable, "-c", program, str(gate.resumes), str(gate.runs), issued(gate), str(run)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_run_without_a_word_has_a_folder_of_its_own(gate: ServerGate) -> None:
    assert gate.gone_on_with(task("")) is None
    assert gate.gone_on_with(PullTaskInputResponse(run=Run(run_id=8))) is None
    assert gate.environment({"AGAIN": "1", GATE_VARIABLE: "x"}, gate.homes, 8)["RUN_DIR"] == str(gate.runs / "8")
    assert "AGAIN" not in gate.environment({"AGAIN": "1"}, gate.homes, 8)  # somebody's own environment says nothing


def test_with_the_word_it_goes_on_in_the_other_ones_folder_and_the_word_is_good_once(gate: ServerGate) -> None:
    word = issued(gate)
    assert stat.S_IMODE((gate.resumes / "7.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(gate.resumes.stat().st_mode) == 0o700
    before = contents(gate.runs / "7")
    folder = gate.gone_on_with(task(word))
    assert folder == gate.runs / "7"
    told = gate.environment({}, gate.homes, 8, folder)
    assert (told["RUN_DIR"], told["AGAIN"]) == (str(gate.runs / "7"), "1")
    assert (gate.runs / "8").resolve() == folder
    assert continued(gate.runs) == {8: 7}
    assert contents(folder) == before
    with pytest.raises(Refused, match="and no `quire submit --resume` wrote a ticket"):
        gate.gone_on_with(task(word, 9))
    assert continued(gate.runs) == {8: 7}


@settings(deadline=None)
@given(word=st.text(max_size=90) | st.from_regex(r"[0-9]{1,3}-[0-9a-f]{64}", fullmatch=True))
def test_no_other_word_opens_a_folder(tmp_path_factory: pytest.TempPathFactory, word: str) -> None:
    home = tmp_path_factory.mktemp("t")
    asked = Tickets(home / "resumes", home / "runs")
    with asked.asking():
        asked.issue(7)
    with pytest.raises(ResumeError, match="and no `quire submit --resume` wrote a ticket"):
        asked.redeem(word, 8)
    assert not (home / "runs").exists()


def test_a_word_has_one_spelling(gate: ServerGate) -> None:
    word = issued(gate)
    for other in (f"0{word}", f"00{word}", word.upper(), f" {word}", f"{word}\n"):
        with pytest.raises(Refused, match="and no `quire submit --resume` wrote a ticket"):
            gate.gone_on_with(task(other))
    assert gate.gone_on_with(task(word)) == gate.runs / "7"


def test_a_newer_ticket_takes_the_place_of_an_older_one(gate: ServerGate) -> None:
    old, new = issued(gate), issued(gate)
    with pytest.raises(Refused, match="and no `quire submit --resume` wrote a ticket"):
        gate.gone_on_with(task(old))
    assert gate.gone_on_with(task(new)) == gate.runs / "7"


def test_the_folder_is_held_for_as_long_as_the_process_lives_that_the_gate_becomes(gate: ServerGate) -> None:
    first = held_by(gate, 8)
    try:
        before = contents(gate.runs / "7")
        with pytest.raises(Refused, match="another run goes on with run 7 already"):
            gate.gone_on_with(task(issued(gate), 9))
        assert contents(gate.runs / "7") == before
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert continued(gate.runs) == {8: 7}
    assert gate.gone_on_with(task(issued(gate), 9)) == gate.runs / "7"
    assert continued(gate.runs) == {8: 7, 9: 8}
    assert lineage(gate.runs, 7) == lineage(gate.runs, 8) == lineage(gate.runs, 9) == [7, 8, 9]


def test_a_folder_that_is_written_or_complete_is_not_gone_on_with(gate: ServerGate) -> None:
    with contextlib.closing(RunFolder(gate.runs / "7", reopen=True)), pytest.raises(Refused, match="still going on"):
        gate.gone_on_with(task(issued(gate)))
    began(gate.runs / "6", "completed")
    with pytest.raises(Refused, match="is complete"):
        gate.gone_on_with(task(issued(gate, 6)))
    with pytest.raises(Refused, match="not the folder of a run"):
        gate.gone_on_with(task(issued(gate, 5)))
    assert continued(gate.runs) == {}
    assert gate.gone_on_with(task(issued(gate))) == gate.runs / "7"


def test_links_that_are_none_of_ours_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "1").symlink_to("2")
    (tmp_path / "2").symlink_to("1")
    (tmp_path / "3").symlink_to("/elsewhere")
    (tmp_path / "x").symlink_to("1")
    assert continued(tmp_path) == {1: 2, 2: 1}
    assert sorted(lineage(tmp_path, 1)) == [1, 2]
    assert lineage(tmp_path, 3) == [3]
