"""`quire verify` and `quire log verify` where silos countersigned: whoever is missing is named, and the round."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from private_runs import journal
from secure_runs import PRIVATE, SECURE

import quire
from quire.clients.identity import load_identity, new_identity
from quire.simulation.verify import verify_run
from quire.strategies.folder import read_about
from quire.transparency.log import Log
from quire.transparency.reading import Entries
from quire.transparency.verify import Place, verify_log

RUN = f"{SECURE} partition.silos=4 {PRIVATE}"
SILOS = [f"hospital-{place}" for place in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    new_identity(folder / "log.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_LOG_KEY", str(folder / "log.key"))
        quire.run(RUN, folder / "run")
    return folder


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original / "run", tmp_path / "run")


def marks(run, silo):
    """Return the lines of a silo's countersignatures, in order."""
    return [line for line in Place.of(run).checkpoints.read_text().splitlines() if line.startswith(f"\u2014 {silo} ")]


def change(run, old, new):
    file = Place.of(run).checkpoints
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_an_honest_run_verifies_and_all_countersigned(run):
    found = verify_run(run)
    assert found.wrong == []
    assert any("8 countersignatures were checked against the roster" in words for words in found.notes)
    assert [line["secure"]["checkpoint"] for line in journal(run) if line["event"] == "round"] == [
        note.checkpoint.hash for note in verify_log(Place.of(run)).notes[:2]
    ]


def test_the_model_is_that_of_a_run_without_a_log(original, tmp_path):
    assert quire.run(RUN, tmp_path / "plain").model == read_about(original / "run")["model"]
    assert not (tmp_path / "plain" / "log").exists()


@pytest.mark.parametrize(("silo", "number"), [("hospital-2", 0), ("hospital-4", 1)])
def test_a_missing_countersignature_is_named_with_its_round(run, silo, number):
    change(run, marks(run, silo)[number] + "\n", "")
    words = f"Round {number + 1} was bound to the checkpoint at "
    for wrong in (verify_run(run).wrong, verify_log(Place.of(run)).wrong):
        (only,) = wrong
        assert words in only
        assert only.endswith(f" entries, which lacks the countersignature of {silo}.")


def test_a_countersignature_that_does_not_verify_is_named(run):
    line = marks(run, "hospital-3")[0]
    blob = bytearray(base64.b64decode(line.split()[-1]))
    blob[-1] ^= 1
    change(run, line, f"\u2014 hospital-3 {base64.b64encode(bytes(blob)).decode()}")
    assert any(
        "countersignature of hospital-3" in words and "does not verify" in words for words in verify_run(run).wrong
    )


def test_anothers_countersignature_does_not_serve(run):
    first, second = marks(run, "hospital-3")
    change(run, second, first)
    assert any("hospital-3" in words for words in verify_run(run).wrong)


def anew(run, key, keep):
    """Write the log anew, as whoever has its key can, with every entry as a function wants it."""
    place = Place.of(run)
    entries, notes = [entry for _, entry in Entries(place.entries).each()][1:], verify_log(place).notes
    shutil.rmtree(run / "log")
    with Log.open(run / "log", notes[0].checkpoint.origin, key, 1) as log:
        log.append(*(made for entry in entries if (made := keep(entry)) is not None))
        log.checkpoint(1)


def test_a_server_that_leaves_out_which_checkpoint_it_was_is_found(run, original):
    anew(run, load_identity(original / "log.key"), lambda entry: entry if entry.kind != "checkpoint" else None)
    assert verify_log(Place.of(run)).wrong == []
    assert verify_run(run).wrong == [
        f"The log does not say which checkpoint round {number} was bound to." for number in (1, 2)
    ]


def test_a_server_that_names_a_checkpoint_that_is_not_there_is_found(run, original):
    anew(run, load_identity(original / "log.key"), lambda entry: entry)
    assert all("is not there" in words for words in verify_log(Place.of(run)).wrong)
    assert "Round 1 was bound to a checkpoint at" in verify_run(run).wrong[0]


def test_a_server_that_says_that_fewer_had_to_countersign_is_found(run, original):
    """With the log as long as it was: the journal, and the receipts in it, say who took part."""
    place = Place.of(run)
    key = load_identity(original / "log.key")
    # Only the last round's entry can be changed without its checkpoint becoming another one.
    entries = [entry for _, entry in Entries(place.entries).each()]
    notes = verify_log(place).notes
    covered = notes[1].checkpoint.size
    shutil.rmtree(run / "log")
    with Log.open(run / "log", notes[0].checkpoint.origin, key, entries[0].time) as log:
        at = 1
        for note in notes[:2]:
            log.append(*entries[at : note.checkpoint.size])
            at = note.checkpoint.size
            made = log.checkpoint(note.checkpoint.time)
            assert made.checkpoint == note.checkpoint
            log._checkpoints.append(note.encode() + b"\n")
            log.notes[-1] = note
        for entry in entries[covered:]:
            body = {**entry.body, "silos": SILOS[1:]} if entry.kind == "checkpoint" else entry.body
            log.append(type(entry)(entry.kind, entry.run, entry.round, entry.time, body))
        log.checkpoint(notes[-1].checkpoint.time)
    assert verify_log(Place.of(run)).wrong == []
    assert verify_run(run).wrong == [
        "The log has no countersignature of hospital-1 on the checkpoint that round 2 was bound to."
    ]


def test_a_log_that_was_taken_away_is_missed(run):
    shutil.rmtree(run / "log")
    assert "There is no log, and the journal says that round 1 was bound to one: it was taken away." in (
        verify_run(run).wrong
    )


def test_a_journal_without_the_checkpoint_is_found(run):
    lines = journal(run)
    for line in lines:
        line.get("secure", {}).pop("checkpoint", None)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "The log does not say which checkpoint round 1 was bound to." in verify_run(run).wrong
