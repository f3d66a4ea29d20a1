"""``runtime=flower``: the truth about how a run ended, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import quire
from quire.conf.compose import compose
from quire.errors import DataError, RunFailed, SettingsError
from quire.simulation import flower, flower_daemon
from quire.simulation.flower import run_flower


# ------------------------------------------------------------------------------------------------- the daemon
def test_a_daemon_that_dies_at_the_start_is_one_sentence(tmp_path, fake_programs):
    fake_programs(flower_superlink="import sys; print('no room'); sys.exit(3)")
    with pytest.raises(RunFailed, match=r"^Flower's SuperLink did not start \(exit status 3\): no room") as caught:
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "no room" in (tmp_path / "run" / "flower.log").read_text()


def test_a_daemon_that_never_answers_is_not_waited_for_for_ever(tmp_path, fake_programs, monkeypatch, left_behind):
    monkeypatch.setattr(flower_daemon, "_START_LIMIT", 0.5)
    fake_programs(flower_superlink="import time; time.sleep(600)")
    with pytest.raises(RunFailed, match="did not start within"):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")
    assert left_behind() == []


def test_programs_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(flower_daemon, "scripts_path", lambda variables: str(tmp_path))
    with pytest.raises(SettingsError, match="'flower-superlink' is not installed beside this Python"):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")


@pytest.mark.parametrize(
    ("flwr", "words"),
    [
        ('print(\'{"success": false, "error-message": "no such app"}\')', "`flwr run` failed: no such app"),
        ("import sys; print('boom', file=sys.stderr); sys.exit(2)", "`flwr run` failed: boom"),
        ("import time; time.sleep(600)", "`flwr run` did not answer within"),
    ],
)
def test_a_refused_submission_is_one_sentence(
    tmp_path, fake_programs, fake_superlink, monkeypatch, flwr, words, left_behind
):
    monkeypatch.setattr(flower_daemon, "_CALL_LIMIT", 2.0)
    fake_programs(flower_superlink=fake_superlink, flwr=flwr)
    with pytest.raises(RunFailed, match=words):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")
    assert left_behind() == []


FAKE_FLWR = """
import json, sys
answer = {"success": True, "run-id": "7", "runs": [{"status": STATUS, "status-details": DETAILS}]}
print(json.dumps(answer))
"""


def test_a_daemon_that_dies_during_the_run_is_one_sentence(tmp_path, fake_programs, fake_superlink):
    dying = fake_superlink.replace("import http", "import threading, os, http").replace(
        "http.server.HTTPServer", "threading.Timer(3, os._exit, [9]).start()\nhttp.server.HTTPServer"
    )
    fake_programs(flower_superlink=dying, flwr="STATUS = DETAILS = ''\n" + FAKE_FLWR)
    with pytest.raises(RunFailed, match=r"SuperLink ended during the run \(exit status 9\).*flower.log"):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")


def test_a_run_that_never_begins_is_given_up(tmp_path, fake_programs, fake_superlink, monkeypatch):
    monkeypatch.setattr(flower, "_BEGIN_LIMIT", 1.0)
    fake_programs(flower_superlink=fake_superlink, flwr="STATUS = DETAILS = ''\n" + FAKE_FLWR)
    with pytest.raises(RunFailed, match="did not begin the run within"):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")


@pytest.mark.parametrize(
    ("status", "details", "words"),
    [
        ("finished:failed", "Simulation failed with exception: The folder is full.", r"^The folder is full\.$"),
        ("finished:failed", "", r"^Flower says that the run is finished:failed; what its processes printed is in"),
        ("running", "", r"^Flower's process of the run was lost"),
    ],
)
def test_flowers_verdict_counts_though_its_exit_status_says_all_is_well(
    tmp_path, fake_programs, fake_superlink, status, details, words
):
    superlink = "import subprocess\nsubprocess.Popen(['flwr-simulation'])\n" + fake_superlink
    flwr = f"STATUS, DETAILS = {status!r}, {details!r}\n{FAKE_FLWR}"
    fake_programs(
        flower_superlink=superlink,
        flwr=flwr,
        flwr_simulation="import time; time.sleep(4)",
    )
    with pytest.raises(RunFailed, match=words):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "run")
    assert (tmp_path / "run" / "flower.log").exists()


# --------------------------------------------------------------------------------- refused before anything starts
def test_mistakes_are_refused_before_anything_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(flower, "FlowerDaemon", None)
    with pytest.raises(SettingsError, match="choose runtime=flower"):
        run_flower(compose("task=breast_cancer"), tmp_path / "a")
    with pytest.raises(SettingsError, match=r"runtime.cpus_per_silo=1000 is more than"):
        run_flower(compose("task=breast_cancer runtime=flower runtime.cpus_per_silo=1000"), tmp_path / "b")
    with pytest.raises(DataError, match="No Dirichlet draw"):
        run_flower(
            compose("task=breast_cancer runtime=flower partition.alpha=0.05 partition.min_rows=110"), tmp_path / "c"
        )
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run.json").write_text("{}")
    with pytest.raises(SettingsError, match="already holds a run"):
        run_flower(compose("task=breast_cancer runtime=flower"), tmp_path / "d")


# --------------------------------------------------------------------------------------------------- interruptions
LAUNCHER = """
import sys
from pathlib import Path
from quire.conf.compose import compose
from quire.errors import QuireError
from quire.simulation.flower import run_flower
try:
    run_flower(compose(sys.argv[1]), Path(sys.argv[2]))
