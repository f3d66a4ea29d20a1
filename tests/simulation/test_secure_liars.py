"""One member lies under its own signature: it costs itself its place, and the others at most a round."""

import json
from itertools import pairwise

import pytest
from killing import die, killed, resumed
from secure_liars import (
    advertise,
    deal_no_secret,
    garbage_halves,
    garbage_shares,
    lie,
    lie_when_dealing,
    no_key,
    no_point,
    sealed_nonsense,
)
from secure_runs import BASE, PRIVATE, SECURE, model_of, rounds_of

import quire
from quire.clients import contract
from quire.clients.arrays import fingerprint
from quire.errors import RunFailed
from quire.simulation import secure_section
from quire.simulation.report import write_report
from quire.simulation.report_data import read_run
from quire.simulation.verify import verify_run
from quire.strategies.folder import RunFolder

THREE = f"{BASE} aggregation=secure strategy.rounds=3"
HONEST = [f"hospital-{place}" for place in range(1, 5)]


def blame_of(line):
    return [note for attempt in line["secure"]["attempts"] for note in attempt["blame"]]


def events_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("key", [no_key, no_point])
def test_who_advertises_no_key_is_left_out_and_nobody_else_is_blamed(key, tmp_path, monkeypatch):
    lie(monkeypatch, "hospital-5", contract.OPEN, advertise(key))
    quire.run(f"{SECURE} aggregation.rekey_every=1", tmp_path / "run")
    first, second = rounds_of(tmp_path / "run")
    assert [line["replied"] for line in (first, second)] == [HONEST, HONEST]
    (note,) = blame_of(first)
    assert (note["silo"], note["stage"], note["error"], note["proven"]) == (
        "hospital-5",
        "open",
        "PairKeyFailure",
        True,
    )
    assert first["failed"][0]["words"] == "what it sent does not hold: the key that it advertised is none"
    assert second["failed"] == []  # it is not asked again
    assert "hospital-5" not in second["cohort"]


def test_shares_of_no_secret_cost_one_round_and_the_liar_its_place(tmp_path, monkeypatch):
    deal_no_secret(monkeypatch, 4)
    quire.run(THREE, tmp_path / "run")
    first, second, third = rounds_of(tmp_path / "run")
    start = events_of(tmp_path / "run")[0]
    assert first["model"] == start["model"] != second["model"] != third["model"]
    assert first["replied"] == []
    assert "because hospital-5 dealt shares that are not of the secret it named" in first["lost"]
    assert "member" not in first["lost"].lower()
    assert first["secure"]["attempts"][0]["error"] == "UnrecoverableShare"
    assert "lost" not in second
    assert [line["replied"] for line in (second, third)] == [HONEST, HONEST]
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["status"], about["rounds"]) == ("completed", 3)
    assert fingerprint(model_of(tmp_path / "run")) == about["model"] == third["model"]


