"""The run folder: complete, atomic, never overwritten."""

import json
import threading
from contextlib import closing

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from quire import compose
from quire.clients.arrays import fingerprint
from quire.conf.schema import Settings
from quire.errors import SettingsError
from quire.strategies.folder import RunFolder, close_abandoned, read_about
from quire.strategies.replies import Failure
from quire.strategies.report import RoundReport
from quire.strategies.rounds import RoundState

SETTINGS: Settings = compose("strategy.rounds=3")


def state(number):
    return RoundState(
        number, {"b": np.full(2, number, np.float32), "a": np.zeros((), np.float32)}, {"moment": np.full(2, 0.5)}
    )


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def run_of(path, rounds=2):
    folder = RunFolder(path)
    folder.begin(SETTINGS, "inline", "c" * 64)
    folder.started(SETTINGS, ["h-1", "h-2"], state(0))
    for number in range(1, rounds + 1):
        report = RoundReport(
            number, ["h-1", "h-2"], ["h-1"], [Failure("h-2", "train", "late", "it was late")], {"train-loss": 0.5}
        )
        folder.round_done(report, state(number))
    return folder


def test_a_finished_run_holds_everything(tmp_path):
    run_of(tmp_path / "run").finish("completed")
    path = tmp_path / "run"
    assert yaml.safe_load((path / "settings.yaml").read_text()) == {
        **SETTINGS.as_dict(),
        "overrides": "strategy.rounds=3",
    }
    model = load_file(path / "model.safetensors")
    assert fingerprint(model) == fingerprint(state(2).model) == read_about(path)["model"]
    start, one, two, end = lines(path)
    assert (start["event"], start["silos"], start["parameters"]) == ("start", ["h-1", "h-2"], 3)
    assert (one["round"], one["train"], one["failed"]) == (
        1,
        {"loss": 0.5},
        [{"silo": "h-2", "stage": "train", "code": "late", "words": "it was late"}],
    )
    assert two["model"] == end["model"] == fingerprint(model)
    assert (end["status"], end["rounds"]) == ("completed", 2)
    about = read_about(path)
    assert (about["status"], about["error"], about["rounds"], about["runtime"], about["code"]) == (
        "completed",
        None,
        2,
        "inline",
        "c" * 64,
    )
    assert set(about["versions"]) == {"quire", "flwr", "torch", "numpy", "python"}


def test_the_checkpoint_holds_model_and_memory_of_the_last_round_only(tmp_path):
    run_of(tmp_path, rounds=3)
    latest = json.loads((tmp_path / "checkpoint" / "latest.json").read_text())
    assert (latest["round"], latest["model"]) == (3, fingerprint(state(3).model))
    kept = load_file(tmp_path / "checkpoint" / latest["file"])
    assert set(kept) == {"model/a", "model/b", "memory/moment"}
    assert kept["memory/moment"].dtype == np.float64
    assert sorted(file.name for file in (tmp_path / "checkpoint").iterdir()) == [
        "latest.json",
        "round-00003.safetensors",
    ]


def test_a_run_that_fails_keeps_its_last_model_and_says_why(tmp_path):
    run_of(tmp_path).finish("failed", "Round 3 failed.")
    about = read_about(tmp_path)
    assert (about["status"], about["error"], about["rounds"]) == ("failed", "Round 3 failed.", 2)
    assert (load_file(tmp_path / "model.safetensors")["b"] == 2).all()
    assert lines(tmp_path)[-1]["error"] == "Round 3 failed."


def test_a_folder_that_holds_a_run_is_never_written_again(tmp_path):
    run_of(tmp_path).finish("completed")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(SettingsError, match=r"already holds a run: choose another with hydra\.run\.dir"):
        RunFolder(tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_place_that_is_no_folder_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run")
    with pytest.raises(SettingsError, match="is not the folder of a run"):
        read_about(tmp_path)


@pytest.mark.parametrize("text", ["7", "null", "[]", '[["status", "failed"]]', '"run"', "{", "", "[" * 100_000])
def test_a_run_json_that_is_no_object_is_refused_in_words(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    for read in (read_about, lambda path: RunFolder(path, reopen=True)):
        with pytest.raises(SettingsError, match=r"holds no readable run\.json"):
            read(tmp_path)


def test_who_only_looks_whether_a_folder_is_written_stops_no_run(tmp_path):
    run_of(tmp_path).close()
    looking = RunFolder(tmp_path, reopen=True)
    thread = threading.Timer(0.2, looking.close)
    thread.start()
    with closing(RunFolder(tmp_path, reopen=True)):
        thread.join()
        with pytest.raises(SettingsError, match="is being written by a run that is still going on"):
            RunFolder(tmp_path, reopen=True)
    RunFolder(tmp_path, reopen=True).close()


def test_nothing_temporary_is_left(tmp_path):
    run_of(tmp_path).finish("completed")
    assert list(tmp_path.rglob(".*")) == []


def test_a_run_whose_process_was_lost_is_closed_with_its_last_checkpoint(tmp_path):
    run_of(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as journal:
        journal.write('{"event": "rou')  # lost in the middle of a line
    close_abandoned(tmp_path, "interrupted", "The run was interrupted.")
    about, end = read_about(tmp_path), json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    for told in (about, end):
        assert (told["status"], told["error"], told["rounds"]) == ("interrupted", "The run was interrupted.", 2)
    assert about["finished"] is not None
    model = load_file(tmp_path / "model.safetensors")
    assert set(model) == {"a", "b"}
    assert fingerprint(model) == about["model"] == end["model"] == fingerprint(state(2).model)


def test_a_run_that_was_lost_before_its_first_round_is_closed_without_a_model(tmp_path):
    run_of(tmp_path, rounds=0)
    close_abandoned(tmp_path, "failed", "It was lost.")
    assert (read_about(tmp_path)["status"], read_about(tmp_path)["model"]) == ("failed", None)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_that_ended_or_never_began_is_left_as_it_is(tmp_path):
    close_abandoned(tmp_path, "failed", "It was lost.")
    assert list(tmp_path.iterdir()) == []
    run_of(tmp_path / "run").finish("completed")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    close_abandoned(tmp_path / "run", "failed", "It was lost.")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before
