"""Real silos that share their noise: each works it out for itself, refuses others, and charges every attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_silo import code_of
from secure_place import RUN, SILOS, Place, lose
from secure_silos import overrides_of

from quire.clients import contract
from quire.clients.policy.books import today
from quire.clients.private.plan import plan_of
from quire.clients.secure import handlers
from quire.clients.secure.memory import InStore
from quire.clients.store import StoreDamaged, Unit
from quire.conf.compose import compose
from quire.errors import RunFailed
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.shares import add_share
from quire.privacy.dp.spending import Spending
from quire.privacy.receipts import Receipt
from quire.privacy.secagg.state import Stage
from quire.simulation.verify import verify_run
from quire.strategies import secure_circle
from quire.strategies.card import write_card
from quire.strategies.secure_log import AttemptLog

POLICY = (
    "modes: [record_distributed, silo_distributed], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, "
    "epsilon: 40, delta: 1.0e-4"
)
RECORD = (
    "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 privacy.records=300 privacy.largest=100 "
    "training.lr=0.1"
)
SILO = "privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5"


def place_of(folder: Path, more: str = RECORD, rounds: int = 2, policy: str = POLICY) -> Place:
    return Place(folder, overrides_of(SILOS, rounds, more), policy)


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every share of noise that was drawn."""
    drawn: list[np.ndarray] = []
    noise = Encoding.noise

    def watched(self: Encoding, source: Any) -> Any:
        drawn.append(noise(self, source))
        return drawn[-1]

    monkeypatch.setattr(Encoding, "noise", watched)
    return drawn


def spent(place: Place, silo: str, unit: Unit) -> Spending:
    with place.store(silo) as store:
        return store.ledger(f"breast-{int(silo[-1]) - 1}").spent_in(f"run-{RUN}", unit)


# ------------------------------------------------------------------------------------------------ the books
@pytest.mark.parametrize("more", [RECORD, SILO])
def test_the_ledgers_add_up_to_what_card_and_receipts_say(more: str, tmp_path: Path) -> None:
    place = place_of(tmp_path, more)
    reports = place.serve()
    settings = compose(place.overrides)
    plan = plan_of(settings, 100)
    card = json.loads((place.folder / "run" / "privacy_card.json").read_text())
    assert card["standing"] == "stated"
    assert verify_run(place.folder / "run").wrong == []
    for silo in card["silos"]:
        name = silo["statement"]["silo"]
        unit = Unit.RECORD if plan.unit == "record" else Unit.SILO
        own = spent(place, name, unit)
        assert own.epsilon(1e-5) == pytest.approx(silo["figures"]["rdp"], rel=1e-12)
        assert own.rdp.tobytes() == (Spending.of(plan.released(1)) + Spending.of(plan.released(1))).rdp.tobytes()
        records = spent(place, name, Unit.RECORD)
        assert records.epsilon(1e-5) == silo["ledger"]["epsilon"]
        assert (records.epsilon(1e-5) > own.epsilon(1e-5)) == (unit is Unit.SILO)  # at twice the clip
        assert place.charges(name) == 2
        # Of three silos, none of which sides with the server, two have to survive: each adds the whole noise.
        assert silo["figures"]["rdp"] == silo["if_alone"]["rdp"] <= 8.0
    assert all(set(report.receipts) == set(place.files) for report, _ in reports)
    assert all(report.silos[name] == {"records": 100.0} for report, _ in reports for name in place.files)


def test_a_repeated_attempt_draws_all_anew_and_is_charged_again(tmp_path: Path, shares: list[np.ndarray]) -> None:
    place = place_of(tmp_path, rounds=1)
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    ((report, _),) = place.serve()
    assert [attempt["error"] for attempt in report.secure["attempts"]] == ["NoQuorum", None]
    assert [place.charges(silo) for silo in place.files] == [2, 2, 2]
    assert len({share.tobytes() for share in shares}) == len(shares) == 6
    card = json.loads((place.folder / "run" / "privacy_card.json").read_text())
    for silo in card["silos"]:
        assert silo["statement"]["steps"] == 1
        assert silo["if_all_asked"]["rdp"] == pytest.approx(silo["ledger"]["epsilon"], rel=1e-12)
    assert verify_run(place.folder / "run").wrong == []


