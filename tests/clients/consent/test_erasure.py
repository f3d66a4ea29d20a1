"""Requests for erasure: excluded from the next message on, told in the lineage, attested; and what breaks them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from consenting import CONSENT, PLAIN, RECORDS, Consenting
from hypothesis import given
from hypothesis import strategies as st

from quire.clients.data.consent.attest import attest
from quire.clients.data.consent.lineage import holds, lines_of, members_of
from quire.clients.data.consent.place import Subjects
from quire.clients.data.consent.requests import record, requests_of
from quire.clients.data.consent.traces import traces_of
from quire.clients.identity import load_identity
from quire.clients.store.errors import StoreDamaged
from quire.errors import DataError


@pytest.fixture
def silo(tmp_path: Path) -> Consenting:
    return Consenting(tmp_path)


def trained(silo: Consenting) -> list[str]:
    return silo.load().sifted.train_ids


def test_who_asks_for_erasure_is_out_from_the_next_round_on(silo: Consenting) -> None:
    one = trained(silo)[0]
    assert silo.train(1) == "ANSWERED"
    request, new = record(silo.place, one, "patient")
    assert new
    assert record(silo.place, one, "patient") == (request, False)
    assert silo.train(2) == "ANSWERED"
    silo.withdraw(one)
    assert silo.train(3) == "ANSWERED"
    assert [line["left_out"] for line in silo.lines()] == [{}, {"erased": 1}, {"erased": 1}]
    assert [line["trained"] for line in silo.lines()] == [48, 47, 47]


def test_no_file_of_the_silo_holds_the_id(silo: Consenting) -> None:
    lines = silo.csv.read_text().replace("p7,", "Ottoline-4711,")
    silo.csv.write_text(lines)
    record(silo.place, "Ottoline-4711", "patient")
    assert silo.train(1) == "ANSWERED"
    kept = [path for path in (*silo.store.rglob("*"), silo.folder / "silo.subjects") if path.is_file()]
    assert len(kept) > 5
    assert not any(b"ttoline" in path.read_bytes() for path in kept)
    assert all(path.stat().st_mode & 0o77 == 0 for path in (silo.store / "consent").rglob("*") if path.is_file())
    assert (silo.folder / "silo.subjects").stat().st_mode & 0o77 == 0


def test_a_request_before_the_first_run_is_no_broken_store(silo: Consenting) -> None:
    from quire.clients.policy.books import look

    record(silo.place, "p3", "patient")
    own = silo.file().operator
    assert own.policy is not None
    assert look(own, own.policy).epsilon(1e-5) == 0.0
    assert silo.train(1) == "ANSWERED"
    assert silo.lines()[0]["left_out"] == {"erased": 1}


def test_runs_and_the_way_back_are_named(silo: Consenting) -> None:
    one = trained(silo)[0]
    silo.withdraw(one)
    for number in (1, 2):
        assert silo.train(number) == "ANSWERED"
    silo.withdraw()
    for number in (3, 4):
        assert silo.train(number) == "ANSWERED"
    silo.run, silo.state = 6, type(silo.state)()
    assert silo.train(1) == "ANSWERED"
    silo.withdraw(one)
    silo.run, silo.state = 7, type(silo.state)()
    assert silo.train(1) == "ANSWERED"
    silo.run, silo.state = 8, type(silo.state)()
    assert silo.train(5) == "ANSWERED", "it may go on with run 5, under a number of its own"
    silo.run, silo.state = 9, type(silo.state)()
    assert silo.train(5) == "ANSWERED"
    silo.withdraw()
    assert silo.train(6) == "ANSWERED"
    found = traces_of(silo.place, silo.place.subjects().tag(one), "patient")
    assert [(trace.run, trace.first, trace.last, trace.clean) for trace in found.touched] == [
        (5, 3, 4, 2),
        (6, 1, 1, None),
        (9, 6, 6, None),
    ]
    assert (found.continued, found.clean) == ((8,), (7,))
    nobody = traces_of(silo.place, silo.place.subjects().tag("nobody"), "patient")
    assert (nobody.touched, nobody.clean) == ((), (5, 6, 7, 8, 9))


# --------------------------------------------------------------------------------------------------- what breaks it
@pytest.mark.parametrize("how", ["gone", "other", "nonsense"])
def test_without_its_key_for_subjects_the_silo_does_not_train(
    silo: Consenting, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    record(silo.place, "p3", "patient")
    key = silo.folder / "silo.subjects"
    if how == "gone":
        key.unlink()
    else:
        key.write_text("00" * 32 if how == "other" else "not a key")
    assert silo.train(1) == "DATA_UNAVAILABLE"
    assert silo.lines() == []
    with pytest.raises(StoreDamaged):
        record(silo.place, "p4", "patient")


def test_without_the_section_a_silo_with_requests_does_not_train(
    silo: Consenting, caplog: pytest.LogCaptureFixture
) -> None:
    silo.write("", **PLAIN)
    assert silo.train(1) == "ANSWERED"
    silo.write(CONSENT, **PLAIN)
    record(silo.place, "p3", "patient")
    silo.write("", **PLAIN)
    assert silo.train(2) == "DATA_UNAVAILABLE"
    assert "holds requests for erasure, and the silo's file has no 'consent'" in caplog.text


def test_a_column_of_another_name_does_not_switch_requests_off(
    silo: Consenting, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids of two columns are two things: under the new one nobody of the requests would be found."""
    one = trained(silo)[0]
    record(silo.place, one, "patient")
    lines = silo.csv.read_text().splitlines()
    silo.csv.write_text("\n".join([f"{lines[0]},nhs", *(f"{line},n{line.split(',')[0]}" for line in lines[1:])]))
    silo.write(CONSENT.replace("subject: patient", "subject: nhs"), **PLAIN)
    assert silo.train(1) == "DATA_UNAVAILABLE"
    assert "was recorded by the subject column 'patient', and 'consent' now names 'nhs'" in caplog.text
    assert silo.lines() == []
    with pytest.raises(DataError, match="put back the column"):
        record(silo.place, "np3", "nhs")
    silo.write(CONSENT, **PLAIN)
    assert silo.train(2) == "ANSWERED"


