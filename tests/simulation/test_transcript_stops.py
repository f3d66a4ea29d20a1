"""Servers that stop or are killed while they keep transcripts: none is torn, lost or overwritten."""

from __future__ import annotations

import pytest
from killing import die, killed, resumed
from secure_runs import BASE, RUN
from transcript_runs import KEEP, held, wrong

import quire
from quire.clients.identity import new_identity
from quire.errors import RunFailed
from quire.privacy.secagg.recording import RecordedRound
from quire.simulation.verify_transcripts import audit_run
from quire.strategies import transcripts
from quire.strategies.folder import read_about


@pytest.fixture
def key(tmp_path, monkeypatch):
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))


def armed(stage, round_number):
    """Kill the server while it writes a transcript: in the middle of a message of a round's stage."""

    def arm():
        receive = RecordedRound.receive

        def deadly(self, sender, data):
            if (self._waiting.name, self._start.round) == (stage, round_number) and sender == 2:
                add = self._writer.add

                def torn(message):
                    add(message[: len(message) // 2])
                    for file, _ in kept:
                        file._stream.flush()
                    die()

                self._writer.add = torn
            return receive(self, sender, data)

        kept = []
        begin = transcripts.Transcripts.begin

        def watched(self, *about, **named):
            server = begin(self, *about, **named)
            kept[:] = self._open.values()
            return server

        transcripts.Transcripts.begin = watched
        RecordedRound.receive = deadly

    return arm


@pytest.mark.parametrize("stage", ["MASKED", "UNMASKED"])
def test_a_server_that_is_killed_while_it_writes_leaves_no_torn_transcript(stage, tmp_path):
    overrides = f"{BASE} {KEEP} strategy.rounds=3 partition.silos=4 output.progress=none"
    killed(overrides, tmp_path / "run", armed(stage, 2))
    assert held(tmp_path / "run") == [".round-0002-1.bin.new", "round-0001-1.bin"]
    first = (tmp_path / "run" / "transcripts" / "round-0001-1.bin").read_bytes()
    stopped = audit_run(tmp_path / "run")
    assert (stopped.wrong, [one.round for one in stopped.attempts]) == ([], [1])
    resumed(overrides, tmp_path / "run")
    assert held(tmp_path / "run") == [f"round-000{number}-1.bin" for number in (1, 2, 3)]
    assert (tmp_path / "run" / "transcripts" / "round-0001-1.bin").read_bytes() == first
    found = audit_run(tmp_path / "run")
    assert (found.wrong, [one.models for one in found.attempts]) == ([], [True] * 3)


def test_what_was_logged_before_a_stop_is_kept_beside_the_round_that_was_run_again(key, tmp_path):
    faults = "runtime.faults=[drop:mask:2:hospital-1,drop:mask:2:hospital-2] aggregation.attempts=1"
    overrides = f"{BASE} {KEEP} strategy.rounds=2 partition.silos=4 output.progress=none"
    with pytest.raises(RunFailed):
        quire.run(f"{overrides} {faults}", tmp_path / "run")
    before = (tmp_path / "run" / "transcripts" / "round-0002-1.bin").read_bytes()
    with pytest.raises(RunFailed):
        resumed(f"{overrides} {faults}", tmp_path / "run")
    assert held(tmp_path / "run") == ["round-0001-1.bin", "round-0002-1-again-1.bin", "round-0002-1.bin"]
    assert (tmp_path / "run" / "transcripts" / "round-0002-1.bin").read_bytes() == before
    found = audit_run(tmp_path / "run")
    assert found.wrong == []
    assert "1 transcripts are named by no line of the journal" in "\n".join(found.notes)
    (tmp_path / "run" / "transcripts" / "round-0002-1.bin").write_bytes(before[:-1])
    assert "The log names a transcript of round 2, attempt 1 that is not in transcripts/." in wrong(tmp_path / "run")


def test_a_disk_that_is_full_ends_the_run_in_a_sentence(tmp_path, monkeypatch):
    write = transcripts._File.write

    def full(self, data):
        if "round-0002" in self._stem and len(data) > 500:
            self._failed(OSError(28, "No space left on device"))
        write(self, data)

    monkeypatch.setattr(transcripts._File, "write", full)
    with pytest.raises(RunFailed, match=r"cannot be written \(No space left on device\): make room"):
        quire.run(f"{RUN} {KEEP}", tmp_path / "run")
    assert read_about(tmp_path / "run")["status"] == "failed"
    assert held(tmp_path / "run") == ["round-0001-1.bin"]