except QuireError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def launched(overrides, folder, code=LAUNCHER, **variables):
    return subprocess.Popen(
        [sys.executable, "-c", code, overrides, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(quire.__file__).resolve().parent.parent), **variables},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_whoever_asks_the_launcher_to_end_nothing_of_the_daemon_is_left(tmp_path, fake_programs, left_behind, number):
    fake = f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, 'up').touch()\ntime.sleep(600)"
    fake_programs(flower_superlink=fake)
    search = "import os\nfrom quire.simulation import flower_daemon\n"
    search += "flower_daemon.scripts_path = lambda variables: os.environ['SCRIPTS']\n"
    launcher = launched(
        "task=breast_cancer runtime=flower", tmp_path / "run", search + LAUNCHER, SCRIPTS=str(tmp_path / "bin")
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "up").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        launcher.send_signal(number)
        words, _ = launcher.communicate(timeout=60)
    finally:
        launcher.kill()
        launcher.wait()
    assert launcher.returncode == 130
    assert words.startswith("Interrupted: ")
    assert left_behind() == []


# ------------------------------------------------------------------------------------------------- the real thing
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_fails_in_the_silos_says_so_and_keeps_flowers_log(tmp_path, left_behind):
    settings = compose("task=breast_cancer runtime=flower strategy.rounds=5 training.lr=1e38")
    with pytest.raises(RunFailed, match=r"^Round \d failed: \d of 5 silos.*diverged"):
        run_flower(settings, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["status"] == "failed"
    assert " failed: " in about["error"]
    assert "NOT_FINITE" in (tmp_path / "run" / "flower.log").read_text()
    assert left_behind() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_clean_and_keeps_what_was_reached(tmp_path, left_behind):
    folder = tmp_path / "run"
    launcher = launched("task=breast_cancer runtime=flower strategy.rounds=100000", folder)
    try:
        deadline = time.monotonic() + 240
        while not (folder / "checkpoint" / "latest.json").exists():
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
        words, _ = launcher.communicate(timeout=120)
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.wait(60)
    assert launcher.returncode == 130
    assert words.startswith("Interrupted: ")
    about = json.loads((folder / "run.json").read_text())
    assert about["status"] == "interrupted"
    assert about["rounds"] >= 1
    assert (folder / "model.safetensors").exists()
    end = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert (end["event"], end["status"]) == ("end", "interrupted")
    assert left_behind() == []


def when_checkpointed(folder, rounds, launcher, seconds=240):
    """Wait until a run has checkpointed so many rounds."""
    latest, deadline = folder / "checkpoint" / "latest.json", time.monotonic() + seconds
    while not latest.exists() or json.loads(latest.read_text())["round"] < rounds:
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["the ServerApp", "everything"])
def test_a_killed_run_is_resumed_to_the_model_of_one_that_was_not(tmp_path, left_behind, victim):
    overrides = "task=breast_cancer strategy.rounds=40 output.baselines=false output.report=false"
    whole = quire.run(overrides, tmp_path / "whole").model  # the same through every door
    folder = tmp_path / "run"
    launcher = launched(f"{overrides} runtime=flower", folder)
    try:
        when_checkpointed(folder, 3, launcher)
        ours = [process for process in left_behind() if process.pid != launcher.pid]
        if victim == "the ServerApp":
            (app,) = [one for one in ours if any(part.endswith("flwr-simulation") for part in one.cmdline()[:2])]
            app.kill()
            words, _ = launcher.communicate(timeout=120)
            assert words.startswith("Flower's process of the run was lost (killed, or out of memory?)")
        else:  # as when the machine goes down
            launcher.kill()
            for process in ours:
                process.kill()
            launcher.communicate(timeout=60)
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.wait(60)
        for process in left_behind():  # of a launcher that could not clean up
            process.kill()
    about = json.loads((folder / "run.json").read_text())
    assert about["status"] == ("failed" if victim == "the ServerApp" else "running")
    reached = json.loads((folder / "checkpoint" / "latest.json").read_text())["round"]
    assert 3 <= reached < 40
    done = subprocess.run(
        [sys.executable, "-m", "quire", "run", f"resume={folder}"],
        env={**os.environ, "PYTHONPATH": str(Path(quire.__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    about = json.loads((folder / "run.json").read_text())
    assert (about["status"], about["rounds"], about["model"]) == ("completed", 40, whole)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["round"] for event in events if event["event"] == "resume"] == [reached]
    assert [event["round"] for event in events if event["event"] == "round"] == list(range(1, 41))
    assert left_behind() == []
