"""A real silo that is asked again: the same in the same words, other things not; and what it keeps when nobody asks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from real_silo import code_of
from secure_place import RECORD, RUN, SILOS, InProcess, Place, lose
from secure_runs import PRIVATE
from secure_silos import answer_in, overrides_of, serve

from quire.clients import contract, work
from quire.clients.policy import books
from quire.clients.secure.memory import KEPT_DAYS, InStore
from quire.privacy.secagg.errors import Replay, StageOrder
from quire.privacy.secagg.messages import Refusal

BOTH = "modes: [none], aggregation: [secure, plain], code: [], min_cohort: 2, colluders: 0"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The silos that trained under privacy, each time."""
    found: list[str] = []
    train = work.train_privately

    def counted(settings: Any, where: Any, silo: str, *rest: Any) -> Any:
        found.append(silo)
        return train(settings, where, silo, *rest)

    monkeypatch.setattr(work, "train_privately", counted)
    return found


def number_of(reply: Message) -> int:
    return Refusal.decode(answer_in(reply)).number


# ------------------------------------------------------------------------------------------------- once more
def test_every_message_may_come_twice(tmp_path: Path, trained: list[str]) -> None:
    """All but the masked vector leave once more, as they were; nothing is trained, charged or counted again."""
    place = Place(tmp_path, overrides_of(SILOS, 1, PRIVATE), RECORD)
    deliver, seen = place.grid._deliver, []

    def twice(message: Message) -> Message:
        reply, stage = deliver(message), message.metadata.message_type
        if stage in contract.SECURE_STAGES:
            second = deliver(message)
            seen.append(stage)
            if stage == contract.MASK:
                assert number_of(second) == StageOrder.number
            else:
                assert answer_in(second) == answer_in(reply)
                assert second.content[contract.IDENTITY] == reply.content[contract.IDENTITY]
        return reply

    place.grid._deliver = twice  # type: ignore[method-assign]
    ((report, _),) = place.serve()
    assert len(report.replied) == len(report.receipts) == SILOS
    assert sorted(set(seen)) == sorted(contract.SECURE_STAGES)
    assert [place.charges(silo) for silo in place.files] == [1] * SILOS
    assert sorted(trained) == sorted(place.files)


def test_a_round_whose_training_was_lost_is_not_trained_for_again(tmp_path: Path, trained: list[str]) -> None:
    place = Place(tmp_path, overrides_of(SILOS, 1, PRIVATE), RECORD)
    deliver, refused = place.grid._deliver, []

    def lossy(message: Message) -> Message:
        reply = deliver(message)
        if message.metadata.message_type == contract.SHARES:
            silo = place.grid._names[message.metadata.dst_node_id]
            with place.store(silo) as store:
                ready = InStore(store, RUN, books.today()).vector()
                InStore(store, RUN, books.today()).forget()
            refused.append(number_of(deliver(message)))
            with place.store(silo) as store:
                assert ready is not None
                InStore(store, RUN, books.today()).keep(ready)
        return reply

    place.grid._deliver = lossy  # type: ignore[method-assign]
    place.serve()
    assert refused == [Replay.number] * SILOS
    assert [place.charges(silo) for silo in place.files] == [1] * SILOS
    assert sorted(trained) == sorted(place.files)


# ---------------------------------------------------------------------------------------------- other settings
def test_a_run_that_began_under_masks_gives_no_update_in_clear(tmp_path: Path) -> None:
    overrides = overrides_of(SILOS, 2)
    place = Place(tmp_path, overrides, BOTH)
    answers: list[Message] = []

    def ask(message: Message, silo: str) -> None:
        if message.metadata.message_type == contract.MASK and silo == "hospital-1" and not answers:
            answers.append(place.ask(contract.TRAIN, overrides.replace("aggregation=secure", "aggregation=plain")))
            answers.append(place.ask(contract.EVALUATE, overrides.replace("aggregation=secure", "aggregation=plain")))
            answers.append(place.ask(contract.MASK, f"{overrides} training.lr=0.5"))

    place.grid.swap = ask
    seen = place.serve()
    assert [code_of(answer) for answer in answers] == ["SETTINGS_REFUSED"] * 3
    assert [len(report.replied) for report, _ in seen] == [SILOS, SILOS]  # and the run goes on


@pytest.mark.parametrize("first", [contract.TRAIN, contract.EVALUATE, *contract.SECURE_STAGES])
def test_a_run_is_held_to_its_settings_from_the_first_stage_on(first: str, tmp_path: Path, caplog: Any) -> None:
    secure = overrides_of(SILOS, 1)
    plain = secure.replace("aggregation=secure", "aggregation=plain")
    begun, other = (secure, plain) if first in contract.SECURE_STAGES else (plain, secure)
    place = Place(tmp_path, begun, BOTH)
    place.ask(first)
    asked = contract.TRAIN if other == plain else contract.OPEN
    assert code_of(place.ask(asked, other)) == "SETTINGS_REFUSED"
    assert "the run began with other settings; with these it is a new run" in caplog.text
    assert not place.ask(contract.QUERY, other).has_error()  # who it is, it tells whatever the settings
    answer = place.ask(first, begun.replace("output.report=false", "output.report=true"))  # nothing to a silo
    assert not answer.has_error() or code_of(answer) != "SETTINGS_REFUSED"


def test_settings_that_the_policy_refuses_bind_nothing(tmp_path: Path) -> None:
    overrides = overrides_of(SILOS, 1)
    place = Place(tmp_path, overrides, BOTH)
    assert code_of(place.ask(contract.OPEN, f"{overrides} {PRIVATE}")) == "POLICY_REFUSED"
    assert not place.ask(contract.OPEN).has_error()


# --------------------------------------------------------------------------------------------------- what fails
def test_a_silo_whose_training_fails_is_charged_and_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    place = Place(tmp_path, overrides_of(SILOS, 1, PRIVATE), RECORD)
    train = work.train_privately

    def failing(settings: Any, where: Any, silo: str, *rest: Any) -> Any:
        if silo == "hospital-2":
            raise ValueError("row 17")
        return train(settings, where, silo, *rest)

    monkeypatch.setattr(work, "train_privately", failing)
    ((report, _),) = place.serve()
    assert report.failed == []
    assert len(report.replied) == len(report.receipts) == SILOS
    assert [place.charges(silo) for silo in place.files] == [1] * SILOS
    assert "Training for round 1 ended with an error" in caplog.text


# -------------------------------------------------------------------------------------------------- what is kept
def test_what_a_run_left_is_wiped_when_another_begins_days_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, overrides_of(SILOS, 1), BOTH)
    lose(place, contract.CONFIRM, "hospital-1")  # in its last round, so that it never hears of it again
    place.serve()
    with place.store("hospital-1") as store:
        assert InStore(store, RUN, books.today()).vector() is not None
        assert InStore(store, RUN, books.today()).load().keys
    later = books.today() + timedelta(days=KEPT_DAYS)
    monkeypatch.setattr(books, "today", lambda: later)
    grid = InProcess(place.files, RUN + 1, place.overrides, tmp_path / "left")
    serve(grid, RUN + 1, tmp_path / "next", tmp_path / "silos" / "roster.json", place.overrides)
    with place.store("hospital-1") as store:
        names = [name for name in store.secrets.names() if name.startswith(f"secure/run-{RUN}/")]
        before = InStore(store, RUN, later).load().at
    assert names == []
    assert before.terms != bytes(32)  # what tells a replay stays
