"""What a log says of its rounds: bound to the newest checkpoint, and countersigned by silos and not by the log."""

from __future__ import annotations

import json

from logs import ORIGIN, SERVER, SILOS, entry, roster, signed_by

from quire.transparency.entries import Entry
from quire.transparency.log import Log
from quire.transparency.shown import LogName
from quire.transparency.verify import Place, verify_log


def bound(number, note, silos):
    body = {"size": note.checkpoint.size, "checkpoint": note.checkpoint.hash, "silos": [*silos]}
    return Entry("checkpoint", "run-7", number, 1000 + number, body)


def of_rounds(folder, rounds, frozen=False, silos=SILOS):
    """Write a log of rounds under masks; a frozen one shows silos its first checkpoint in every round."""
    with Log.open(folder, ORIGIN, SERVER, 1000) as log:
        log.append(Entry("session", "run-7", 0, 1000, {"settings": "00" * 32, "code": "00" * 32, "roster": None}))
        log.checkpoint(1000)
        log.add_countersignatures(signed_by(log.notes[-1], *silos), roster())
        for number in range(1, rounds + 1):
            if not frozen and number > 1:
                log.add_countersignatures(signed_by(log.notes[-1], *silos), roster())
            note = log.notes[0 if frozen else -1]
            log.append(bound(number, note, silos), entry(number))
            log.checkpoint(1000 + number)
    return Place.of(folder)


def test_honest_rounds_are_bound_to_the_newest_checkpoint(tmp_path):
    assert verify_log(of_rounds(tmp_path / "log", 3), roster=roster()).wrong == []


def test_a_log_that_shows_an_old_checkpoint_in_every_round_is_found(tmp_path):
    """Silos take a checkpoint again that they have seen: all behind it could be rewritten."""
    assert verify_log(of_rounds(tmp_path / "log", 3, frozen=True), roster=roster()).wrong == [
        f"Round {number} was bound to the checkpoint at 2 entries, which was not the newest: it says nothing of the "
        f"{behind} entries between that and the round."
        for number, behind in ((2, 2), (3, 4))
    ]


def test_the_signature_of_a_log_that_is_named_like_a_silo_is_no_countersignature_of_it(tmp_path):
    with Log.open(tmp_path / "log", "silo-2", SERVER, 1000) as log:
        note = log.checkpoint(1000)
        log.add_countersignatures(signed_by(note, "silo-1"), roster())
        log.append(bound(1, note, ("silo-1", "silo-2")), entry(1))
        log.checkpoint(1001)
    lacks = "Round 1 was bound to the checkpoint at 1 entries, which lacks the countersignature of silo-2."
    assert verify_log(Place.of(tmp_path / "log")).wrong == [lacks]
    assert verify_log(Place.of(tmp_path / "log"), roster=roster()).wrong == [
        "The log has the name of the member 'silo-2': its own signatures could pass for countersignatures.",
        lacks,
    ]


def test_silos_know_no_log_that_is_named_as_a_member_could_be():
    key = SERVER.public.fingerprint
    for origin, known in (("silo-2", None), ("run-7", None), (ORIGIN, LogName(ORIGIN, key))):
        assert LogName.agreed(json.dumps({"log": {"origin": origin, "key": key}}).encode()) == known


def test_who_must_have_countersigned_is_asked_of_what_rounds_were_bound_to(tmp_path):
    """The checkpoint after the last round has been shown to nobody yet."""
    place = of_rounds(tmp_path / "log", 2)
    assert verify_log(place, roster=roster(), cohort=SILOS).wrong == []
    assert len(verify_log(place, roster=roster(), cohort=SILOS[:2]).wrong) == 2
    place = of_rounds(tmp_path / "fewer", 2, silos=SILOS[:2])
    assert verify_log(place, roster=roster()).wrong == []
    wrong = verify_log(place, roster=roster(), cohort=SILOS).wrong
    assert ["lacks the countersignature of silo-3" in words for words in wrong] == [True, True]
    place = of_rounds(tmp_path / "nobody", 1, silos=())
    (wrong,) = verify_log(place, roster=roster(), cohort=SILOS[:1]).wrong
    assert "lacks the countersignature of silo-1" in wrong
