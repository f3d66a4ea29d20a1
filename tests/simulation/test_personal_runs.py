"""Runs with layers that stay in the silos, and with copies tuned to a silo's rows: at every runtime, and resumed."""

import json
import shutil
from statistics import fmean

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

import quire
from quire import compose
from quire.clients.data.simulated import federation
from quire.clients.tasks import task_of
from quire.clients.training import Workbench
from quire.errors import DataError, SettingsError
from quire.simulation.baselines import compare
from quire.simulation.inline import run_inline
from quire.simulation.launch import launch
from quire.simulation.report import write_report
from quire.strategies.checkpoint import Checkpoints

SMALL = (
    "task=digits partition.silos=3 task.model=mlp task.hidden=[4] training.epochs=1 training.batch_size=64 "
    "strategy.rounds=2 output.baselines=false"
)
LOCAL = f"{SMALL} training.local_layers=[head]"
TUNED = "training.tuning_epochs=1"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "run"
    quire.run(f"{LOCAL} {TUNED}", folder)
    compare(compose(f"{LOCAL} {TUNED}"), folder)
    return folder


def rounds(folder):
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "round"]


def test_the_model_lacks_them_and_each_silo_is_scored_with_its_own(local):
    shared = load_file(local / "model.safetensors")
    assert set(shared) == {"0.weight", "0.bias"}
    kept = Checkpoints(local / "checkpoint").load().silos
    found = json.loads((local / "comparison.json").read_text())
    settings = compose(LOCAL)
    bench = Workbench(task_of(settings))
    for place, silo in enumerate(federation(settings)):
        own = {name: kept[f"{1000 + place}/memory/{name}"] for name in ("2.weight", "2.bias")}
        bench.load({**shared, **own})
        scores = bench.score(silo.test)
        assert found["own"][f"site-{place + 1}"]["federated"] == scores
        # The last round scored the same rows with the same model, and its own layers.
        assert rounds(local)[-1]["silos"][f"site-{place + 1}"]["accuracy"] == scores["accuracy"]
    assert len({kept[f"{1000 + place}/memory/2.bias"].tobytes() for place in range(3)}) == 3


def test_bytes_on_the_wire_are_those_of_the_other_layers(local, tmp_path):
    quire.run(SMALL, tmp_path / "whole")
    assert rounds(local)[0]["bytes_up"] < rounds(tmp_path / "whole")[0]["bytes_up"]


@pytest.mark.parametrize("more", ["runtime=batched", "runtime.workers=2"])
def test_every_runtime_gives_the_same_model_and_the_same_layers(local, more, tmp_path):
    quire.run(f"{LOCAL} {TUNED} {more}", tmp_path)
    ours, theirs = (Checkpoints(folder / "checkpoint").load() for folder in (local, tmp_path))
    assert {key: array.tobytes() for key, array in ours.silos.items()} == {
        key: array.tobytes() for key, array in theirs.silos.items()
    }
    assert [event["evaluate"] for event in rounds(local)] == [event["evaluate"] for event in rounds(tmp_path)]


def test_compressed_updates_and_local_layers_are_remembered_side_by_side(local, tmp_path):
    quire.run(f"{LOCAL} compression=eight_bit", tmp_path)
    kept = Checkpoints(tmp_path / "checkpoint").load().silos
    assert {key.split("/")[2] for key in kept} == {"2.weight", "2.bias", "unsent"}
    ours, small = (load_file(folder / "model.safetensors") for folder in (local, tmp_path))
    for name in ours:
        np.testing.assert_allclose(small[name], ours[name], atol=0.05)


def test_under_masks_the_sum_is_the_same_but_for_its_rounding(local, tmp_path):
    quire.run(f"{LOCAL} aggregation=secure", tmp_path)
    ours, masked = (load_file(folder / "model.safetensors") for folder in (local, tmp_path))
    for name in ours:
        np.testing.assert_allclose(masked[name], ours[name], atol=1e-4)
    kept, under = (Checkpoints(folder / "checkpoint").load().silos for folder in (local, tmp_path))
    for key in kept:
        np.testing.assert_allclose(under[key], kept[key], atol=1e-3)


