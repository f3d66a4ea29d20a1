"""Real silos in a self-test of the noise: they read no row, charge nothing, and no run becomes or stops being one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_silo import code_of
from safetensors.numpy import load_file
from secure_place import SILOS, Place, lose
from secure_silos import overrides_of

from quire.clients import contract
from quire.clients.data.silo_file import read_operator_of
from quire.clients.policy.case import State
from quire.clients.policy.decide import Allow, Refuse, decide
from quire.conf.compose import compose
from quire.strategies.distributed import SILOS as COUNTS
from quire.strategies.distributed import SUMS
from quire.strategies.folder import read_about
from quire.strategies.selftest import SUMS_FILE, judge

POLICY = (
    "modes: [record_distributed], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, epsilon: 40, "
    "delta: 1.0e-4"
)
RUN = (
    "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 privacy.records=300 privacy.largest=100 "
    "strategy.fraction_evaluate=0"
)
TEST = f"{RUN} privacy.selftest=3"


def place_of(folder: Path, more: str = TEST, policy: str = POLICY) -> Place:
    return Place(folder, overrides_of(SILOS, 5, more), policy)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every way to a row end in an error that is no refusal."""

    def load(*args: object) -> None:
        raise AssertionError("a row was about to be read")

    for module in ("client_app", "work", "data.own"):
        monkeypatch.setattr(f"quire.clients.{module}.load", load)
    monkeypatch.setattr("quire.clients.data.own.federation", load)


def ledgers(place: Place) -> int:
    found = 0
    for silo, file in place.files.items():
        if (file.parent / "store" / "ledger").exists():
            found += place.charges(silo)
    return found


def test_no_row_is_read_nothing_is_charged_and_the_noise_is_as_promised(tmp_path: Path, blind: None) -> None:
    place = place_of(tmp_path)
    reports = [report for report, _ in place.serve()]
    assert [report.replied for report in reports] == [list(place.files)] * 3
    assert ledgers(place) == 0
    assert [(report.receipts, report.silos) for report in reports] == [({}, {})] * 3
    found = judge(tmp_path / "run")
    assert found.passed
    assert (found.rounds, found.length) == (3, 31 + 1024)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not {name for name in left if name.startswith(("model", "privacy_card"))}
    assert read_about(tmp_path / "run")["selftest"] is True
    for silo in place.files:  # the rounds are in its books all the same, and are never answered twice
        with place.store(silo) as store:
            assert store.counters.rounds("run-7") == 3


def test_the_noise_is_the_operating_systems(tmp_path: Path, blind: None) -> None:
    sums = []
    for name in "ab":
        place_of(tmp_path / name).serve()
        sums += list(load_file(tmp_path / name / "run" / SUMS_FILE)[SUMS])
    assert not any(np.array_equal(one, other) for place, one in enumerate(sums) for other in sums[:place])


def test_who_drops_out_is_missing_from_what_was_promised_for_the_round(tmp_path: Path, blind: None) -> None:
    place = place_of(tmp_path)
    lose(place, contract.MASK, "hospital-2")
    place.serve()
    assert load_file(tmp_path / "run" / SUMS_FILE)[COUNTS].tolist() == [2, 3, 3]
    assert judge(tmp_path / "run").passed


@pytest.mark.parametrize(("first", "then"), [(TEST, RUN), (RUN, TEST)])
def test_no_run_becomes_a_self_test_and_no_self_test_a_run(
    first: str, then: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = place_of(tmp_path, first)
    place.serve()
    before = ledgers(place)
    for stage in (contract.OPEN, contract.SHARES, contract.MASK, contract.UNMASK):
        assert code_of(place.ask(stage, overrides_of(SILOS, 5, then))) == "SETTINGS_REFUSED"
    assert "the run began with other settings" in caplog.text
    assert ledgers(place) == before == (0 if first == TEST else 5 * SILOS)


@pytest.mark.parametrize(("told", "others"), [(TEST, RUN), (RUN, TEST)])
def test_a_silo_that_is_told_other_settings_than_the_rest_is_in_no_sum_of_theirs(
    told: str, others: str, tmp_path: Path
) -> None:
    """Neither its zeros in a run, nor its rows in a self-test: what all have agreed on says which of the two it is."""
    place = place_of(tmp_path, others)
    context = next(iter(place.grid._contexts.values()))
    context.run_config["overrides"] = overrides_of(SILOS, 5, told)
    for report, _ in place.serve():
        assert report.replied == ["hospital-2", "hospital-3"]
    store = place.files["hospital-1"].parent / "store"
    assert not (store / "ledger").exists() or place.charges("hospital-1") == 0


def test_nothing_else_reads_rows_either(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    assert code_of(place.ask(contract.TRAIN)) == "SECURE_REFUSED"
    assert code_of(place.ask(contract.EVALUATE)) == "SCORES_WITHHELD"
    assert code_of(place.ask(contract.MOMENTS)) == "BAD_REQUEST"


def test_a_spent_budget_forbids_the_run_and_not_the_self_test_and_everything_else_holds(tmp_path: Path) -> None:
    place = place_of(tmp_path, policy=POLICY.replace("epsilon: 40", "epsilon: 1"))
    policy = read_operator_of(place.files["hospital-1"]).policy
    run, test = (compose(overrides_of(SILOS, 5, more)) for more in (RUN, TEST))
    refused = decide(policy, run, State(contract.TRAIN, spent=_nothing()))
    assert isinstance(refused, Refuse)
    assert "caps population" in refused.words
    assert isinstance(decide(policy, test, State(contract.TRAIN, spent=_nothing())), Allow)
    for other in ("privacy.clip=500000", "strategy.rounds=100000"):
        strict = place_of(tmp_path / other, policy=f"{POLICY}, max_clip: 1, max_rounds: 10")
        policy = read_operator_of(strict.files["hospital-1"]).policy
        key = other.partition("=")[0]
        words = " ".join([item for item in test.overrides.split() if not item.startswith(key)] + [other])
        assert isinstance(decide(policy, compose(words), State(contract.TRAIN, spent=_nothing())), Refuse)


def _nothing() -> object:
    from quire.privacy.dp.spending import Spending

    return Spending.zero()


def test_an_operator_who_does_not_list_the_mode_is_not_tested(tmp_path: Path) -> None:
    place = place_of(tmp_path, policy=POLICY.replace("record_distributed", "silo_distributed"))
    assert code_of(place.ask(contract.OPEN)) == "POLICY_REFUSED"
