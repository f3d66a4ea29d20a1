"""Federations of silos that read their own rows: a folder of files, a schema, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from safetensors.numpy import load_file

import quire
from quire.conf.compose import compose
from quire.errors import DataError, RunFailed, SettingsError
from quire.simulation.baselines import compare
from quire.simulation.inline import run_inline
from quire.simulation.launch import launch
from quire.simulation.silos import local_silos, take_silos
from quire.strategies.folder import RunFolder, read_about
from quire.strategies.server_app import SCHEMA_VARIABLE

SCHEMA = """\
columns:
  age: {low: 0, high: 100}
  dose: {low: 0, high: 10, missing: true, impute: 5}
target: {name: sick, kind: classification, classes: [0, 1]}
"""
SMALL = "task=tabular partition.silos=3 strategy.rounds=12 training.lr=1 output.progress=none"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("QUIRE_SILOS", SCHEMA_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clinics of different sizes and ages."""
    place = tmp_path / "silos"
    place.mkdir()
    (place / "schema.yaml").write_text(SCHEMA)
    rng = np.random.default_rng(1)
    for number, (rows, mean) in enumerate([(40, 30), (60, 50), (25, 70)], start=1):
        age, dose = rng.normal(mean, 8, rows), rng.uniform(0, 10, rows)
        sick = (age + rng.normal(0, 8, rows) > 50).astype(int)
        lines = [
            f"{a:.2f},{'' if i % 7 == 0 else f'{d:.2f}'},{s}"
            for i, (a, d, s) in enumerate(zip(age, dose, sick, strict=True))
        ]
        (place / f"rows-{number}.csv").write_text("age,dose,sick\n" + "\n".join(lines) + "\n")
        silo = f"name: clinic-{number}\ndata: {{connector: csv, path: rows-{number}.csv}}\n"
        (place / f"clinic-{number}.yaml").write_text(silo)
    return place


