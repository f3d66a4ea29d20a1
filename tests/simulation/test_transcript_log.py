"""Transcripts of a run that has a transparency log: held to that log, and missed where they are gone."""

from __future__ import annotations

import json
import shutil

import pytest
from secure_runs import BASE, RUN, rounds_of
from transcript_runs import KEEP, wrong

import quire
from quire.clients.identity import new_identity
from quire.errors import RunFailed
from quire.simulation.verify import verify_run
from quire.simulation.verify_transcripts import audit_run
from quire.strategies import transcripts

DISTRIBUTED = "privacy=record_distributed privacy.epsilon=4 training.lr=0.1"
FULL = OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    new_identity(folder / "log.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_LOG_KEY", str(folder / "log.key"))
        for name in ("run", "other"):
            quire.run(f"{RUN} {KEEP} {DISTRIBUTED}", folder / name)
    return folder / "run"


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def edited(folder, change):
    """Change the journal's lines of rounds."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "round":
            change(line)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_honest_run_with_a_log_holds_and_so_do_its_transcripts(original):
    found = audit_run(original)
    assert (found.wrong, [one.models for one in found.attempts]) == ([], [True, True])
    assert [one.replay.head.log_root.hex() for one in found.attempts] == [
        line["secure"]["checkpoint"] for line in rounds_of(original)
    ]
    told = verify_run(original)
    assert told.wrong == []
    assert found.summary in told.notes


def test_another_log_is_not_the_one_that_the_silos_agreed_on(run, original):
    shutil.rmtree(run / "log")
    shutil.copytree(original.parent / "other" / "log", run / "log")
    assert "Round 1, attempt 1: its session was agreed on other settings than the run's." in wrong(run)
    shutil.rmtree(run / "log")
    assert "Round 1, attempt 1: the journal has a checkpoint for the round, and there is no log" in wrong(run)


@pytest.mark.parametrize("checkpoint", ["00" * 32, "of the other round", 7, None])
def test_a_checkpoint_that_no_silo_masked_for_is_found(run, checkpoint):
    other = rounds_of(run)[1]["secure"]["checkpoint"]

    def change(line):
        if line["round"] == 1:
            line["secure"]["checkpoint"] = (
                other if isinstance(checkpoint, str) and "other" in checkpoint else checkpoint
            )

    edited(run, change)
    found = wrong(run)
    assert "Round 1, attempt 1: it is bound to another checkpoint of the log than the journal has, or to none." in found
    assert "Round 2, attempt 1: it is bound" not in found


def test_transcripts_are_missed_whatever_settings_yaml_says_of_them(run):
    path = run / "settings.yaml"
    text = path.read_text()
    path.write_text(text.replace("output.transcripts=true", "output.transcripts=false"))
    assert path.read_text() != text
    shutil.rmtree(run / "transcripts")
    gone = "the transcript round-0001-1.bin that the journal names is not there."
    assert gone in wrong(run)
    assert gone in "\n".join(verify_run(run).wrong)
    edited(run, lambda line: [one.pop("transcript") for one in line["secure"]["attempts"]])
    assert "The log names a transcript of round 1, attempt 1 that is not in transcripts/." in wrong(run)
    edited(run, lambda line: line["secure"].update(attempts=[{"transcript": {"file": "gone.bin"}}]))
    shutil.rmtree(run / "log")
    assert "the transcript gone.bin that the journal names is not there." in wrong(run)


def test_what_is_no_file_is_told_of_in_a_sentence(run):
    (run / "transcripts" / "x.bin").mkdir()
    assert wrong(run) == "A file that the journal does not name: x.bin cannot be read: Is a directory."


def test_no_transcript_that_is_there_is_called_missing(run):
    """Neither one that the journal contradicts, nor one that is there as the log has it and does not hold."""
    edited(run, lambda line: line["secure"]["attempts"][0].update(error="NoQuorum"))
    found = wrong(run)
    assert "Round 1, attempt 1: the journal tells of another end of the attempt than the transcript." in found
    assert "that is not in transcripts/" not in found


def test_a_disk_that_is_full_hides_no_failed_round(tmp_path, monkeypatch):
    """The round failed for a reason of its own: that is told, and the journal has it."""
    keep = transcripts._File.keep

    def full(self):
        if "round-0002" in self._stem:
            self._failed(FULL)
        return keep(self)

    monkeypatch.setattr(transcripts._File, "keep", full)
    faults = "runtime.faults=[drop:mask:2:hospital-1,drop:mask:2:hospital-2] aggregation.attempts=1"
    with pytest.raises(RunFailed, match="Round 2 failed: secure aggregation came to nothing"):
        quire.run(f"{BASE} {KEEP} strategy.rounds=2 partition.silos=4 {faults}", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["event"] == "failed"]
    assert [one["error"] for one in failed[0]["secure"]["attempts"]] == ["TooFewSurvivors"]


def test_one_file_that_cannot_be_sealed_leaves_the_others_whole(flaky, tmp_path, monkeypatch):
    """The sum of the second attempt was opened, and the first one's file takes no more bytes: the run ends, in words
    that do not tell to do what a resumed run refuses."""
    flaky("confirm", 1, 3)
    keep = transcripts._File.keep

    def full(self):
        if self._stem == "round-0001-1":
            self._failed(FULL)
        return keep(self)

    monkeypatch.setattr(transcripts._File, "keep", full)
    with pytest.raises(RunFailed, match=r"\(No space left on device\): make room, and resume the run\.$"):
        quire.run(f"{BASE} {KEEP} strategy.rounds=1", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "transcripts").iterdir()] == ["round-0001-2.bin"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (failed,) = [line for line in lines if line["event"] == "failed"]
    assert ["transcript" in one for one in failed["secure"]["attempts"]] == [False, True]
