"""A real silo at the stages of secure aggregation: its policy, its books, and what it keeps and wipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from real_silo import code_of
from secure_place import RECORD, RUN, SILOS, Place, lose
from secure_runs import PRIVATE
from secure_silos import FIRST, overrides_of

from quire.clients import client_app, contract, member
from quire.clients.arrays import decode, encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.policy.books import today
from quire.clients.secure import handlers, memory, terms
from quire.clients.secure.memory import InStore, Vector
from quire.privacy.secagg import client_round
from quire.privacy.secagg.state import Stage
from quire.simulation.grid import server_identity


@pytest.fixture
def place(tmp_path: Path) -> Place:
    overrides = overrides_of(SILOS, 1, PRIVATE)
    return Place(tmp_path, overrides, RECORD)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that the policy was asked about."""
    asked: list[str] = []
    decide = member.decide

    def watched(policy: Any, settings: Any, state: Any) -> Any:
        asked.append(state.stage)
        return decide(policy, settings, state)

    monkeypatch.setattr(member, "decide", watched)
    return asked


# ------------------------------------------------------------------------------------------------ the policy
@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_every_stage_is_for_the_policy_to_decide_on(stage: str, place: Place, decided: list[str]) -> None:
    place.ask(stage)
    assert decided[0] == stage
    path = place.files["hospital-1"]
    path.write_text(path.read_text().replace("aggregation: [secure]", "aggregation: [plain]"))
    assert code_of(place.ask(stage)) == "POLICY_REFUSED"