def test_rounds_under_another_column_or_key_are_unknown_and_never_clean(silo: Consenting) -> None:
    lines = silo.csv.read_text().splitlines()
    silo.csv.write_text("\n".join([f"{lines[0]},nhs", *(f"{line},n{line.split(',')[0]}" for line in lines[1:])]))
    one = trained(silo)[0]
    silo.write(CONSENT.replace("subject: patient", "subject: nhs"), **PLAIN)
    assert silo.train(1) == "ANSWERED"
    silo.write(CONSENT, **PLAIN)
    assert silo.train(2) == "ANSWERED"
    silo.run, silo.state = 6, type(silo.state)()
    silo.write(CONSENT.replace("subject: patient", "subject: nhs"), **PLAIN)
    assert silo.train(1) == "ANSWERED"
    silo.write(CONSENT, **PLAIN)
    request, _ = record(silo.place, one, "patient")
    found = traces_of(silo.place, request.subject, "patient")
    assert [(trace.run, trace.first, trace.clean) for trace in found.touched] == [(5, 2, None)]
    assert (found.unknown, found.clean, found.continued) == ((5, 6), (), ())
    identity = load_identity(silo.folder / "silo.key")
    made = attest(silo.place, request, "clinic-1", None, identity, silo.folder / "a.json")
    assert made.body["unknown"] == ["5", "6"]
    (silo.folder / "silo.subjects").write_text("00" * 32)
    other = traces_of(silo.place, silo.place.subjects().tag(one), "patient")
    assert (other.unknown, other.touched) == ((5, 6), ())


@pytest.mark.parametrize("section", [CONSENT, ""])
@pytest.mark.parametrize("before", ["request", "round"])
def test_a_book_of_requests_that_is_gone_is_not_one_without_requests(
    silo: Consenting, section: str, before: str, caplog: pytest.LogCaptureFixture
) -> None:
    if before == "request":
        record(silo.place, "p3", "patient")
    else:
        assert silo.train(1) == "ANSWERED"
    (silo.store / "consent" / "erasures.jsonl").unlink()
    silo.write(section, **PLAIN)
    assert silo.train(2) == "DATA_UNAVAILABLE"
    assert "erasures.jsonl is missing, in which requests for erasure are recorded" in caplog.text
    with pytest.raises(StoreDamaged, match="put back a copy"):
        record(silo.place, "p4", "patient")