def rounds_of(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


@pytest.mark.parametrize("how", ["public", "per_silo", "federated"])
def test_silos_learn_from_their_own_rows(folder, tmp_path, how):
    overrides = f"{SMALL} data.preprocessing={how}"
    first = quire.run(overrides, tmp_path / "a", silos=folder)
    assert quire.run(overrides, tmp_path / "b", silos=folder).model == first.model
    (last,) = rounds_of(tmp_path / "a")[-1:]
    assert last["replied"] == ["clinic-1", "clinic-2", "clinic-3"]
    # Standardising each clinic by itself hides how much older one's patients are than another's: the point of a schema.
    assert (last["evaluate"]["accuracy"] > 0.7) == (how != "per_silo")
    written = compare(compose(overrides), tmp_path / "a", silos=folder)
    assert written["rows"] == {"train": 100, "test": 25}
    assert written["everyone"]["federated"]["accuracy"] == pytest.approx(last["evaluate"]["accuracy"])
    settings = (tmp_path / "a" / "settings.yaml").read_text()
    assert str(folder) not in settings, "where the rows are is not part of the settings"


def test_the_kinds_of_preprocessing_differ(folder, tmp_path):
    models = {
        quire.run(f"{SMALL} data.preprocessing={how}", tmp_path / how, silos=folder).model
        for how in ("public", "per_silo", "federated")
    }
    assert len(models) == 3


def test_federated_statistics_are_those_of_all_training_rows_in_one_place(folder):
    settings = compose(f"{SMALL} data.preprocessing=federated")
    silos = local_silos(settings, folder)
    x = np.concatenate([silo.train.x for silo in silos.data(settings)])
    assert x[:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert x[:, 0].std() == pytest.approx(1, abs=1e-5)
    assert (x[:, 1] == 0).any()  # the mean, where a value is missing


def test_federated_preprocessing_of_a_data_set_that_ships(tmp_path):
    base = "task=breast_cancer partition.alpha=1 strategy.rounds=2"
    plain = quire.run(base, tmp_path / "plain").model
    assert quire.run(f"{base} data.preprocessing=federated", tmp_path / "a").model != plain
    compare(compose(f"{base} data.preprocessing=federated"), tmp_path / "a")


def test_a_silo_that_gives_no_moments_is_left_out(folder, tmp_path):
    overrides = f"{SMALL} data.preprocessing=federated runtime.faults=[delay:query:*:clinic-2:9999]"
    quire.run(overrides, tmp_path / "run", silos=folder)
    assert rounds_of(tmp_path / "run")[0]["cohort"] == ["clinic-1", "clinic-3"]


def test_a_silo_whose_rows_cannot_be_read_during_the_run_is_named(folder, tmp_path, monkeypatch):
    from quire.strategies.folder import RunFolder

    plain = RunFolder.round_done

    def meddle(self, *args):
        plain(self, *args)
        (folder / "rows-2.csv").write_text("age,dose,sick\n1,1,1\n1,1,0\n1,1,1\n1,1,0\n")

    monkeypatch.setattr(RunFolder, "round_done", meddle)
    quire.run(SMALL, tmp_path / "run", silos=folder)
    failed = [{(f["silo"], f["code"]) for f in line["failed"]} for line in rounds_of(tmp_path / "run")]
    assert failed == [set(), *[{("clinic-2", "data_unavailable")}] * 11]


# --------------------------------------------------------------------------------------------- bad input
def another_schema(folder):
    (folder / "other.yml").write_text(SCHEMA.replace("100", "90"))
    (folder / "clinic-2.yaml").write_text("name: b\nschema: other.yml\ndata: {connector: csv, path: rows-2.csv}")


def one_class(folder):
    for number in (1, 2, 3):
        (folder / f"rows-{number}.csv").write_text("age,dose,sick\n" + "40,1,1\n" * 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "clinic-3.yaml").unlink(), "holds 2 silos, but partition.silos=3"),
        (lambda folder: (folder / "schema.yaml").unlink(), r"has no schema\.yaml"),
        (lambda folder: (folder / "rows-3.csv").unlink(), r"clinic-3\.yaml, line 2, .*there is no .*rows-3\.csv"),
        (lambda folder: (folder / "rows-3.csv").write_text("age,sick\n1,1\n"), "has no column 'dose'"),
        (
            lambda folder: (folder / "clinic-3.yaml").write_text((folder / "clinic-1.yaml").read_text()),
            "the name 'clinic-1'",
        ),
        (another_schema, "has another schema than"),
        (one_class, "The training rows of all silos are of one class"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(folder, tmp_path, change, words):
    change(folder)
    with pytest.raises(DataError, match=words):
        quire.run(SMALL, tmp_path / "run", silos=folder)
    assert not (tmp_path / "run").exists()


def test_no_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="name the folder of their files with silos=FOLDER"):
        quire.run(SMALL, tmp_path / "run")


def test_the_server_refuses_silos_with_another_schema_than_its_own(folder, tmp_path, monkeypatch):
    from quire.strategies import server_app

    other = tmp_path / "servers.yaml"
    other.write_text(SCHEMA.replace("high: 10,", "high: 11,"))
    plain = server_app.read_schema
    monkeypatch.setattr(server_app, "read_schema", lambda path: plain(other))
    with pytest.raises(RunFailed, match=r"0 of 3 silos could be enrolled.* it has another schema than the server"):
        quire.run(SMALL, tmp_path / "run", silos=folder)


def test_a_server_finds_its_schema_or_says_that_it_has_none(folder, monkeypatch):
    from quire.strategies import server_app

    def schema():
        return server_app._schema(Context(1, 1, {}, RecordDict(), {}), compose(SMALL))

    with pytest.raises(DataError, match=r"The server has no schema\.yaml: set QUIRE_SCHEMA"):
        schema()
    monkeypatch.setenv(SCHEMA_VARIABLE, str(folder / "schema.yaml"))
    assert schema().features == 2


# ----------------------------------------------------------------------------------------- command line
def test_the_launchers_argument_does_not_travel(folder):
    args = take_silos(["task=tabular", f"silos={folder}", "seed=2"])
    assert args == ["task=tabular", "seed=2", "partition.silos=3"]
    assert os.environ["QUIRE_SILOS"] == str(folder)
    assert os.environ[SCHEMA_VARIABLE] == str(folder / "schema.yaml")
    assert take_silos(["task=tabular", "partition.silos=2", f"silos={folder}"]) == ["task=tabular", "partition.silos=2"]
    assert take_silos([f"silos={folder}", "resume=x"]) == ["resume=x"]
    assert take_silos(["task=tabular"]) == ["task=tabular"]


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (["silos="], SettingsError, "Name one folder of silos"),
        (["task=tabular", "silos=a", "silos=b"], SettingsError, "Name one folder of silos"),
        (["silos=a"], SettingsError, "add task=tabular or task=images"),
        (["task=tabular", "silos=a"], DataError, "There is no folder"),
    ],
)
def test_a_folder_that_cannot_be_used(args, error, words):
    with pytest.raises(error, match=words):
        take_silos(args)


def test_the_command_line(folder, tmp_path, monkeypatch):
    from quire.simulation.command import run_command

    monkeypatch.chdir(tmp_path)
    args = ["task=tabular", f"silos={folder}", "strategy.rounds=2", "output.progress=none", "hydra.run.dir=out"]
    assert run_command(args) == 0
    assert read_about(tmp_path / "out")["status"] == "completed"
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert load_file(tmp_path / "out" / "model.safetensors")["0.weight"].shape == (1, 2)