def test_what_silos_have_signed_for_shows_an_attempt_that_the_journal_leaves_out(tmp_path: Path) -> None:
    """A server drops the attempt that failed from its journal and makes the card anew: the ledgers' figures remain."""
    place, run = place_of(tmp_path, rounds=2), tmp_path / "run"
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    place.serve()
    honest = json.loads((run / "privacy_card.json").read_text())
    assert verify_run(run).wrong == []
    for silo in honest["silos"]:  # two rounds, three attempts
        assert silo["ledger"]["epsilon"] == pytest.approx(silo["if_all_asked"]["rdp"], rel=1e-9)
        assert silo["if_alone"]["rdp"] >= silo["ledger"]["epsilon"] * (1 - 1e-9) > silo["figures"]["rdp"]
    journal = run / "metrics.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line["event"] == "round":
            line["secure"]["attempts"] = line["secure"]["attempts"][-1:]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert write_card(run)
    found = verify_run(run).wrong
    assert len(found) == SILOS
    assert all("signed for more than the journal tells" in words for words in found)
    card, most = json.loads((run / "privacy_card.json").read_text()), honest["silos"][0]["ledger"]["epsilon"]
    assert f"epsilon {most:.3g} " in card["verdict"]
    assert f"epsilon {most:.3g} " not in honest["verdict"]


def test_a_budget_without_head_room_is_used_up_by_a_repeated_attempt_and_no_further(tmp_path: Path) -> None:
    place = place_of(
        tmp_path, rounds=3, policy=POLICY.replace("epsilon: 40, delta: 1.0e-4", "epsilon: 8, delta: 1.0e-5")
    )
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    with pytest.raises(RunFailed, match="Round 3 failed"):
        place.serve()
    assert [place.charges(silo) for silo in place.files] == [3, 3, 3]  # rounds 1 and 2, of which one was tried twice
    assert all(0.0 < spent(place, silo, Unit.RECORD).epsilon(1e-5) <= 8.0 for silo in place.files)


def test_an_attempt_that_comes_to_nothing_is_charged_all_the_same(tmp_path: Path, shares: list[np.ndarray]) -> None:
    place = place_of(tmp_path, f"{RECORD} aggregation.attempts=1", rounds=1)
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    with pytest.raises(RunFailed):
        place.serve()
    assert [place.charges(silo) for silo in place.files] == [1, 1, 1]
    assert len(shares) == 3


def test_the_vector_lies_in_the_silo_without_noise_and_is_wiped_before_shares_are_given(tmp_path: Path) -> None:
    place = place_of(tmp_path, rounds=1)
    kept: list[Any] = []
    keep = InStore.keep

    def watched(self: InStore, vector: Any) -> None:
        kept.append(vector)
        keep(self, vector)

    InStore.keep = watched  # type: ignore[method-assign]
    try:
        place.serve()
    finally:
        InStore.keep = keep  # type: ignore[method-assign]
    assert [(one.round, one.attempt, one.parameters) for one in kept] == [(1, 1, 31)] * SILOS
    for one in kept:  # the probes are still zero: the noise comes when it is masked
        assert not np.frombuffer(one.words, "<u4")[31:].any()
    for name in place.files:
        with place.store(name) as store:
            assert InStore(store, RUN, today()).vector() is None


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Every vector that was masked: as it was trained, and with its share of noise."""
    seen: list[tuple[bytes, bytes]] = []

    def watched(encoding: Any, plain: np.ndarray, source: Any) -> np.ndarray:
        noisy = add_share(encoding, plain, source)
        seen.append((plain.tobytes(), noisy.tobytes()))
        return noisy

    monkeypatch.setattr(handlers, "add_share", watched)
    return seen


def test_a_server_that_calls_every_attempt_the_first_gets_no_second_noise_for_one_charge(
    tmp_path: Path, masked: list[tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens session after session that begins with the same round, and never says that an attempt is the second."""
    place = place_of(tmp_path, f"{RECORD} aggregation.attempts=4", rounds=1)
    monkeypatch.setattr(secure_circle, "AttemptLog", lambda number, group: AttemptLog(1))
    lose(place, contract.CONFIRM, "hospital-2", "hospital-3")
    with pytest.raises(RunFailed):
        place.serve()
    assert [place.charges(silo) for silo in place.files] == [1, 1, 1]
    assert len(masked) == len({plain for plain, _ in masked}) == SILOS


