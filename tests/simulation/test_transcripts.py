"""Transcripts of whole runs: kept by the server, audited from the folder alone, and every lie about them found."""

from __future__ import annotations

import json
import shutil
import stat

import numpy as np
import pytest
from private_runs import changed, leaves, put
from secure_runs import BASE, ONE, RUN, rounds_of
from transcript_runs import KEEP, held, wrong

import quire
from quire.clients.identity import new_identity
from quire.conf.compose import compose
from quire.errors import QuireError, RunFailed, SettingsError
from quire.privacy.dp.wire import centred
from quire.privacy.secagg import client_round
from quire.simulation.verify import verify_run
from quire.simulation.verify_transcripts import audit_run
from quire.strategies.folder import read_about
from quire.transparency.reading import Entries
from quire.transparency.verify import Place, verify_log

DISTRIBUTED = "privacy=record_distributed privacy.epsilon=4 training.lr=0.1"


@pytest.fixture
def key(tmp_path, monkeypatch):
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two rounds of five silos; one drops out of the first after it dealt shares."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    quire.run(f"{RUN} {KEEP} runtime.faults=[drop:mask:1:hospital-2]", folder)
    return folder


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def edited(folder, change):
    """Change the journal's lines."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        change(line)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_sums_and_models_are_recomputed_from_what_is_stored(original, tmp_path):
    found = audit_run(original)
    assert found.wrong == []
    assert [(one.round, len(one.replay.u2), len(one.replay.u3), one.models) for one in found.attempts] == [
        (1, 5, 4, True),
        (2, 5, 5, True),
    ]
    assert "2 sums opened again, out of 9 masked vectors, and 2 models recomputed" in found.summary
    assert held(original) == ["round-0001-1.bin", "round-0002-1.bin"]
    for path in (original / "transcripts").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((original / "transcripts").stat().st_mode) == 0o700


def test_what_is_replayed_is_the_sum_of_what_the_silos_masked(tmp_path, monkeypatch):
    """Numpy adds up the silos' own words, which are nowhere in the folder."""
    masked, mask = {}, client_round.mask

    def watched(party, state, data, words):
        def seen():
            masked[party.index] = np.array(words())
            return masked[party.index]

        return mask(party, state, data, seen)

    monkeypatch.setattr(client_round, "mask", watched)
    quire.run(f"{ONE} {KEEP} runtime.faults=[drop:confirm:1:hospital-3]", tmp_path / "run")
    [one] = audit_run(tmp_path / "run").attempts
    assert sorted(masked) == [0, 1, 2, 3, 4]
    bits = one.replay.config.bits
    plain = np.sum([centred(words, bits) for words in masked.values()], axis=0)
    np.testing.assert_array_equal(centred(one.replay.total, bits), plain)


@pytest.mark.parametrize(
    "more",
    [
        "strategy=fedadam",
        "strategy=fednova aggregation.bits=16 aggregation.rotation=true",
        "strategy=fedavgm strategy.fraction=0.8",
        DISTRIBUTED,
        "privacy=silo_distributed privacy.epsilon=4 privacy.delta=1e-5",
        "privacy=record privacy.epsilon=8",
    ],
)
def test_every_model_follows_whatever_the_strategy_and_the_noise(more, tmp_path):
    quire.run(f"{RUN} {KEEP} {more}", tmp_path / "run")
    found = audit_run(tmp_path / "run")
    assert found.wrong == []
    assert [one.models for one in found.attempts] == [True, True]
    if "privacy" in more:
        told = verify_run(tmp_path / "run")
        assert told.wrong == []
        assert found.summary in told.notes


def test_rounds_that_are_tried_again_or_lost_leave_all_their_transcripts(flaky, tmp_path):
    flaky("confirm", 1, 3)
    faults = "runtime.faults=[drop:unmask:2:hospital-1,drop:unmask:2:hospital-2]"
    quire.run(f"{BASE} {KEEP} strategy.rounds=3 {faults}", tmp_path / "run")
    assert "lost" in rounds_of(tmp_path / "run")[1]
    found = audit_run(tmp_path / "run")
    assert found.wrong == []
    assert [(one.round, one.attempt, one.replay.error, one.models) for one in found.attempts] == [
        (1, 1, "NoQuorum", False),
        (1, 2, None, True),
        (2, 1, "UnrecoverableShare", False),
        (3, 1, None, True),
    ]