def test_resumed_as_if_never_stopped(local, tmp_path, monkeypatch):
    from quire.strategies.folder import RunFolder

    done = RunFolder.round_done

    def stopped(self, report, state):
        done(self, report, state)
        raise KeyboardInterrupt

    settings = compose(f"{LOCAL} {TUNED}")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "round_done", stopped)
        with pytest.raises(quire.QuireError):
            run_inline(settings, tmp_path)
    assert run_inline(settings, tmp_path, resume=True).model == json.loads((local / "run.json").read_text())["model"]
    kept, again = (Checkpoints(folder / "checkpoint").load().silos for folder in (local, tmp_path))
    assert all(np.array_equal(kept[key], again[key]) for key in kept)


def test_tuning_is_reported_beside_the_model_and_changes_nothing_of_it(local, tmp_path):
    without = quire.run(LOCAL, tmp_path)
    assert without.model == json.loads((local / "run.json").read_text())["model"]
    line = rounds(local)[-1]
    assert {"accuracy", "tuned_accuracy", "tuned_loss"} <= set(line["silos"]["site-1"])
    assert line["silos"]["site-1"]["tuned_loss"] < line["silos"]["site-1"]["loss"]
    assert {"accuracy", "tuned_accuracy"} <= set(line["fairness"])
    found = json.loads((local / "comparison.json").read_text())
    assert set(found["fairness"]) == {"federated", "tuned"}
    assert found["own"]["site-1"]["tuned"] != found["own"]["site-1"]["federated"]
    assert "tuned_loss" not in rounds(tmp_path)[-1]["evaluate"]


def test_tuning_takes_steps_of_its_own(local, tmp_path):
    assert quire.run(f"{LOCAL} {TUNED} training.tuning_lr=1e-9", tmp_path).folder
    for silo, scores in rounds(tmp_path)[-1]["silos"].items():
        assert scores["tuned_loss"] == pytest.approx(scores["loss"], rel=1e-6)
        assert scores["loss"] == rounds(local)[-1]["silos"][silo]["loss"]


def test_scores_of_a_copy_that_tuning_threw_off_are_left_out(local, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(local, folder)
    compare(compose(f"{LOCAL} {TUNED} training.tuning_lr=1e30"), folder)
    text = (folder / "comparison.json").read_text()
    assert "NaN" not in text
    tuned = json.loads(text)["own"]["site-1"]["tuned"]
    assert "accuracy" in tuned
    assert "loss" not in tuned


def test_the_page_says_who_is_served_worst_and_what_stays(local):
    page = " ".join(write_report(local).read_text().split())
    found = json.loads((local / "comparison.json").read_text())["fairness"]["federated"]["balanced_accuracy"]
    assert f"The model serves {found['worst_silo']} ({100 * found['worst']:.1f} %) worst" in page
    assert "uses layers of its own (head)" in page
    assert "Federated, tuned to its own rows" in page


def test_a_deployed_closed_run_says_why_it_has_none(local, tmp_path):
    for name in ("settings.yaml", "metrics.jsonl", "run.json"):
        (tmp_path / name).write_bytes((local / name).read_bytes())
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**about, "runtime": "deployment"}))
    text = (tmp_path / "settings.yaml").read_text()
    (tmp_path / "settings.yaml").write_text(text.replace("name: plain", "name: secure"))
    page = " ".join(write_report(tmp_path).read_text().split())
    assert "Not known for single sites: under secure aggregation they keep their scores" in page
    assert "tuned to its own rows" not in page


def test_layers_that_are_not_there_end_the_run_in_a_sentence(tmp_path):
    with pytest.raises(SettingsError, match=r"names '7', which task\.model=mlp does not have"):
        quire.run(f"{SMALL} training.local_layers=['7']", tmp_path / "run")


def test_a_folder_without_the_silos_layers_cannot_be_compared(local, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((local / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="cannot be scored as the silos use it"):
        compare(compose(LOCAL), tmp_path)


def test_the_page_holds_like_against_like(tmp_path):
    """A silo's own model is made for its own rows: there, and not on everyone's, it stands beside the silo alone."""
    settings = compose(f"{LOCAL.replace(' output.baselines=false', '')} output.progress=none")
    launch(settings, tmp_path / "run", Console(quiet=True))
    found = json.loads((tmp_path / "run" / "comparison.json").read_text())["own"].values()
    means = {way: 100 * fmean(own[way]["balanced_accuracy"] for own in found) for way in ("federated", "alone")}
    page = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert f"reached {means['federated']:.1f} % balanced accuracy; a site alone reaches {means['alone']:.1f} %" in page
    assert "Scored on each site\u2019s own test rows" in page
    assert "would have done better alone" not in page
    assert "everyone\u2019s rows</li>" not in page
