"""Trackers are told what the journal says, by their own libraries, and never disturb the run."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.simulation import tracking
from quire.simulation.launch import launch

SMALL = "partition=iid partition.silos=3 strategy.rounds=3 output.report=false output.progress=none"


def needs(library: str) -> Any:
    found = importlib.util.find_spec(library) is not None
    return pytest.mark.skipif(not found, reason=f"{library} is not installed: pip install 'quire[tracking]'")


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event for event in events if event["event"] == "round"]


def run(overrides: str, folder: Path) -> str:
    said = io.StringIO()
    launch(compose(f"{SMALL} {overrides}"), folder, Console(file=said))
    return said.getvalue()


@needs("tensorboard")
def test_tensorboard_holds_every_round_and_the_comparison(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("tracking=tensorboard data.validation_fraction=0.2", tmp_path / "run") == ""
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name, path in {
        "validation/accuracy": ("evaluate", "accuracy"),
        "train/loss": ("train", "loss"),
        "bytes/up": ("bytes_up",),
    }.items():
        told = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = []
        for event in rounds_of(tmp_path / "run"):
            value: Any = event
            for part in path:
                value = value[part]
            wanted.append((event["round"], pytest.approx(value)))
        assert told == wanted
    compared = json.loads((tmp_path / "run" / "comparison.json").read_text(encoding="utf-8"))
    (final,) = events.Scalars("everyone/pooled/accuracy")
    assert (final.step, final.value) == (3, pytest.approx(compared["everyone"]["pooled"]["accuracy"]))


@needs("mlflow")
def test_mlflow_keeps_the_run_in_a_local_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    run("tracking=mlflow output.baselines=false", tmp_path / "runs" / "mine")
    client = MlflowClient(tracking_uri="sqlite:///runs/mlflow.db")
    experiment = client.get_experiment_by_name("quire")
    assert experiment is not None
    (kept,) = client.search_runs([experiment.experiment_id])
    assert (kept.info.run_name, kept.info.status) == ("runs/mine", "FINISHED")
    assert kept.data.params["training.lr"] == str(compose().training.lr)
    told = [(metric.step, metric.value) for metric in client.get_metric_history(kept.info.run_id, "test/accuracy")]
    assert told == [(event["round"], event["evaluate"]["accuracy"]) for event in rounds_of(tmp_path / "runs" / "mine")]
    log = (tmp_path / "runs" / "mine" / "run.log").read_text(encoding="utf-8")
    assert "Round 3: 3 of 3 silos replied" in log  # MLflow's own logging leaves ours alone


@needs("mlflow")
def test_a_run_that_failed_is_marked_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="Round 2 failed"):
        run("tracking=mlflow tracking.experiment=mine runtime.faults=['error:train:2:*']", tmp_path / "run")
    client = MlflowClient(tracking_uri="sqlite:///runs/mlflow.db")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FAILED"
    # Taken up again, it is the same run of MLflow's, told of what is new only.
    settings = compose(f"{SMALL} tracking=mlflow tracking.experiment=mine")
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_size
    line = json.dumps({"event": "round", "round": 2, "evaluate": {"accuracy": 0.5}}) + "\n"
    with (
        tracking.tracking(settings, tmp_path / "run", Console(), skip=before),
        (tmp_path / "run" / "metrics.jsonl").open("a", encoding="utf-8") as journal,
    ):
        journal.write(line)
    (kept,) = client.search_runs([experiment.experiment_id])
    assert [metric.step for metric in client.get_metric_history(kept.info.run_id, "test/accuracy")] == [1, 2]


def test_a_tracker_that_fails_leaves_the_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def log(self, figures: object, step: int) -> None:
            raise OSError("[red]the disk is full[/red]")

        def close(self, status: str) -> None:
            raise AssertionError("nobody closes what is left aside")

    monkeypatch.setattr(tracking, "check_tracker", lambda settings: None)
    monkeypatch.setattr(tracking, "_open", lambda settings, folder: Broken())
    said = run("tracking=tensorboard output.baselines=false", tmp_path / "run")
    assert said == (
        "tracking=tensorboard stopped before the run did (OSError: [red]the disk is full[/red]): "
        "metrics.jsonl has it all.\n"
    )
    assert len(rounds_of(tmp_path / "run")) == 3
    assert "the disk is full" in (tmp_path / "run" / "run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_library_names_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda library: None)
    with pytest.raises(SettingsError, match=rf"tracking={name} needs the package {name}: pip install"):
        run(f"tracking={name}", tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


@needs("mlflow")
def test_a_database_that_cannot_be_opened_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="tracking=mlflow cannot be opened"):
        run(f"tracking=mlflow tracking.uri=sqlite:///{tmp_path}/file/mlflow.db", tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_password_in_the_address_is_refused_for_settings_travel() -> None:
    with pytest.raises(SettingsError, match="settings travel to every silo"):
        compose("tracking=mlflow tracking.uri='https://me:secret@tracker.example/x'")
    compose("tracking=mlflow tracking.uri='https://tracker.example/@x'")