@pytest.mark.parametrize("overrides", ["task=diabetes", "task=digits partition=shards"])
def test_tasks_that_ship_run_and_report(overrides, tmp_path, monkeypatch):
    from quire.simulation.command import run_command

    monkeypatch.chdir(tmp_path)
    extra = ["strategy.rounds=3", "output.progress=none", "hydra.run.dir=out"]
    assert run_command([*overrides.split(), *extra]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "no round was evaluated" not in page
    assert ("explained variance" in page) == ("diabetes" in overrides)


def test_a_run_of_silos_files_is_resumed_with_the_folder_named_again(folder, tmp_path, monkeypatch, capsys):
    from quire.simulation.command import run_command
    from quire.strategies.folder import RunFolder

    monkeypatch.chdir(tmp_path)
    base = ["task=tabular", f"silos={folder}", "data.preprocessing=federated", "output.progress=none"]
    assert run_command([*base, "strategy.rounds=4", "hydra.run.dir=whole"]) == 0
    plain = RunFolder.round_done

    def fail(self, report, state):
        plain(self, report, state)
        if state.round == 2:
            raise RunFailed("The power is gone.")

    monkeypatch.setattr(RunFolder, "round_done", fail)
    assert run_command([*base, "strategy.rounds=4", "hydra.run.dir=broken"]) == 1
    monkeypatch.setattr(RunFolder, "round_done", plain)
    monkeypatch.delenv("QUIRE_SILOS")
    assert run_command(["resume=broken"]) == 2
    assert "name the folder of their files with silos=FOLDER" in capsys.readouterr().err
    assert run_command(["resume=broken", f"silos={folder}"]) == 0
    assert read_about(tmp_path / "broken")["model"] == read_about(tmp_path / "whole")["model"]


def test_a_cnn_tells_digits_apart(tmp_path):
    overrides = "task=digits task.model=cnn partition=iid partition.silos=3 strategy.rounds=3 training.lr=0.1"
    quire.run(overrides, tmp_path / "run")
    assert rounds_of(tmp_path / "run")[-1]["evaluate"]["accuracy"] > 0.9


# ------------------------------------------------------------------------------------- killed, and the rows change
def killed_in_round(overrides: str, run: Path, silos: Path, number: int) -> None:
    """Run in a child process that is killed, for real, once a round has been checkpointed."""
    child = os.fork()
    if child == 0:
        try:
            original = RunFolder.round_done

            def round_then_die(self, report, state):
                original(self, report, state)
                if state.round == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            RunFolder.round_done = round_then_die
            quire.run(overrides, run, silos=silos)
        finally:
            os._exit(0)  # only reached if the kill never came
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("how", ["public", "per_silo", "federated"])
def test_rows_that_changed_between_a_kill_and_the_resume(folder, how, tmp_path, monkeypatch):
    overrides = f"{SMALL} data.preprocessing={how} output.baselines=false output.report=false"
    whole = quire.run(overrides, tmp_path / "whole", silos=folder).model
    run, rows = tmp_path / "run", folder / "rows-2.csv"
    killed_in_round(overrides, run, folder, 2)
    began = rows.read_text()
    monkeypatch.setenv("QUIRE_SILOS", str(folder))
    rows.write_text(began.replace("5", "6", 1))  # one digit, and the same number of rows
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = r"^The rows of clinic-2 are not those that this run began with: put them back or start anew\.$"
    with pytest.raises(DataError, match=words):
        launch(compose(overrides), run, resume=True)
    with pytest.raises(DataError, match=words):
        run_inline(compose(overrides), run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    rows.write_text(began)
    launch(compose(overrides), run, resume=True)
    assert read_about(run)["model"] == whole


def test_a_damaged_note_of_the_rows_is_refused_and_a_missing_one_is_not(folder, tmp_path, monkeypatch):
    overrides = SMALL.replace("strategy.rounds=12", "strategy.rounds=3")
    run = tmp_path / "run"
    killed_in_round(overrides, run, folder, 1)
    monkeypatch.setenv("QUIRE_SILOS", str(folder))
    assert set(json.loads((run / "rows.json").read_text())) == {"clinic-1", "clinic-2", "clinic-3"}
    (run / "rows.json").write_text('{"clinic-1": ')
    with pytest.raises(DataError, match=r"rows\.json' cannot be read, so nobody can tell whether rows have changed"):
        run_inline(compose(overrides), run, resume=True)
    (run / "rows.json").unlink()  # as of a run that came through another door
    run_inline(compose(overrides), run, resume=True)
    assert read_about(run)["status"] == "completed"


def test_the_note_of_another_runs_rows_is_never_overwritten(folder, tmp_path):
    quire.run(SMALL.replace("strategy.rounds=12", "strategy.rounds=1"), tmp_path / "run", silos=folder)
    before = (tmp_path / "run" / "rows.json").read_bytes()
    (folder / "rows-1.csv").write_text((folder / "rows-1.csv").read_text().replace("5", "6", 1))
    with pytest.raises(SettingsError, match="already holds a run"):
        quire.run(SMALL, tmp_path / "run", silos=folder)
    assert (tmp_path / "run" / "rows.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        quire.run(SMALL, tmp_path / "file" / "run", silos=folder)