def test_an_attempt_that_came_to_no_keys_has_no_transcript(flaky, tmp_path):
    flaky("pairs", 1, 3)
    quire.run(f"{ONE} {KEEP}", tmp_path / "run")
    assert [log["error"] for log in rounds_of(tmp_path / "run")[0]["secure"]["attempts"]] == ["CohortTooSmall", None]
    found = audit_run(tmp_path / "run")
    assert (found.wrong, [one.attempt for one in found.attempts]) == ([], [2])


def test_a_run_that_fails_is_audited_as_far_as_it_came(tmp_path):
    faults = "runtime.faults=[drop:mask:2:hospital-1,drop:mask:2:hospital-2]"
    with pytest.raises(RunFailed):
        quire.run(f"{RUN} {KEEP} {faults}", tmp_path / "run")
    found = audit_run(tmp_path / "run")
    assert found.wrong == []
    assert [(one.round, one.replay.error) for one in found.attempts][:2] == [(1, None), (2, "TooFewSurvivors")]
    assert held(tmp_path / "run")[0] == "round-0001-1.bin"


def test_a_log_has_the_hash_of_every_transcript(key, run, tmp_path):
    folder = tmp_path / "logged"
    quire.run(f"{RUN} {KEEP} {DISTRIBUTED}", folder)
    assert verify_log(Place.of(folder)).kinds["transcript"] == 2
    assert verify_run(folder).wrong == []
    entries = [entry for _, entry in Entries(Place.of(folder).entries).each() if entry.kind == "transcript"]
    digests = [one["secure"]["attempts"][0]["transcript"]["sha256"] for one in rounds_of(folder)]
    assert [entry.body for entry in entries] == [{"attempt": 1, "transcript": digest} for digest in digests]
    (folder / "transcripts" / "round-0002-1.bin").unlink()
    found = "\n".join(verify_run(folder).wrong)
    assert "Round 2, attempt 1: the transcript round-0002-1.bin that the journal names is not there." in found
    assert "The log names a transcript of round 2, attempt 1 that is not in transcripts/." in found
    # A journal that no longer tells of it does not help: the log does.
    edited(folder, lambda line: [log.pop("transcript") for log in line.get("secure", {}).get("attempts", ())])
    assert "The log names a transcript of round 2, attempt 1" in wrong(folder)


# ------------------------------------------------------------------------------------------- lies
def test_a_transcript_that_is_gone_changed_or_of_another_round_is_found(run):
    one, other = (run / "transcripts" / name for name in held(run))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    assert "Round 1, attempt 1: the transcript is not the one whose hash the journal has." in wrong(run)
    one.write_bytes(kept[:-1])
    assert "Round 1, attempt 1: the transcript does not hold: The transcript ends in the middle" in wrong(run)
    one.write_bytes(kept[:3000] + bytes([kept[3000] ^ 1]) + kept[3001:])
    assert "Round 1, attempt 1: the transcript does not hold" in wrong(run)
    one.unlink()
    assert wrong(run).splitlines() == [
        "Round 1, attempt 1: the transcript round-0001-1.bin that the journal names is not there.",
        "Round 1: no sum is opened again, and no model recomputed from here on.",
    ]


def test_another_rounds_transcript_is_found_even_where_the_journal_was_changed_with_it(run):
    one, other = (run / "transcripts" / name for name in held(run))
    told = rounds_of(run)[1]["secure"]["attempts"][0]

    def change(line):
        if line.get("round") == 1:
            line["secure"]["attempts"] = [told | {"transcript": told["transcript"] | {"file": one.name}}]

    one.write_bytes(other.read_bytes())
    edited(run, change)
    assert "Round 1, attempt 1: the transcript is that of round 2, attempt 1." in wrong(run)
    assert "Round 1, attempt 1: it began from another state than the one that the rounds before come to." in wrong(run)


