"""What real silos refuse of a transparency log: whatever is not the session's, or does not go on from what they saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from log_place import FIRST, NAMES, log_of, place_of, refused, seen, served, showing, signers, told
from secure_place import Place

from quire.clients import contract
from quire.clients.identity import load_identity, new_identity
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.secagg.messages import Config, Open
from quire.transparency.checkpoints import Note, sign
from quire.transparency.verify import Place as LogPlace
from quire.transparency.verify import verify_log


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateIdentity:
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))
    return load_identity(tmp_path / "log.key")


# ----------------------------------------------------------------------------------------------- what is refused
def _first(place: Place) -> Callable[[RecordDict, str], None]:
    def first(content: RecordDict, silo: str) -> None:
        told(content)[contract.CHECKPOINT] = verify_log(LogPlace.of(place.folder / "run")).notes[0].encode()

    return first


def _signed(key: PrivateIdentity, **changes: Any) -> Callable[[RecordDict, str], None]:
    def other(content: RecordDict, silo: str) -> None:
        record = told(content)
        found = Note.decode(record[contract.CHECKPOINT]).checkpoint  # type: ignore[arg-type]
        record[contract.CHECKPOINT] = sign(replace(found, **changes), key).encode()
        record[contract.LOG_KEY] = key.public.encode()

    return other


def _forged_path(content: RecordDict, silo: str) -> None:
    record = told(content)
    paths = record[contract.PATHS]
    assert isinstance(paths, list)
    assert paths
    record[contract.PATHS] = [bytes(len(path)) for path in paths]


def _without(content: RecordDict, silo: str) -> None:
    del content[contract.LOG]


def _no_path(content: RecordDict, silo: str) -> None:
    record = told(content)
    del record[contract.SIZES], record[contract.PATHS]


def _broken_signature(content: RecordDict, silo: str) -> None:
    record = told(content)
    note = Note.decode(record[contract.CHECKPOINT])  # type: ignore[arg-type]
    mark = note.marks[0]
    broken = replace(mark, blob=mark.blob[:-1] + bytes([mark.blob[-1] ^ 1]))
    record[contract.CHECKPOINT] = replace(note, marks=(broken,)).encode()


LIES: dict[str, Callable[[Place, PrivateIdentity], Callable[[RecordDict, str], None]]] = {
    "forked": lambda place, key: _signed(key, root=sha256(b"x").digest()),
    "longer, and another": lambda place, key: _signed(key, root=sha256(b"x").digest(), size=1000),
    "another key": lambda place, key: _signed(PrivateIdentity.from_seed(bytes(32))),
    "another log": lambda place, key: _signed(key, origin="run/another"),
    "a forged path": lambda place, key: _forged_path,
    "no path": lambda place, key: _no_path,
    "nothing": lambda place, key: _without,
    "a broken signature": lambda place, key: _broken_signature,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_silo_that_is_shown_something_else_refuses_and_is_not_charged(
    lie: str, tmp_path: Path, key: PrivateIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of(tmp_path, 2)
    showing(place, LIES[lie](place, key), number="2")
    reports = served(place)
    assert [report.replied for report in reports] == [NAMES, NAMES[1:]]
    assert refused(reports[1]) == {(FIRST, "log_mismatch")}
    assert [place.charges(silo) for silo in NAMES] == [1, 2, 2]
    assert seen(place, FIRST) == log_of(place).notes[0].checkpoint
    assert signers(place)[1] == set(NAMES[1:])
    assert "train.shares answered with LogMismatch" in caplog.text  # in words, for the silo's operator


def test_a_log_that_was_rolled_back_is_refused(tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 3)
    showing(place, _first(place), number="3")
    reports = served(place)
    assert [report.replied for report in reports] == [NAMES, NAMES, NAMES[1:]]
    assert refused(reports[2]) == {(FIRST, "log_mismatch")}
    assert seen(place, FIRST) == log_of(place).notes[1].checkpoint


def test_a_log_that_is_shown_no_further_binds_no_sum_with_the_others(tmp_path: Path, key: PrivateIdentity) -> None:
    """What a silo has seen before it takes again; the others have seen more, and their context is another one."""
    place = place_of(tmp_path, 2)
    showing(place, _first(place), number="2")
    reports = served(place)
    assert [report.replied for report in reports] == [NAMES, NAMES[1:]]
    assert refused(reports[1]) == {(FIRST, "bad_countersignature")}


GARBAGE: dict[str, Callable[[RecordDict], None]] = {
    "no note": lambda content: told(content).update({contract.CHECKPOINT: b"?"}),
    "no key": lambda content: told(content).update({contract.LOG_KEY: b"?"}),
    "no bytes": lambda content: told(content).update({contract.CHECKPOINT: "text"}),
    "more sizes than paths": lambda content: told(content).update({contract.SIZES: [1, 2, 3]}),
    "no sizes": lambda content: told(content).update({contract.SIZES: ["3"], contract.PATHS: [b""]}),
    "half a hash": lambda content: told(content).update({contract.SIZES: [1], contract.PATHS: [b"?"]}),
    "another record": lambda content: content.update({contract.LOG: content[contract.ARRAYS]}),
}


@pytest.mark.parametrize("wrong", GARBAGE)
def test_what_cannot_be_read_is_a_bad_request(wrong: str, tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 1)
    showing(place, lambda content, silo: GARBAGE[wrong](content))
    (report,) = served(place)
    assert (report.replied, refused(report)) == (NAMES[1:], {(FIRST, "bad_request")})


def test_a_log_that_no_session_is_bound_to_is_none_to_be_shown(tmp_path: Path) -> None:
    place = place_of(tmp_path, 1)
    showing(place, lambda content, silo: content.update({contract.LOG: ConfigRecord()}))
    (report,) = served(place)
    assert (report.replied, refused(report)) == (NAMES[1:], {(FIRST, "bad_request")})
    assert "checkpoint" not in report.secure


def test_no_silo_is_told_that_there_is_no_log_when_others_are(tmp_path: Path, key: PrivateIdentity) -> None:
    """All sign one configuration, which names the log or says that there is none."""
    place = place_of(tmp_path, 1)

    def swap(message: Message, name: str) -> None:
        if (message.metadata.message_type, name) == (contract.OPEN, FIRST):
            request = Open.decode(bytes(message.content[contract.PROTOCOL][contract.MESSAGE]))  # type: ignore[arg-type]
            config = Config.decode(request.config)
            said = {**json.loads(config.application), "log": None}
            other = replace(config, application=json.dumps(said, sort_keys=True, separators=(",", ":")).encode())
            opening = replace(request, config=other.encode()).encode()
            message.content = RecordDict({**message.content})
            message.content[contract.PROTOCOL] = ConfigRecord({contract.MESSAGE: opening})

    place.grid.swap = swap
    (report,) = served(place)
    assert report.replied == NAMES[1:]
    assert {silo for silo, _ in refused(report)} == {FIRST}
    assert place.charges(FIRST) == 0


def test_an_honest_server_leaves_out_who_was_shown_another_log(tmp_path: Path, key: PrivateIdentity) -> None:
    place = place_of(tmp_path, 1)
    showing(place, _signed(key, root=sha256(b"x").digest()))
    (report,) = served(place)
    assert report.replied == NAMES[1:]
    assert refused(report) == {(FIRST, "bad_countersignature")}
