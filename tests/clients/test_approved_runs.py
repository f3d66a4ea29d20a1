"""Runs over real silos in this process whose operators approve or reject them while the server waits or works."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from flwr.app import Message
from left_behind import began
from secure_place import RUN, SILOS, Place
from secure_silos import overrides_of, serve
from typer.testing import CliRunner

from quire.cli import app as command
from quire.clients import contract
from quire.clients.identity import new_identity, read_roster
from quire.errors import RunFailed
from quire.privacy.approval import Statement
from quire.strategies import approvals, server_app
from quire.strategies.approvals import APPROVALS_FILE
from quire.strategies.folder import RunFolder, read_about
from quire.transparency.reading import Entries
from quire.transparency.verify import Place as LogPlace
from quire.transparency.verify import verify_log

POLICY = "modes: [none], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, approval: true"


def quire(place: Place, silo: str, *words: str) -> str:
    done = CliRunner().invoke(command, [*words, "--silo", str(place.files[silo])])
    assert done.exit_code == 0, done.output
    return done.output


class Operators:
    """What the operators do when certain messages are on their way to their silos."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.asked, self.late = place, dict.fromkeys(place.files, 0), {"hospital-3": 2}
        self.stops: tuple[str, str, str] | None = None
        self.answered: list[tuple[str, str, str]] = []
        monkeypatch.setattr(approvals, "_SHORTEST_PAUSE", 0.01)
        place.grid.swap = self.look

    def look(self, message: Message, silo: str) -> None:
        stage, number = message.metadata.message_type, message.metadata.group_id
        self.answered.append((silo, stage, number))
        if stage == contract.QUERY:
            self.asked[silo] += 1
            if self.asked[silo] == self.late.get(silo, 1) + 1:
                assert f"Run {RUN} (" in quire(self.place, silo, "approve")
                quire(self.place, silo, "approve", str(RUN), "--by", "anna", "--reason", "vote 26-117")
        elif (silo, stage, number) == self.stops:
            quire(self.place, silo, "reject", str(RUN), "--by", "ben", "--reason", "withdrawn")


def place_of(folder: Path, more: str) -> Place:
    return Place(folder, overrides_of(SILOS, 2, f"strategy.fraction_evaluate=0 {more}"), POLICY)


@pytest.mark.slow
def test_a_run_waits_goes_on_after_the_last_approval_and_stops_at_who_rejects_it_in_mid_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of(tmp_path, "strategy.deadlines=[approval:600]")
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv(server_app.LOG_KEY_VARIABLE, str(tmp_path / "log.key"))
    operators = Operators(place, monkeypatch)
    operators.stops = ("hospital-2", contract.MASK, "2")
    rounds = place.serve()
    assert [len(report.replied) for report, _ in rounds] == [3, 2]
    (failure,) = rounds[1][0].failed
    assert (failure.silo, failure.code) == ("hospital-2", "rejected")
    assert operators.asked == {"hospital-1": 2, "hospital-2": 2, "hospital-3": 3}
    assert f"the approval of hospital-1, hospital-2, hospital-3: `quire approve {RUN}` at the silo." in caplog.text
    assert "the approval of hospital-3:" in caplog.text

    folder = tmp_path / "run"
    roster, known = read_roster(tmp_path / "silos" / "roster.json").roster, {}
    for line in (folder / APPROVALS_FILE).read_bytes().splitlines():
        statement = Statement.decode(line)
        known[statement.body["silo"]] = statement.binding.hash
        statement.check(next(one.identity for one in roster.members if one.name == statement.body["silo"]))
        assert statement.body["reason"] is None
    found = verify_log(LogPlace.of(folder))
    assert found.wrong == []
    entries = [entry for _, entry in Entries(LogPlace.of(folder).entries).each()]
    logged = [entry.body for entry in entries if entry.kind == "approval"]
    assert logged == [{"silo": silo, "decision": "approved", "what": known[silo]} for silo in sorted(place.files)]
    refusals = [entry.body for entry in entries if entry.kind == "refusal"]
    assert refusals == [{"silo": "hospital-2", "code": "rejected"}]
    assert "withdrawn" not in (folder / "metrics.jsonl").read_text()
    assert "by ben on" in quire(place, "hospital-2", "approve", "--list", "--all")


def test_a_run_that_nobody_waits_for_fails_in_a_sentence_that_names_who_is_missing(tmp_path: Path) -> None:
    place = place_of(tmp_path, "")
    with pytest.raises(RunFailed, match=r"0 of 3 silos could be enrolled, 2 are needed: hospital-1: its operator has "):
        place.serve()
    about = read_about(tmp_path / "run")
    assert (about["status"], about["run"]) == ("failed", str(RUN))
    assert f"`quire approve {RUN}`" in about["error"]


def test_a_run_that_cannot_go_on_leaves_the_approvals_of_the_run_before_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(tmp_path, "strategy.deadlines=[approval:600]")
    Operators(place, monkeypatch).late = {}
    folder = began(tmp_path / "run", "failed", place.overrides, server_app.CODE_HASH)
    with closing(RunFolder(folder, reopen=True)) as opened:
        opened.hold_to("silos", ["others"])
    (folder / APPROVALS_FILE).write_bytes(b"of the run before\n")
    with pytest.raises(RunFailed, match="This run began with other silos"):
        serve(place.grid, RUN, folder, tmp_path / "silos" / "roster.json", place.overrides, resume=True)
    assert (folder / APPROVALS_FILE).read_bytes() == b"of the run before\n"


@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_no_stage_of_secure_aggregation_is_answered_before_an_approval(stage: str, tmp_path: Path) -> None:
    place = place_of(tmp_path, "")
    reply = place.ask(stage)
    assert reply.error.reason == "quire:awaiting_approval"
    quire(place, "hospital-1", "reject", str(RUN))
    assert place.ask(stage).error.reason == "quire:rejected"
