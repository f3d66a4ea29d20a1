"""`quire submit --resume` and `quire runs`: what is gone on with, what is refused, and in what words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import left_behind
import pytest
from charters import amended, charter, signed, written
from command_line import Call, command_line
from flwr.proto.run_pb2 import Run, RunStatus
from left_behind import OVERRIDES, began, contents
from provisioned import Provisioned, provision

import quire
from quire.consortium import resume as resume_module
from quire.consortium import submit as submit_module
from quire.consortium.about import Server
from quire.consortium.registry import RegistryError
from quire.consortium.services import free_ports
from quire.consortium.submit import RunLine, list_runs, told_of
from quire.consortium.superlink import runs_folder, tickets
from quire.consortium.tickets import ResumeError, continued
from quire.strategies.folder import RunFolder


class Link:
    """What a SuperLink would say of runs, in the place of one that is started: statuses, and what was submitted."""

    def __init__(self) -> None:
        self.known: dict[int, Run] = {}
        self.sent: list[tuple[str, str]] = []
        self.down = False

    def says(self, run: int, status: str, sub: str = "") -> None:
        self.known[run] = Run(run_id=run, status=RunStatus(status=status, sub_status=sub))

    def list(self, connection: object) -> dict[int, Run]:
        if self.down:
            raise RegistryError("The SuperLink does not answer.")
        return dict(self.known)

    def submit(self, folder: object, settings: quire.Settings, word: str = "") -> tuple[int, object]:
        self.sent.append((settings.overrides, word))
        run = 100 + len(self.sent)
        self.says(run, "pending")
        return run, None


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Provisioned:
    return provision(tmp_path_factory.mktemp("c"), ["clinic", "ward"], Server("localhost", free_ports(1)[0]))


@pytest.fixture
def link(founded: Provisioned, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """An operator's folder with a run that was lost, 7."""
    made, operator = Link(), founded.operator
    operator.run.mkdir(exist_ok=True)
    (operator.run / "superlink.json").write_text('{"address": "127.0.0.1:1", "metrics": 1}')
    monkeypatch.setattr(submit_module, "_known", made.list)
    monkeypatch.setattr(resume_module, "submit", made.submit)
    runs_folder(operator).mkdir()
    began(runs_folder(operator) / "7")
    made.says(7, "finished", "failed")
    yield made
    for path in sorted(operator.root.glob("runs/**/*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    runs_folder(operator).rmdir()
    for path in tickets(operator).folder.glob("*"):
        path.unlink()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)


def refused(call: Call, founded: Provisioned, *arguments: str) -> str:
    """Call `quire submit --resume`, which has to refuse in one sentence; the run folders are as they were."""
    before = contents(runs_folder(founded.operator))
    status, _, err = call("submit", str(founded.operator.root), "--resume", *arguments)
    assert status != 0
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    assert contents(runs_folder(founded.operator)) == before
    return err


def test_a_lost_run_is_gone_on_with_as_it_was(link: Link, founded: Provisioned, call: Call) -> None:
    status, out, err = call("submit", str(founded.operator.root), "--resume", "7", "strategy.rounds=4")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "Run 101 goes on with run 7 after round 0."
    ((overrides, word),) = link.sent
    assert quire.compose(overrides).as_dict() == quire.compose(OVERRIDES).as_dict()
    asked = tickets(founded.operator)
    assert asked.waiting(7) == 101
    assert refused(call, founded, "7") == "quire: Run 101 goes on with run 7 already.\n"
    assert asked.redeem(word, 101) == runs_folder(founded.operator) / "7"
    assert asked.waiting(7) is None
    with contextlib.closing(RunFolder(runs_folder(founded.operator) / "7", reopen=True)):
        assert "is being written by a run that is still going on" in refused(call, founded, "101")
    assert len(link.sent) == 1


def test_a_run_that_went_on_can_be_gone_on_with_under_either_number(link: Link, founded: Provisioned) -> None:
    operator = founded.operator
    for run, number in ((101, 7), (102, 7), (103, 101)):
        made = resume_module.resume(operator, number, [], lambda words: None, patience=0.0)
        assert made.run == run
        assert made.folder == runs_folder(operator) / "7"
        word = link.sent[-1][1]
        # In a process of its own, whose lock goes with it.
        child = os.fork()
        if child == 0:
            status = 1
            try:
                tickets(operator).redeem(word, run)
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        link.says(run, "finished", "failed")
    assert continued(runs_folder(operator)) == {101: 7, 102: 101, 103: 102}
    lines = {line.run: line for line in list_runs(operator)}
    assert [lines[run].status for run in (7, 101, 102, 103)] == ["continued"] * 3 + ["lost"]
    assert [(lines[run].continues, lines[run].continued) for run in (7, 101, 103)] == [
        (None, 101),
        (7, 102),
        (102, None),
    ]


def test_a_ticket_whose_run_is_over_or_was_never_submitted_is_in_nobodys_way(link: Link, founded: Provisioned) -> None:
    asked = tickets(founded.operator)
    with asked.asking():
        asked.issue(7)  # killed before it was submitted
    first = resume_module.resume(founded.operator, 7, [], lambda words: None)
    link.says(first.run, "finished", "failed")  # refused, or stopped, before the gate was shown its word
    assert resume_module.resume(founded.operator, 7, [], lambda words: None).run == first.run + 1


def test_a_run_whose_process_the_superlink_still_believes_in_is_waited_for(
    link: Link, founded: Provisioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    link.says(7, "running")
    told: list[str] = []
    monkeypatch.setattr(resume_module.time, "sleep", lambda seconds: link.says(7, "finished", "failed"))
    assert resume_module.resume(founded.operator, 7, [], told.append).before == 7
    assert len(told) == 1
    assert "takes a minute" in told[0]


def test_what_cannot_be_gone_on_with_is_told_in_one_sentence(link: Link, founded: Provisioned, call: Call) -> None:
    runs = runs_folder(founded.operator)
    assert "Run 99 has left nothing" in refused(call, founded, "99")
    began(runs / "1", "completed")
    assert "is complete: there is nothing to resume" in refused(call, founded, "1")
    began(runs / "2", code="0" * 64)
    assert "was started with other code than is here now" in refused(call, founded, "2")
    began(runs / "3", overrides=f"{OVERRIDES} strategy=scaffold")
    assert "strategy=scaffold has silos remember something" in refused(call, founded, "3")
    assert "strategy.rounds=4, not 5" in refused(call, founded, "7", "strategy.rounds=5")
    assert "leave out --resume" in refused(call, founded, "7", "--bundle", "x.fab")
    with contextlib.closing(RunFolder(runs / "7", reopen=True)):
        assert "is being written by a run that is still going on" in refused(call, founded, "7")
    link.down = True
    assert "does not answer" in refused(call, founded, "7")
    assert link.sent == []


def test_a_run_does_not_go_on_under_another_charter(link: Link, founded: Provisioned, call: Call) -> None:
    operator, runs = founded.operator, runs_folder(founded.operator)
    began = int(time.time()) - 3600
    times = {"issued": began - 3600, "not_before": began}
    first, over = charter(**times, not_after=began + 9 * 3600), charter(**times, not_after=began + 60)
    later = amended(first, issued=began - 1800, not_before=began + 1800)
    for number, under in ((8, first), (9, over)):
        left_behind.began(runs / str(number), overrides=f"{OVERRIDES} charter={under.hash}")
        link.says(number, "finished", "failed")
    assert "the folder has none any more: it cannot go on; submit a new run." in refused(call, founded, "8")
    try:
        written(operator.charter, signed(over))
        assert f"was under the charter {over.hash[:16]}, and that has expired" in refused(call, founded, "9")
        written(operator.charter, signed(first))
        said = f"version 1, ({first.hash[:16]}) is in force now: it cannot go on; submit a new run."
        assert f"Run 7 was under no charter, and the charter heart, {said}" in refused(call, founded, "7")
        assert resume_module.resume(operator, 8, [], lambda words: None).before == 8
        link.says(101, "finished", "failed")
        written(operator.charter, signed(first), signed(later, previous=first))
        assert f"Run 8 was under the charter {first.hash[:16]}, and " in refused(call, founded, "8")
    finally:
        shutil.rmtree(operator.charter)


def test_a_run_that_goes_on_is_refused(link: Link, founded: Provisioned) -> None:
    link.says(7, "running")
    with pytest.raises(ResumeError, match="Run 7 goes on: it can be gone on with once it has ended"):
        resume_module.resume(founded.operator, 7, [], lambda words: None, patience=0.0)
    assert link.sent == []


def test_two_who_ask_at_once_come_one_after_the_other(link: Link, founded: Provisioned) -> None:
    """The second waits for the first, and then finds its run."""
    asked, found = tickets(founded.operator), list[str]()

    def second() -> None:
        with pytest.raises(ResumeError) as error:
            resume_module.resume(founded.operator, 7, [], lambda words: None)
        found.append(str(error.value))

    link.says(50, "pending")
    thread = threading.Thread(target=second)
    with asked.asking():
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        asked.issue(7)
        asked.submitted(7, 50)
    thread.join(60.0)
    assert found == ["Run 50 goes on with run 7 already."]


# ---------------------------------------------------------------------------------------------------- what is shown
def test_the_list_tells_what_goes_on_with_what(link: Link, founded: Provisioned, call: Call) -> None:
    operator = founded.operator
    made = resume_module.resume(operator, 7, [], lambda words: None)
    tickets(operator).redeem(link.sent[0][1], made.run)
    status, out, _ = call("runs", str(operator.root))
    assert status == 0
    assert f"run {made.run} goes on with it" in out
    assert "goes on with run 7" in out
    status, out, _ = call("runs", str(operator.root), "--json")
    lines = {line["run"]: line for line in map(json.loads, out.splitlines())}
    assert (lines[7]["status"], lines[7]["continued"]) == ("continued", made.run)
    assert (lines[made.run]["status"], lines[made.run]["continues"]) == ("pending", 7)


def test_how_the_run_before_ended_is_not_how_this_one_did(link: Link, founded: Provisioned) -> None:
    """Until the new run's process has begun, and if it never does, the folder still says how the old one ended."""
    operator = founded.operator
    began(runs_folder(operator) / "9", "failed")
    link.says(9, "finished", "failed")
    made = resume_module.resume(operator, 9, [], lambda words: None)
    tickets(operator).redeem(link.sent[0][1], made.run)
    link.says(made.run, "running")

    def told() -> RunLine:
        return next(one for one in list_runs(operator) if one.run == made.run)

    assert (told().status, told().error, told().finished, told().over) == ("running", None, None, False)
    link.says(made.run, "finished", "failed")
    assert (told().status, told().finished) == ("lost", None)
    assert "its process ended without a word" in str(told().error)
    link.known[made.run].status.details = "App failed with exception: Other code."
    assert (told().status, told().error) == ("failed", "Other code.")
    del link.known[made.run]
    assert told().status == "lost"
    with contextlib.closing(RunFolder(runs_folder(operator) / "9", reopen=True)) as folder:
        folder.run = str(made.run)
        folder.resume()
        folder.finish("failed", "Round 1 failed.")
    link.says(made.run, "finished", "failed")
    assert (told().status, told().error) == ("failed", "Round 1 failed.")
    assert told().finished is not None


def test_rounds_that_are_done_are_not_told_again(tmp_path: Path) -> None:
    began(tmp_path / "7")
    lines = [{"event": "start", "rounds": 4}, *({"event": "round", "round": one} for one in (1, 2))]
    lines = [{**line, "replied": [], "failed": [], "seconds": {}} for line in lines]
    (tmp_path / "7" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert told_of(tmp_path / "7") == (2, 2)
    left = {"event": "enrolment", "failed": []}
    (tmp_path / "7" / "metrics.jsonl").write_text(json.dumps(left) + "\n" + json.dumps(lines[0]) + "\n")
    assert told_of(tmp_path / "7") == (0, 0)  # no round was done: the journal is begun anew