@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_the_stage_is_what_the_handler_does_whatever_the_message_says(
    stage: str, place: Place, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if Flower had brought a message that calls itself a query to this handler."""
    found = app._registered_funcs[stage]
    with server_identity(RUN):
        message = Message(RecordDict({contract.PROTOCOL: ConfigRecord({contract.MESSAGE: b"?"})}), FIRST, "query")
        message.metadata.__dict__["_message_id"] = "m"
        model = encode({"w": np.zeros(1, np.float32)})
        message.content[contract.ARRAYS] = model
        message.content[contract.CONFIG] = ConfigRecord({contract.ROUND: 1})
        config = {SILO_KEY: str(place.files["hospital-1"])}
        found(message, Context(RUN, FIRST, config, RecordDict(), {"overrides": place.overrides}))
    assert set(decided) == {stage}


@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_another_name_for_a_stage_is_refused(stage: str, place: Place, decided: list[str]) -> None:
    assert code_of(place.ask(stage.split(".")[0] + ".default")) == "BAD_REQUEST"
    assert decided == []


@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_a_real_silo_without_books_refuses(stage: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = client_app.member_of
    monkeypatch.setattr(client_app, "member_of", lambda *found: replace(genuine(*found), operator=None))
    assert code_of(place.ask(stage)) == "BOOKS_UNUSABLE"


def test_no_update_leaves_in_clear(place: Place, decided: list[str]) -> None:
    assert code_of(place.ask(contract.TRAIN)) == "SECURE_REFUSED"
    assert code_of(place.ask(contract.EVALUATE)) == "SCORES_WITHHELD"


def test_a_silo_without_a_pinned_roster_takes_part_in_no_secure_run(place: Place) -> None:
    path = place.files["hospital-1"]
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("roster")))
    assert code_of(place.ask(contract.OPEN)) == "ROSTER_REFUSED"


# ------------------------------------------------------------------------------------------------ the books
@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bytes]]]:
    """Every vector that a silo masked."""
    found: list[tuple[str, bytes]] = []
    mask = client_round.mask

    def watched(party: Any, state: Any, data: bytes, words: Callable[[], np.ndarray]) -> Any:
        step = mask(party, state, data, words)
        found.append((f"hospital-{party.index + 1}", words().tobytes()))
        return step

    monkeypatch.setattr(client_round, "mask", watched)
    return found


@pytest.fixture
def unchained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silos and server as in a run without the model chain: what the books by themselves hold a server to."""
    monkeypatch.setattr(terms, "is_chained", lambda settings: False)


def test_another_attempt_masks_the_same_numbers_and_is_not_charged_again(
    place: Place, vectors: list[tuple[str, bytes]]
) -> None:
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    ((report, _),) = place.serve()
    assert [attempt["error"] for attempt in report.secure["attempts"]] == ["NoQuorum", None]
    masked = [words for silo, words in vectors if silo == "hospital-1"]
    assert len(masked) == 2
    assert masked[0] == masked[1]
    assert place.charges("hospital-1") == 1
    assert set(report.receipts) == set(place.files)


def test_another_model_for_the_same_round_is_refused_and_not_charged_for(
    place: Place, vectors: list[tuple[str, bytes]]
) -> None:
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    attempts: list[str] = []

    def swap(message: Message, silo: str) -> None:
        if message.metadata.message_type == contract.SHARES and silo == "hospital-1":
            attempts.append(silo)
            if len(attempts) == 2:
                record = message.content[contract.ARRAYS]
                assert isinstance(record, ArrayRecord)
                message.content[contract.ARRAYS] = encode({name: part + 1 for name, part in decode(record).items()})

    place.grid.swap = swap
    ((report, _),) = place.serve()
    assert report.replied == ["hospital-2", "hospital-3"]
    assert ("hospital-1", "model_chain_mismatch") in {(failure.silo, failure.code) for failure in report.failed}
    assert place.charges("hospital-1") == place.charges("hospital-2") == 1
    with place.store("hospital-1") as store:  # it takes no part in what is opened, and so keeps what it has
        ready = InStore(store, RUN, today()).vector()
    assert ready is not None
    assert ready.words == next(words for silo, words in vectors if silo == "hospital-1")


def test_another_model_for_the_same_round_is_a_new_draw_that_is_charged_for(
    place: Place, vectors: list[tuple[str, bytes]], unchained: None
) -> None:
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    attempts: list[str] = []

    def swap(message: Message, silo: str) -> None:
        if message.metadata.message_type == contract.SHARES and silo == "hospital-1":
            attempts.append(silo)
            if len(attempts) == 2:
                record = message.content[contract.ARRAYS]
                assert isinstance(record, ArrayRecord)
                message.content[contract.ARRAYS] = encode({name: part + 1 for name, part in decode(record).items()})

    place.grid.swap = swap
    ((report, _),) = place.serve()
    assert report.replied == ["hospital-2", "hospital-3"]
    assert place.charges("hospital-1") == 2
    assert place.charges("hospital-2") == 1
    with place.store("hospital-1") as store:  # it takes no part in what is opened, and so keeps it
        ready = InStore(store, RUN, today()).vector()
    assert ready is not None
    assert ready.words not in {words for _, words in vectors}


def test_another_model_in_the_same_attempt_is_refused(place: Place, unchained: None) -> None:
    """A server that begins the attempts of a round anew in another session does not get a second draw."""
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    attempts: list[int] = []
    number = handlers.Start.decode

    class Lying:
        """Reads every attempt as the first one: as a silo would see it from such a server."""

        @staticmethod
        def decode(data: bytes) -> Any:
            found = number(data)
            attempts.append(found.attempt)
            return replace(found, attempt=1)

    def swap(message: Message, silo: str) -> None:
        if message.metadata.message_type == contract.SHARES and len(attempts) >= SILOS:
            record = message.content[contract.ARRAYS]
            assert isinstance(record, ArrayRecord)
            message.content[contract.ARRAYS] = encode({name: part + 1 for name, part in decode(record).items()})

    place.grid.swap = swap
    original, handlers.Start = handlers.Start, Lying  # type: ignore[misc, assignment]
    try:
        with pytest.raises(Exception, match="has answered this round already"):
            place.serve()
    finally:
        handlers.Start = original  # type: ignore[misc]
    assert [place.charges(silo) for silo in place.files] == [1, 1, 1]


def test_the_vector_is_wiped_before_shares_are_given(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    save, seen = InStore.save, []

    def watched(self: InStore, state: Any) -> None:
        seen.append((state.at.stage, self.vector() is not None))
        save(self, state)

    monkeypatch.setattr(memory.InStore, "save", watched)
    place.serve()
    assert {ready for stage, ready in seen if stage in (Stage.MASKED, Stage.CONFIRMED)} == {True}
    assert [ready for stage, ready in seen if stage == Stage.UNMASKED] == [False] * SILOS
    for name, path in place.files.items():
        with place.store(name) as store:
            kept = InStore(store, RUN, today())
            assert kept.vector() is None
            assert kept.load().at.opened == 1
        pieces = [file for file in (path.parent / "store" / "secrets").rglob("*") if "pieces" in str(file)]
        assert [file for file in pieces if file.is_file()] == []


def test_a_state_that_is_lost_does_not_forget_which_rounds_were_opened(place: Place) -> None:
    place.serve()
    with place.store("hospital-1") as store:
        kept = InStore(store, RUN, today())
        before = kept.load().at
        store.secrets.wipe_all(f"secure/run-{RUN}/state")
        after = kept.load().at
    assert (before.opened, after.opened) == (1, 1)
    assert (after.serial, after.stage, after.run, after.roster) == (
        before.serial,
        Stage.IDLE,
        before.run,
        before.roster,
    )
    assert before.terms not in (b"", bytes(32))
    assert after.terms == before.terms  # a run keeps its configuration, too


def test_a_vector_is_read_as_it_was_written() -> None:
    vector = Vector(3, bytes(range(32)), b"receipt", bytes(8))
    assert Vector.decode(vector.encode()) == vector
