"""Whole runs under distributed noise in this process: the sum is that of the core, whoever drops out and when."""

import logging

import numpy as np
import pytest
from secure_runs import model_of
from shared_runs import NAMES, RECORD, SILO, UNITS, card_of, expected_model, lines_of, rounds_of

import quire
from quire.clients import contract
from quire.clients.arrays import fingerprint
from quire.clients.secure.noise import noise_of
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.errors import RunFailed
from quire.privacy.dp.encoding import Encoding
from quire.privacy.randomness import stream
from quire.simulation.baselines import whole_course
from quire.simulation.grid import InlineGrid
from quire.simulation.report import write_report
from quire.simulation.sweep_data import Job
from quire.simulation.sweep_measured import measured
from quire.simulation.verify import verify_run
from quire.strategies import secure


@pytest.mark.parametrize("more", ["", "aggregation.bits=32 strategy.min_silos=5 aggregation.colluders=0 seed=3"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_run_comes_to_the_model_of_the_core(unit, more, tmp_path):
    overrides = f"{UNITS[unit]} strategy.rounds=2 {more}"
    result = quire.run(overrides, tmp_path / "run")
    assert result.model == fingerprint(expected_model(overrides, [NAMES, NAMES]))
    assert verify_run(tmp_path / "run").wrong == []


@pytest.mark.parametrize("stage", ["open", "shares", "mask", "confirm", "unmask"])
@pytest.mark.parametrize("unit", UNITS)
def test_who_drops_out_at_any_stage_leaves_a_right_mean_and_card(unit, stage, tmp_path):
    """What is divided by is public and fixed: a dropout shortens the step, and nothing else."""
    overrides = f"{UNITS[unit]} strategy.rounds=1"
    result = quire.run(f"{overrides} runtime.faults=[drop:{stage}:1:hospital-2]", tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert ("hospital-2" in line["replied"]) == (stage in ("confirm", "unmask"))
    assert result.model == fingerprint(expected_model(overrides, [line["replied"]]))
    assert verify_run(tmp_path / "run").wrong == []
    assert len(card_of(tmp_path / "run")["silos"]) == len(line["replied"])


@pytest.mark.parametrize("silos", [10, 7])
def test_the_released_mean_has_the_noise_that_is_stated_for_its_survivors(silos, tmp_path):
    overrides = (
        "task=digits partition=iid partition.silos=10 aggregation=secure output.report=false output.baselines=false "
        "privacy=record_distributed privacy.epsilon=1 strategy.rounds=1"
    )
    gone = ",".join(f"drop:mask:1:site-{place}" for place in range(silos + 1, 11))
    quire.run(f"{overrides} runtime.faults=[{gone}]", tmp_path / "run")
    settings, names = compose(overrides), [f"site-{place}" for place in range(1, silos + 1)]
    plain, noisy = expected_model(overrides, [names], noisy=False), model_of(tmp_path / "run")
    error = np.concatenate([(noisy[name].astype(float) - plain[name]).ravel() for name in plain])
    expected = noise_of(settings).noise(silos) * settings.training.lr
    assert np.sqrt(np.mean(error**2)) == pytest.approx(expected, rel=0.12)  # four deviations of 650 numbers
    assert noise_of(settings).excess(7) == pytest.approx(np.sqrt(7 / 3))


@pytest.mark.parametrize("unit", UNITS)
def test_another_attempt_draws_its_batch_and_its_noise_anew(unit, flaky, replies, tmp_path):
    overrides = f"{UNITS[unit]} strategy.rounds=1"
    flaky("confirm", 1, 3)
    result = quire.run(overrides, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert [attempt["error"] for attempt in line["secure"]["attempts"]] == ["NoQuorum", None]
    assert result.model == fingerprint(expected_model(overrides, [NAMES], {1: 2}))
    assert result.model != fingerprint(expected_model(overrides, [NAMES]))
    card = card_of(tmp_path / "run")
    for silo in card["silos"]:  # both attempts were charged, and one was opened
        assert silo["statement"]["steps"] == 1
        assert silo["if_all_asked"]["rdp"] > 1.2 * silo["figures"]["rdp"]
    assert verify_run(tmp_path / "run").wrong == []


def test_a_message_that_comes_twice_reveals_no_second_noising(monkeypatch, tmp_path):
    """Whatever the server sends again, of one vector one noisy version leaves, ever."""
    deliver, seen = InlineGrid._deliver, []

    def twice(self, message):
        first = deliver(self, message)
        if (stage := message.metadata.message_type) in (contract.SHARES, contract.MASK):
            seen.append((stage, _sent(first), _sent(deliver(self, message))))
        return first

    def _sent(reply):
        from quire.clients.arrays import decode

        return [part.tobytes() for part in decode(reply.content[contract.PROTOCOL]).values()]

    monkeypatch.setattr(InlineGrid, "_deliver", twice)
    result = quire.run(f"{RECORD} strategy.rounds=2", tmp_path / "run")
    masked = [(first, again) for stage, first, again in seen if stage == contract.MASK]
    shared = [(first, again) for stage, first, again in seen if stage == contract.SHARES]
    assert len(masked) == len(shared) == 2 * 5
    assert all(len(again[0]) < 100 < len(first[0]) for first, again in masked)  # the number of an error, and no vector
    assert all(first == again for first, again in shared)  # which holds neither a vector nor noise
    assert result.model == fingerprint(expected_model(f"{RECORD} strategy.rounds=2", [NAMES, NAMES]))


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_a_server_optimiser_steps_along_the_noisy_mean_as_post_processing(strategy, tmp_path):
    overrides = f"{RECORD} strategy={strategy} strategy.rounds=3"
    quire.run(overrides, tmp_path / "run")
    assert verify_run(tmp_path / "run").wrong == []
    assert [line["released"]["probes"] for line in rounds_of(tmp_path / "run")] == [1024.0] * 3


def test_without_a_claim_there_is_no_noise(tmp_path):
    overrides = f"{RECORD.replace('epsilon=8', 'epsilon=inf')} strategy.rounds=1"
    result = quire.run(overrides, tmp_path / "run")
    assert result.model == fingerprint(expected_model(overrides, [NAMES], noisy=False))
    card = card_of(tmp_path / "run")
    assert card["standing"] == "none"
    assert verify_run(tmp_path / "run").wrong == []


@pytest.mark.parametrize(
    "changes",
    [
        {"clip": 2.0},
        {"noise_multiplier": 0.5},
        {"min_survivors": 5},
        {"colluders": 0, "min_survivors": 3},
        {"sampling_rate": 0.5},
        {"denominator": 1.0},
        {"probes": 0},
        {"kappa": 8.0},
    ],
)
def test_a_server_that_asks_for_other_noise_is_refused_by_every_silo(changes, monkeypatch, tmp_path):
    from dataclasses import replace

    genuine = secure.terms_of

    def lying(*args):
        terms = genuine(*args)
        return replace(terms, noise=replace(terms.noise, **changes))

    monkeypatch.setattr(secure, "terms_of", lying)
    with pytest.raises(RunFailed, match=r"hospital-1, open"):
        quire.run(f"{RECORD} strategy.rounds=1", tmp_path / "run")
    assert rounds_of(tmp_path / "run") == []


# ------------------------------------------------------------------------------------------------ the probes
def tampered(noise, monkeypatch):
    genuine = Encoding.noise
    calls = [0]

    def wrong(self, source):
        calls[0] += 1
        return noise(genuine(self, source), calls[0])

    monkeypatch.setattr(Encoding, "noise", wrong)


BUGS = {
    "noise times 0.9": lambda drawn, call: np.rint(0.9 * drawn).astype(np.int64),
    "one silo adds none": lambda drawn, call: drawn * (call % 5 != 0),
    "the root forgotten": lambda drawn, call: np.rint(drawn / 10).astype(np.int64),
}


@pytest.mark.parametrize("bug", BUGS)
def test_noise_that_is_missing_is_found_within_five_rounds(bug, monkeypatch, caplog, tmp_path):
    tampered(BUGS[bug], monkeypatch)
    quire.run(f"{RECORD} strategy.rounds=5", tmp_path / "run")
    assert [line["released"]["probe_alarm"] for line in rounds_of(tmp_path / "run")][-1] == 1.0
    assert caplog.text.count("the stated epsilon cannot be relied upon") == 1  # once, when it is found
    card = card_of(tmp_path / "run")
    assert 1 <= card["distributed"]["probes"]["too_little"] <= 5
    assert "cannot be relied upon" in " ".join(card["words"]["mechanism"])
    assert verify_run(tmp_path / "run").wrong == []  # it is an honest account of a bad run


def test_noise_that_is_there_raises_no_alarm(tmp_path, caplog):
    quire.run(f"{RECORD} strategy.rounds=6", tmp_path / "run")
    assert "Noise probes" not in caplog.text
    released = [line["released"] for line in rounds_of(tmp_path / "run")]
    assert all(1e-4 < one["probe_p"] <= 1.0 and one["probe_alarm"] == 0.0 for one in released)
    assert card_of(tmp_path / "run")["distributed"]["probes"]["ratio"] == pytest.approx(1.0, abs=0.1)


# ---------------------------------------------------------------------------------------------- what is said
@pytest.mark.parametrize(("overrides", "drowned"), [(SILO, True), (RECORD, False)])
def test_a_run_says_beforehand_whether_the_noise_drowns_the_signal(overrides, drowned, caplog, tmp_path):
    caplog.set_level(logging.INFO, logger="quire.strategies")
    quire.run(f"{overrides} strategy.rounds=2", tmp_path / "run")
    assert ("That drowns the signal" in caplog.text) == drowned
    assert caplog.text.index("Noise beside signal") < caplog.text.index("Round 1:")
    start = lines_of(tmp_path / "run")[0]["distributed"]
    assert start["forecast"]["parties_needed"] > 0
    assert (start["forecast"]["run"] > 0.25) == drowned


def test_the_report_shows_the_noise_and_what_was_foreseen(tmp_path):
    quire.run(f"{SILO} strategy.rounds=2", tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert "That drowns the signal" in page
    assert "Noise over what was promised" in page
    assert "Epsilon if all others are dishonest" in page
    card = (tmp_path / "run" / "privacy_card.html").read_text()
    assert "distributed discrete Gaussian" in card
    assert "If all others lie" in card


def test_the_first_model_is_the_seeds():
    settings = compose(RECORD)
    first = task_of(settings).initial_arrays(stream(settings.seed, "model"))
    assert fingerprint(expected_model(RECORD, [])) == fingerprint(first)


def test_the_models_to_compare_with_go_over_the_rows_as_often():
    settings = compose(f"{RECORD} strategy.rounds=40 training.epochs=7")
    assert whole_course(settings, 5).epochs == 40 * 0.2
    assert whole_course(compose(f"{SILO} strategy.rounds=4 training.epochs=2"), 5).epochs == 8


@pytest.mark.parametrize("unit", UNITS)
def test_signal_to_noise_is_of_the_sum_and_at_most_what_it_was(unit, tmp_path):
    overrides = f"{UNITS[unit]} strategy.rounds=2"
    quire.run(overrides, tmp_path / "run")
    found = measured(Job(0, tmp_path / "run", {}, "completed", 0, None, 0, 1.0, "hospital"), "accuracy")
    noise = noise_of(compose(overrides))
    for place, line in enumerate(rounds_of(tmp_path / "run"), start=1):
        norms = [line["silos"][name]["signal_norm"] for name in NAMES]
        expected = noise.noise() * noise.denominator * np.sqrt(31)
        assert found.ratios[place] == pytest.approx(sum(norms) / expected)
    assert found.bounded


def test_a_sum_that_does_not_fit_is_refused_in_one_sentence_and_one_that_is_rotated_may_fit(tmp_path):
    narrow = f"{RECORD} strategy.rounds=1 aggregation.bits=16"
    with pytest.raises(RunFailed, match=r"need 2\d bits.*; aggregation\.bits=null takes as many"):
        quire.run(f"{narrow} aggregation.rotation=true", tmp_path / "wide")
    wide = SILO.replace("task=breast_cancer", "task=digits partition.silos=2").replace("epsilon=8", "epsilon=40")
    quire.run(f"{wide} strategy.rounds=1 aggregation.bits=16 aggregation.rotation=true", tmp_path / "run")
    assert verify_run(tmp_path / "run").wrong == []
    assert card_of(tmp_path / "run")["distributed"]["encoding"]["bits"] == 16