def test_every_word_of_the_journal_about_a_transcript_counts(run):
    """One leaf at a time: what the transcript tells as well has to be the same."""
    lines, tried = rounds_of(run), 0
    checked = ("cohort", "u2", "u3", "error", "transcript", "blame", "attempt")
    for place, line in enumerate(lines):
        for path, value in leaves(line["secure"]["attempts"][0]):
            if path[0] not in checked:
                continue
            rewritten = json.loads(json.dumps(lines))
            other = changed(value)
            if path[0] == "blame":
                other = {"silo": "hospital-1", "stage": "shares", "error": "EdgeMismatch", "proven": True}
                other = [other]
            put(rewritten[place]["secure"]["attempts"][0], path, other)
            told = iter(rewritten)
            copy = run.parent / "copy"
            shutil.copytree(run, copy)
            edited(copy, lambda line, told=told: line.update(next(told)) if line["event"] == "round" else None)
            assert wrong(copy), path
            shutil.rmtree(copy)
            tried += 1
    assert tried > 35


def test_a_model_that_does_not_follow_from_its_sum_is_found(run):
    edited(run, lambda line: line.update(model="00" * 32) if line.get("round") == 1 else None)
    assert "Round 1: its sum leads to another model than the journal has" in wrong(run)


def test_a_first_model_of_the_servers_choice_is_found(run):
    edited(run, lambda line: line.update(model="00" * 32) if line["event"] == "start" else None)
    assert "The run did not begin with the model that its seed gives" in wrong(run)


def test_a_round_called_lost_or_stopped_that_was_not_is_found(run):
    edited(run, lambda line: line.update(lost="it was lost") if line.get("round") == 2 else None)
    assert "Round 2: it is called lost, and its transcript opens a sum." in wrong(run)


def test_a_journal_that_names_none_is_found(run):
    def change(line):
        for log in line.get("secure", {}).get("attempts", ()):
            log.pop("transcript")

    edited(run, change)
    assert "Round 1, attempt 1: the settings ask for transcripts, and the journal names none." in wrong(run)
    shutil.rmtree(run / "transcripts")
    assert "Round 1, attempt 1: the settings ask for transcripts, and the journal names none." in wrong(run)


@pytest.mark.parametrize("name", ["../metrics.jsonl", "/etc/hostname", "", 7, None, ".", "nothing.bin"])
def test_a_name_leads_nowhere_else(run, name):
    edited(
        run, lambda line: [log["transcript"].update(file=name) for log in line.get("secure", {}).get("attempts", ())]
    )
    assert "does not name its transcript" in wrong(run) or "is not there" in wrong(run)


def test_other_settings_than_the_silos_agreed_on_are_found(run):
    path = run / "settings.yaml"
    path.write_text(path.read_text().replace("partition=iid", "partition=iid training.lr=0.3"))
    assert "its session was agreed on other settings than the run's" in wrong(run)


def test_another_roster_or_pin_is_refused(run):
    with pytest.raises(QuireError, match="and the pin is 00"):
        audit_run(run, pin="00" * 32)
    with pytest.raises(QuireError, match=r"cannot be audited: settings\.yaml is no roster"):
        audit_run(run, roster=run / "settings.yaml")
    # Outside of a simulation the roster has to be signed, and this one is not.
    (run / "run.json").write_text(json.dumps({**read_about(run), "runtime": "deployment"}))
    with pytest.raises(QuireError, match="cannot be audited"):
        audit_run(run)
    (run / "roster.json").unlink()
    with pytest.raises(QuireError, match="the run folder has no roster; name the consortium's with --roster FILE"):
        audit_run(run)


def test_runs_without_transcripts_say_so(tmp_path):
    with pytest.raises(SettingsError, match="take aggregation=secure"):
        compose(f"{ONE} output.transcripts=true")
    quire.run(f"{ONE} aggregation=secure", tmp_path / "run")
    assert not (tmp_path / "run" / "transcripts").exists()
    with pytest.raises(SettingsError, match=r"output\.transcripts=true keeps them"):
        audit_run(tmp_path / "run")
    quire.run(ONE, tmp_path / "plain")
    with pytest.raises(SettingsError, match="no secure aggregation"):
        audit_run(tmp_path / "plain")


def test_keeping_transcripts_changes_no_model(original, tmp_path):
    quire.run(f"{RUN} aggregation=secure runtime.faults=[drop:mask:1:hospital-2]", tmp_path / "run")
    assert read_about(tmp_path / "run")["model"] == read_about(original)["model"]
