"""Whole runs on a device: a fake one, which is the CPU, so that the model has the bits of a run without."""

import io
import json

import pytest
import torch
from rich.console import Console

import quire
from quire.clients import device, on_device, training
from quire.clients.private import work
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.simulation.launch import launch
from quire.simulation.report import write_report

SMALL = (
    "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=2 output.report=false output.baselines=false"
)


@pytest.fixture
def moved(monkeypatch):
    """A machine with a CUDA device, which is the CPU; and how many benches were moved there."""
    count, settle = [], on_device.DeviceBench.settle
    monkeypatch.setattr(on_device.DeviceBench, "settle", lambda self: (count.append(self.device), settle(self))[1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "Fake 9000 <b>")
    monkeypatch.setattr(device, "torch_device", lambda kind: torch.device("cpu"))
    caches = training._workbench, work._private_bench
    for cache in caches:
        cache.cache_clear()
    yield count
    for cache in caches:
        cache.cache_clear()


def held(folder):
    return json.loads((folder / "run.json").read_text())["held_to"].get("device")


@pytest.mark.parametrize(
    ("more", "benches"),
    [
        ("strategy=scaffold", 1),
        # One to train on privately, and one to score with. Without noise nothing has to be calibrated.
        ("privacy=record privacy.epsilon=inf training.batch_size=8", 2),
    ],
)
def test_a_run_on_a_device_says_so_and_is_the_same(more, benches, tmp_path, moved):
    plain = quire.run(f"{SMALL} {more}", tmp_path / "cpu")
    assert (moved, held(plain.folder)) == ([], None)
    run = quire.run(f"{SMALL} {more} runtime.device=auto", tmp_path / "device")
    assert run.model == plain.model
    assert len(moved) == benches  # the model is moved once, whatever the number of silos and rounds
    assert held(run.folder) == "cuda (Fake 9000 <b>)"
    page = write_report(run.folder).read_text(encoding="utf-8")
    assert "cuda (Fake 9000 &lt;b&gt;)" in page


def test_auto_with_workers_runs_on_the_cpu_and_says_why(tmp_path, moved):
    run = quire.run(f"{SMALL} runtime.device=auto runtime.workers=2", tmp_path / "run")
    assert moved == []
    assert held(run.folder) == (
        "cpu (auto: processes that are forked, as runtime.workers has them, cannot share a device)"
    )


def test_a_device_that_is_not_there_is_refused_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "runs" / "one"
    with pytest.raises(SettingsError, match="this machine has no CUDA device"):
        quire.run(f"{SMALL} runtime.device=cuda", folder)
    with pytest.raises(SettingsError, match="this machine has no CUDA device"):
        launch(compose(f"{SMALL} runtime.device=cuda"), folder, Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_silos_train_where_that_was_asked(tmp_path, monkeypatch):
    for there in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(there, "is_available", lambda: False)
    told = io.StringIO()
    launch(compose(f"{SMALL} output.progress=plain runtime.device=auto"), tmp_path / "run", Console(file=told))
    assert told.getvalue().startswith("Silos train on cpu (auto: this machine has no CUDA device and no Apple GPU")
