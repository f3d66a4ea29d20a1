"""The command line as its users meet it: sentences, exit codes, folders."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import command_line

from quire.strategies.folder import read_about

SMALL = ["partition=iid", "partition.silos=3", "strategy.rounds=2"]


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    """Call the command line in an empty folder; return exit status, standard output and error output."""
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys)


def one_sentence(err):
    lines = err.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("quire: ") and lines[0].endswith(".")


def test_a_run_shows_its_rounds_and_names_its_report(quire, tmp_path):
    status, out, err = quire("run", *SMALL, "hydra.run.dir=mine")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("round 1/2  accuracy 0.")
    assert "3/3 silos" in lines[1]
    assert lines[-1] == "Report: mine/report.html"
    files = {file.name for file in (tmp_path / "mine").iterdir()}
    assert files == {
        *("settings.yaml", "metrics.jsonl", "model.safetensors", "run.json", "run.log", "comparison.json"),
        *("report.html", "checkpoint"),
    }
    assert read_about(tmp_path / "mine")["status"] == "completed"


def test_baselines_report_and_progress_can_be_left_out(quire, tmp_path):
    silent = ["output.baselines=false", "output.report=false", "output.progress=none"]
    assert quire("run", *SMALL, *silent, "hydra.run.dir=mine") == (0, "", "")
    assert not (tmp_path / "mine" / "comparison.json").exists()
    assert not (tmp_path / "mine" / "report.html").exists()
    status, out, _ = quire("report", "mine")
    assert (status, out) == (0, "Report: mine/report.html\n")


BAD_INPUT = {
    "an unknown key": (["trainig.lr=1"], "There is no setting 'trainig.lr'"),
    "an unknown key of a known group": (["training.rate=1"], "There is no setting 'training.rate'"),
    "a key of another option": (["strategy.mu=1"], "strategy=fedprox would have it"),
    "an unknown option": (["strategy=fedsgd"], "strategy=fedsgd does not exist"),
    "a wrong type": (["strategy.rounds=many"], "strategy.rounds must be a whole number"),
    "a fraction of a round": (["strategy.rounds=1.5"], "strategy.rounds must be a whole number"),
    "a negative learning rate": (["training.lr=-0.1"], "training.lr must be greater than 0"),
    "a learning rate of zero": (["training.lr=0"], "training.lr must be greater than 0"),
    "a fraction of nothing": (["strategy.fraction=0"], "strategy.fraction must be greater than 0 and at most 1"),
    "a fraction above one": (["strategy.fraction=1.01"], "strategy.fraction must be greater than 0 and at most 1"),
    "fewer silos than the minimum": (["partition.silos=1"], "fewer than strategy.min_silos=2"),
    "a cohort below the minimum": (["strategy.fraction=0.2"], "fewer than strategy.min_silos=2"),
    "data of another task": (["data=synthetic"], "cannot be learned from data=synthetic"),
    "no override at all": (["breast_cancer"], "'breast_cancer' is not an override: write key=value"),
    "a name with a space": (["task.silo_label=city hospital"], "task.silo_label must be a word"),
    "a fault that is none": (["runtime.faults=[explode:train:1:x]"], "is not a fault"),
    "faults where none can be injected": (
        ["runtime=flower", "runtime.faults=[drop:train:1:x]"],
        "runtime=inline and runtime=batched would have it",
    ),
    "a secret of the environment": (["task.silo_label=${oc.env:HOME}"], "is not a number, a word"),
    "a setting of Hydra's that does not exist": (["hydra.nothing=1"], "Hydra cannot use these arguments"),
    "a sweep with a bad value": (["-m", "training.lr=0.1,-1"], "training.lr must be greater than 0"),
    "an output folder below a file": (["hydra.run.dir=file/run"], "The folder 'file/run' cannot be written"),
    "an output folder nobody can make": (["hydra.run.dir=/proc/nothing/run"], "cannot be written"),
    "rows that cannot be shared out": (["partition.alpha=0.001", "partition.min_rows=100"], "partition.alpha"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_a_mistake_gets_one_sentence_and_exit_status_2(case, quire, tmp_path):
    (tmp_path / "file").write_text("kept")
    args, words = BAD_INPUT[case]
    status, _, err = quire("run", *args)
    assert status == 2
    assert words in err
    assert one_sentence(err), err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_run_that_fails_says_why_and_keeps_what_it_had(quire, tmp_path):
    status, out, err = quire("run", *SMALL, "runtime.faults=['error:train:2:*']", "hydra.run.dir=mine")
    assert status == 1
    assert one_sentence(err)
    assert "Round 2 failed: 0 of 3 silos gave a usable answer" in err
    assert "Report: mine/report.html" in out
    about = read_about(tmp_path / "mine")
    assert (about["status"], about["rounds"]) == ("failed", 1)
    assert (tmp_path / "mine" / "model.safetensors").exists()


def test_a_run_is_never_overwritten(quire):
    quire("run", *SMALL, "hydra.run.dir=mine", "output.report=false", "output.baselines=false")
    before = Path("mine/metrics.jsonl").read_bytes()
    status, _, err = quire("run", *SMALL, "hydra.run.dir=mine")
    assert status == 2
    assert "The folder 'mine' already holds a run" in err
    assert Path("mine/metrics.jsonl").read_bytes() == before


def test_a_sweep_runs_every_job_and_tells_which_failed(quire, tmp_path):
    status, out, err = quire(
        *("run", "-m", "hydra.sweep.dir=sweep", "seed=1,2", "strategy.min_silos=2,3", "output.baselines=false"),
        *("runtime.faults=['drop:train:2:hospital-1']", *SMALL),
    )
    assert status == 1
    assert [read_about(tmp_path / "sweep" / str(job))["status"] for job in range(4)] == ["completed", "failed"] * 2
    assert err.splitlines()[-1] == "quire: 2 of 4 jobs failed."
    assert sum("job" in line for line in out.splitlines()) == 4


def test_the_folder_of_no_run_is_refused(quire, tmp_path):
    status, _, err = quire("report", str(tmp_path))
    assert status == 2
    assert one_sentence(err)
    assert "is not the folder of a run" in err


def test_help_and_version(quire):
    assert quire("--version")[1].startswith("quire 0.")
    status, out, _ = quire("run", "--help")
    assert status == 0
    assert "quire run -m training.lr=0.1,1 seed=1,2,3" in out


def test_ctrl_c_ends_clean_with_the_model_of_the_last_round(tmp_path):
    args = ["run", "hydra.run.dir=mine", "strategy.rounds=100000", "output.progress=plain", "output.report=false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "quire", *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    journal = tmp_path / "mine" / "metrics.jsonl"
    try:
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_text().count('"event": "round"') >= 3):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert one_sentence(err)
    assert err.strip().endswith(f"what was reached is in {tmp_path / 'mine'}.")
    about = read_about(tmp_path / "mine")
    assert about["status"] == "interrupted"
    assert about["rounds"] >= 3
    assert (tmp_path / "mine" / "model.safetensors").exists()
    last = json.loads(journal.read_text().splitlines()[-1])
    assert (last["event"], last["status"], last["rounds"]) == ("end", "interrupted", about["rounds"])