def test_what_was_masked_is_gone_before_the_reply_is_written_down(
    tmp_path: Path, masked: list[tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a silo dies while it writes down that it masked, it has lost the vector: it comes under no other noise."""
    place, save, left = place_of(tmp_path, rounds=1), InStore.save, []

    def failing(self: InStore, state: Any) -> None:
        if state.at.stage == Stage.MASKED:
            left.append(self.vector())
            if len(left) == 1:
                raise StoreDamaged("The disk is full.")
        save(self, state)

    monkeypatch.setattr(InStore, "save", failing)
    place.serve()
    assert left == [None] * len(left)
    assert len({plain for plain, _ in masked}) == len(masked) >= SILOS
    assert sum(place.charges(silo) for silo in place.files) >= len(masked)


def test_noise_comes_from_the_operating_system_whatever_the_seed(tmp_path: Path, shares: list[np.ndarray]) -> None:
    for name in "ab":
        place_of(tmp_path / name, rounds=1).serve()
    assert len({share.tobytes() for share in shares}) == 6


# ------------------------------------------------------------------------------------------------ what it refuses
@pytest.mark.parametrize(
    ("policy", "more", "words"),
    [
        (POLICY.replace("colluders: 0", "colluders: 1").replace("min_cohort: 2", "min_cohort: 3"), RECORD, None),
        (POLICY.replace("epsilon: 40", "epsilon: 4"), RECORD, "epsilon"),
        (f"{POLICY}, max_clip: 0.5", RECORD, "max_clip"),
        (f"{POLICY}, min_noise: 30", RECORD, "min_noise"),
        (f"{POLICY}, noise: [gaussian]", RECORD, "noise"),
        (POLICY.replace("record_distributed, ", ""), RECORD, "modes"),
        (POLICY, RECORD.replace("largest=100", "largest=100 privacy.delta=0.5"), "delta"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_before_anything(
    policy: str, more: str, words: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of(tmp_path, more, policy=policy)
    answer = place.ask(contract.OPEN)
    assert code_of(answer) in ("POLICY_REFUSED", "BUDGET_REFUSED")
    assert f"policy.{words or 'min_cohort'}" in caplog.text
    assert not (place.files["hospital-1"].parent / "store" / "ledger").exists() or place.charges("hospital-1") == 0


@pytest.mark.parametrize(
    "more", ["privacy.gradients=ghost", "privacy.gradients=hooks", "strategy.fraction=0.9999999999"]
)
def test_a_server_cannot_switch_off_what_the_guarantee_rests_on(more: str, tmp_path: Path) -> None:
    place = place_of(tmp_path, f"{RECORD} {more}")
    for stage in (contract.OPEN, contract.SHARES):
        assert code_of(place.ask(stage)) == "SETTINGS_REFUSED"
    assert not (place.files["hospital-1"].parent / "store" / "ledger").exists()


def test_a_silo_that_reckons_with_more_colluders_than_the_run_refuses_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = POLICY.replace("min_cohort: 2, colluders: 0", "min_cohort: 3, colluders: 1")
    overrides = overrides_of(SILOS, 1, RECORD).replace("strategy.min_silos=2", "strategy.min_silos=3")
    place = Place(tmp_path, overrides, policy)
    assert code_of(place.ask(contract.OPEN)) == "POLICY_REFUSED"
    assert "the noise of this run is planned for 0 that leave theirs out: set aggregation.colluders=1" in caplog.text


def test_a_silo_whose_own_delta_is_stricter_than_the_run_reckons_with_refuses_it() -> None:
    from quire.privacy.dp.contract import PrivacyError

    settings = compose(overrides_of(SILOS, 1, RECORD))
    plan_of(settings, 100)
    with pytest.raises(PrivacyError, match=r"which 100000 declared records call for: privacy\.largest is too small"):
        plan_of(settings, 100_000)


def test_a_silo_with_larger_batches_than_the_run_expects_refuses_it_before_it_is_charged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With others it would make an honest sum that everybody takes for a forged one, which ends a run."""
    place = place_of(tmp_path, RECORD.replace("records=300 privacy.largest=100", "records=90 privacy.largest=30"))
    assert code_of(place.ask(contract.OPEN)) in ("POLICY_REFUSED", "BUDGET_REFUSED")
    assert "raise privacy.largest, and privacy.records with it" in caplog.text
    assert place.charges("hospital-1") == 0


def test_no_update_leaves_in_clear(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    assert code_of(place.ask(contract.TRAIN)) == "SECURE_REFUSED"
    assert code_of(place.ask(contract.EVALUATE)) == "SCORES_WITHHELD"


def test_a_receipt_states_the_noise_that_is_left_against_the_run_s_colluders(tmp_path: Path) -> None:
    place = place_of(tmp_path, rounds=1)
    ((report, _),) = place.serve()
    import base64

    for text in report.receipts.values():
        body = Receipt.decode(base64.b64decode(text)).body
        plan = plan_of(compose(place.overrides), 100)
        assert body["noise_multiplier"] == pytest.approx(plan.noise_multiplier)
        assert (body["unit"], body["sampling_rate"], body["steps"], body["records"]) == ("record", 0.2, 1, 100)