def test_two_liars_at_once_cost_one_round_together(tmp_path, monkeypatch):
    deal_no_secret(monkeypatch, 2, 6)
    quire.run(f"{THREE} partition.silos=8", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert ["lost" in line for line in rounds] == [True, False, False]
    assert {"hospital-3", "hospital-7"}.isdisjoint(rounds[1]["cohort"] + rounds[2]["cohort"])


def test_a_sealed_list_that_is_none_costs_one_round_too(tmp_path, monkeypatch):
    lie_when_dealing(monkeypatch, 4, sealed_nonsense)
    quire.run(f"{THREE} runtime.faults=[drop:mask:1:hospital-5]", tmp_path / "run")
    first, second, _ = rounds_of(tmp_path / "run")
    assert "hospital-5 sealed other mask seeds than it named" in first["lost"]
    assert second["replied"] == HONEST


def test_rounds_that_are_lost_in_a_row_end_the_run(tmp_path):
    faults = "runtime.faults=[drop:unmask:*:hospital-1,drop:unmask:*:hospital-2]"
    with pytest.raises(RunFailed, match="3 rounds in a row were lost") as caught:
        quire.run(f"{BASE} aggregation=secure strategy.rounds=6 {faults}", tmp_path / "run")
    kinds = [event["event"] for event in events_of(tmp_path / "run")]
    assert kinds == ["start", "round", "round", "failed", "end"]
    failed = events_of(tmp_path / "run")[3]
    assert (failed["round"], failed["error"]) == (3, str(caught.value))
    assert failed["secure"]["attempts"][0]["error"] == "UnrecoverableShare"


def test_a_run_of_which_no_sum_was_opened_has_failed(tmp_path, monkeypatch):
    deal_no_secret(monkeypatch, 4)
    with pytest.raises(RunFailed, match="no sum of this run was opened"):
        quire.run(f"{BASE} aggregation=secure strategy.rounds=1", tmp_path / "run")


def test_a_run_goes_on_after_a_lost_round(tmp_path, monkeypatch):
    def arm():
        deal_no_secret(monkeypatch, 4)
        original = RunFolder._line

        def line_then_die(self, event):
            original(self, event)
            if event.get("round") == 1:
                die()

        RunFolder._line = line_then_die

    killed(f"{THREE} output.progress=none", tmp_path / "run", arm)
    model = resumed(f"{THREE} output.progress=none", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert [("lost" in line, len(line["replied"])) for line in rounds] == [(True, 0), (False, 5), (False, 5)]
    assert rounds[2]["model"] == model


def test_a_lost_round_of_a_private_run_is_on_the_page_and_verifies(tmp_path, monkeypatch):
    deal_no_secret(monkeypatch, 4)
    quire.run(f"{THREE} {PRIVATE}", tmp_path / "run")
    assert verify_run(tmp_path / "run").wrong == []
    found = secure_section.section(read_run(tmp_path / "run"))
    assert found["verdict"].startswith("One sum a round was opened, but for one round, over 4 of 5 hospitals")
    assert found["failed"][0]["words"] == "the shares that came do not open the sum, and the round was lost"
    assert "and the round was lost" in write_report(tmp_path / "run").read_text()


def test_a_round_that_ends_the_run_is_journalled_and_on_the_page(tmp_path):
    faults = "runtime.faults=[drop:mask:2:hospital-1,drop:mask:2:hospital-2]"
    overrides = f"{SECURE} output.progress=none {faults}"
    with pytest.raises(RunFailed):
        quire.run(overrides, tmp_path / "run")
    with pytest.raises(RunFailed):
        resumed(overrides, tmp_path / "run")
    events = [event for event in events_of(tmp_path / "run") if event["event"] == "failed"]
    (failed,) = events  # that of the first try was cut off: its round was run again
    assert [attempt["error"] for attempt in failed["secure"]["attempts"]] == ["TooFewSurvivors"] * 3
    found = secure_section.section(read_run(tmp_path / "run"))
    assert [(one["round"], one["attempt"]) for one in found["failed"]] == [(2, 1), (2, 2), (2, 3)]
    assert "hospital-1 (mask)" in found["failed"][0]["missing"]
    page = write_report(tmp_path / "run").read_text()
    assert "Round 2, attempt 3" in page


def test_a_run_that_failed_in_its_first_round_shows_its_attempts(tmp_path):
    faults = "runtime.faults=[drop:open:1:hospital-1,drop:open:1:hospital-2]"
    with pytest.raises(RunFailed):
        quire.run(f"{SECURE} {faults}", tmp_path / "run")
    found = secure_section.section(read_run(tmp_path / "run"))
    assert (found["begun"], found["opened"], found["verdict"]) == (True, False, "No sum was opened.")
    assert "No sum was opened." in write_report(tmp_path / "run").read_text()


# ------------------------------------------------------------------------------------------ who stands in
def test_silos_that_stand_by_take_the_place_of_one_that_is_gone(tmp_path):
    overrides = f"{BASE} aggregation=secure partition.silos=10 strategy.fraction=0.7 strategy.rounds=4"
    faults = "runtime.faults=[drop:shares:*:hospital-9]"
    models = [quire.run(f"{overrides} {faults}", tmp_path / name).model for name in "ab"]
    assert models[0] == models[1]
    rounds = rounds_of(tmp_path / "a")
    assert [len(line["replied"]) for line in rounds] == [7] * 4
    assert any("hospital-9" in line["cohort"] for line in rounds)
    for line in rounds:
        assert set(line["replied"]) == set(line["cohort"]) - {"hospital-9"}
        assert all(len(attempt["cohort"]) <= 7 for attempt in line["secure"]["attempts"])


# -------------------------------------------------------------------------------- who of two of them lies
def longest_absence(rounds, silo):
    there = [0, *(line["round"] for line in rounds if silo in line["replied"]), len(rounds) + 1]
    return max(later - sooner for sooner, later in pairwise(there)) - 1


@pytest.mark.parametrize("how", ["halves", "shares"])
def test_one_that_shuts_out_another_takes_turns_with_it(how, tmp_path, monkeypatch):
    if how == "halves":
        lie(monkeypatch, "hospital-5", contract.PAIRS, garbage_halves(0))
    else:
        lie_when_dealing(monkeypatch, 4, garbage_shares(0))
    quire.run(f"{BASE} aggregation=secure strategy.rounds=16", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert all(len(line["replied"]) >= 4 for line in rounds)
    assert longest_absence(rounds, "hospital-1") <= 5
    assert sum("hospital-1" in line["replied"] for line in rounds) >= 8


@pytest.mark.parametrize("how", ["halves", "shares"])
def test_one_that_more_accuse_than_may_collude_is_out_for_good(how, tmp_path, monkeypatch):
    if how == "halves":
        lie(monkeypatch, "hospital-5", contract.PAIRS, garbage_halves(0, 1))
    else:
        lie_when_dealing(monkeypatch, 4, garbage_shares(0, 1))
    quire.run(f"{BASE} aggregation=secure strategy.rounds=8 aggregation.rekey_every=2", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert [line["replied"] for line in rounds] == [HONEST] * 8
    assert len(rounds[0]["secure"]["attempts"]) == 2


# --------------------------------------------------------------------------------- what was cut to the bound
def test_updates_that_were_cut_are_a_warning_on_the_page(tmp_path):
    quire.run(f"{SECURE} aggregation.bound=0.01", tmp_path / "cut")
    quire.run(SECURE, tmp_path / "whole")
    for line in rounds_of(tmp_path / "cut"):
        assert 0.0 < line["secure"]["clamped"] <= 1.0
        assert set(line["train"]) == {"loss"}
    assert all("clamped" not in line["secure"] for line in rounds_of(tmp_path / "whole"))
    words = secure_section.section(read_run(tmp_path / "cut"))["clamped"]
    assert words.startswith("Coordinates of updates lay beyond aggregation.bound in round 1\N{EN DASH}2 and were cut")
    assert words in write_report(tmp_path / "cut").read_text()
    assert secure_section.section(read_run(tmp_path / "whole"))["clamped"] == ""
