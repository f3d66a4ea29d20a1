"""What each silo adds, from whole federations: their values, their minimum, their refusals, and the command."""

import json

import pytest
from command_line import command_line

import quire
from quire import compose
from quire.errors import SettingsError
from quire.simulation import contribution as room
from quire.simulation.contribution import contribution, fewest

SMALL = "task=digits partition=iid partition.silos=3 training.epochs=1 training.batch_size=64 strategy.rounds=1"


@pytest.fixture(scope="module")
def exact():
    runs, run = [], room.run_inline

    def watched(settings, folder, **options):
        found = run(settings, folder, **options)
        events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        runs.append((tuple(options["absent"]), next(one["silos"] for one in events if one["event"] == "start"), found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "run_inline", watched)
        return contribution(SMALL, exact=True), runs


def test_every_coalition_is_a_federation_of_its_silos_and_is_trained_once(exact, tmp_path):
    found, runs = exact
    assert found.runs == len(runs) == 4  # three pairs and everybody: one silo is fewer than strategy.min_silos
    for absent, silos, _ in runs:
        assert set(silos) == set(found.names) - set(absent)
    everybody = next(result.model for absent, _, result in runs if not absent)
    assert everybody == quire.run(SMALL, tmp_path).model


def test_values_add_up_and_leave_one_out_is_a_difference_of_two_federations(exact):
    found, _ = exact
    assert sum(found.shapley) == pytest.approx(found.everybody - found.nobody)
    assert found.half_width == (0.0, 0.0, 0.0)
    assert all(-1.0 <= lost <= 1.0 for lost in found.left_out)
    # Of three silos of which two are needed: half of what a pair is worth, and a third of what the third adds.
    pairs = {lost: found.everybody - lost for lost in found.left_out}
    one, two, three = (pairs[lost] - found.nobody for lost in found.left_out)
    assert found.shapley[0] == pytest.approx((two + three) / 6 + (found.everybody - found.nobody - one) / 3)


def test_one_cycle_after_the_other_comes_near_the_exact_values(exact):
    sampled = contribution(SMALL, cycles=3, tolerance=0.0)
    assert sampled.orders == 9
    for one, other in zip(sampled.shapley, exact[0].shapley, strict=True):
        assert one == pytest.approx(other, abs=0.1)
    assert sum(sampled.shapley) == pytest.approx(sampled.everybody - sampled.nobody)


def test_under_secure_aggregation_no_coalition_is_smaller_than_a_sum_may_be():
    overrides = "task=digits partition.silos={} aggregation=secure {}"
    assert fewest(compose(overrides.format(5, ""))) == 4
    assert fewest(compose(overrides.format(5, "aggregation.colluders=0"))) == 3
    assert fewest(compose(overrides.format(5, "strategy.min_silos=5"))) == 5
    assert fewest(compose("task=digits partition.silos=7 aggregation=krum aggregation.byzantine=2")) == 7
    small = f"{SMALL} aggregation=secure aggregation.simulate=exact_sum aggregation.colluders=0"
    found = contribution(small, cycles=2)
    assert found.least == 2
    assert found.secure


def test_tuning_of_copies_that_nobody_scores_is_left_out(exact):
    tuned = contribution(f"{SMALL} training.tuning_epochs=1 training.tuning_lr=0.2", cycles=2)
    assert (tuned.nobody, tuned.everybody) == (exact[0].nobody, exact[0].everybody)


def test_loss_is_worth_the_more_the_smaller_it_is():
    found = contribution("task=diabetes partition=iid partition.silos=2 strategy.rounds=1", exact=True, score="loss")
    assert found.nobody < found.everybody < 0.0
    assert found.shapley == pytest.approx([(found.everybody - found.nobody) / 2] * 2)


@pytest.mark.parametrize(
    ("more", "options", "words"),
    [
        ("privacy=record", {}, "each silo would be charged for every coalition"),
        ("runtime=flower", {}, "would start Ray"),
        ("runtime.faults=['drop:train:1:site-1']", {}, "would strike coalitions unlike"),
        ("task.model=mlp training.local_layers=[head]", {}, "no one model"),
        ("data.preprocessing=federated", {}, "no two coalitions"),
        ("aggregation=secure aggregation.colluders=0 strategy.fraction=0.7", {}, "asks too few of a coalition"),
        ("partition.silos=11", {"exact": True}, r"2\^11 coalitions"),
        ("", {"cycles": 1}, "from 2 to"),
        ("", {"tolerance": float("nan")}, "not negative"),
        ("", {"tolerance": -0.1}, "not negative"),
        ("", {"score": "auc"}, "accuracy or loss"),
    ],
)
def test_refused_in_one_sentence(more, options, words):
    base = SMALL.replace(" partition.silos=3", "") if "partition.silos" in more else SMALL
    with pytest.raises(SettingsError, match=words) as caught:
        contribution(f"{base} {more}", **options)
    assert "\n" not in str(caught.value)


def test_of_a_number_there_is_no_accuracy():
    with pytest.raises(SettingsError, match="--score loss"):
        contribution("task=diabetes partition=iid partition.silos=2 strategy.rounds=1", exact=True)


def test_the_command_prints_a_row_for_each_silo_and_writes_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    call = command_line(monkeypatch, capsys)
    small = SMALL.replace("partition.silos=3", "partition.silos=2").split()
    status, out, err = call("contribution", *small, "--json", "worth.json")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "worth.json").read_text())
    for name, figures in found["silos"].items():
        assert f"{name} " in out
        assert f"{figures['shapley']:+.4f}" in out
    assert found["fewest_silos"] == 2
    assert "are worth what the first one is" in " ".join(out.split())
    status, out, err = call("contribution", *small, "--json", "nowhere/worth.json")
    assert (status, out) == (2, "")
    assert err == "quire: 'nowhere/worth.json' cannot be written: name a file in a folder that exists.\n"
    assert not list(tmp_path.glob(".*"))