def test_a_crash_between_the_book_and_its_key_is_no_lost_key(silo: Consenting) -> None:
    record(silo.place, "p3", "patient")
    (silo.store / "consent" / "erasures.jsonl").write_bytes(b"")
    (silo.folder / "silo.subjects").unlink()
    assert silo.train(1) == "ANSWERED"


@pytest.mark.parametrize("place", range(0, 400, 37))
def test_a_byte_that_changes_in_the_requests_is_noticed(silo: Consenting, place: int) -> None:
    record(silo.place, "p3", "patient")
    record(silo.place, "p4", "patient")
    path = silo.store / "consent" / "erasures.jsonl"
    data = bytearray(path.read_bytes())
    data[place % (len(data) - 1)] ^= 1
    path.write_bytes(data)
    assert silo.train(1) == "DATA_UNAVAILABLE"


def test_a_request_taken_out_of_the_middle_is_noticed_and_a_torn_end_is_cut_off(silo: Consenting) -> None:
    for one in ("p3", "p4", "p5"):
        record(silo.place, one, "patient")
    path = silo.store / "consent" / "erasures.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    assert silo.train(1) == "DATA_UNAVAILABLE"
    path.write_bytes(whole + b'{"prev":"torn')
    assert len(requests_of(silo.place)) == 3
    record(silo.place, "p6", "patient")
    assert len(requests_of(silo.place)) == 4


def test_a_lineage_that_was_changed_attests_nothing(silo: Consenting) -> None:
    request, _ = record(silo.place, "p3", "patient")
    assert silo.train(1) == "ANSWERED"
    path = silo.store / "consent" / "lineage.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":2'))
    with pytest.raises(StoreDamaged, match=r"Line 1 of .* is not what was written"):
        lines_of(silo.place)
    assert silo.train(2) == "TRAINING_FAILED", "a round that cannot be noted is not trained"
    path.unlink()
    for members in (silo.store / "consent" / "members").iterdir():
        members.write_bytes(b"")
    assert silo.train(3) == "ANSWERED"
    with pytest.raises(StoreDamaged, match="not what was written"):
        traces_of(silo.place, request.subject, "patient")


def _ask_forever(folder: str) -> None:
    place = Consenting(Path(folder)).place
    for number in range(100_000):
        record(place, f"p{number % 50}-{number}", "patient")


def test_killed_at_any_moment_the_book_of_requests_is_whole(silo: Consenting) -> None:
    """Acknowledged requests are there; real kills, in the middle of writing."""
    context = multiprocessing.get_context("fork")
    seen = 0
    for _ in range(3):
        process = context.Process(target=_ask_forever, args=(str(silo.folder),))
        process.start()
        path = silo.store / "consent" / "erasures.jsonl"
        deadline = time.monotonic() + 60
        while not path.exists() or len(path.read_bytes().splitlines()) < seen + 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        acknowledged = path.read_bytes().count(b"\n")
        assert len(requests_of(silo.place)) == acknowledged > seen
        seen = acknowledged


# ------------------------------------------------------------------------------------------------ sets of members
@given(st.sets(st.text(max_size=6), max_size=40), st.text(max_size=6))
def test_a_set_tells_who_is_in_it(members: set[str], other: str) -> None:
    subjects = Subjects(b"k" * 32)
    found = subjects.members([*members, *members])
    assert len(found) == len(members)
    assert bool((np.diff(found.astype(object)) > 0).all())
    assert all(holds(found, subjects.tag(one)) for one in members)
    assert holds(found, subjects.tag(other)) == (other in members)


def test_a_set_is_kept_once_for_all_rounds_with_the_same_subjects(silo: Consenting) -> None:
    for number in range(1, 4):
        assert silo.train(number) == "ANSWERED"
    silo.withdraw(trained(silo)[0])
    assert silo.train(4) == "ANSWERED"
    folder = silo.store / "consent" / "members"
    assert len(list(folder.iterdir())) == 2
    lines = lines_of(silo.place)
    assert [len(members_of(silo.place, line.members)) for line in lines] == [48, 48, 48, 47]
    assert [line.came for line in lines] == [RECORDS] * 4
