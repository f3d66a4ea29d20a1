"""Sweeps as their users meet them: one after the other, side by side, searched; refused in a sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from command_line import command_line

from quire.strategies.folder import read_about

SMALL = ["partition=iid", "partition.silos=3", "strategy.rounds=2", "output.baselines=false", "output.report=false"]
VALID = "data.validation_fraction=0.25"


def plugin(name):
    found = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.{name}")
    return pytest.mark.skipif(not found, reason=f"{name} is not installed: pip install 'quire[sweep]'")


joblib, optuna = plugin("hydra_joblib_launcher"), plugin("hydra_optuna_sweeper")


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    """Call the command line in an empty folder; return exit status, standard output and error output."""
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys)


def models(folder, jobs):
    return [read_about(folder / str(job))["model"] for job in range(jobs)]


def test_a_sweep_ends_with_a_page_that_report_writes_again(quire, tmp_path):
    status, out, err = quire("run", "-m", *SMALL, "training.lr=0.01,0.1", "seed=1,2", VALID, "hydra.sweep.dir=s")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "Sweep: s/sweep.html"
    page = (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")
    assert "validation rows" in page
    about = json.loads((tmp_path / "s" / "sweep.json").read_text(encoding="utf-8"))
    assert (about["status"], about["planned"], about["args"][0]) == ("completed", 4, "-m")
    (tmp_path / "s" / "sweep.html").unlink()
    assert quire("report", "s") == (0, "Sweep: s/sweep.html\n", "")
    assert (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("swept", "strategies"),
    [
        ("strategy=glob(fed*,exclude=[fedad*,fednova,fedyogi])", ["fedavg", "fedavgm", "fedprox"]),
        ("strategy=choice(fedprox,fedavg)", ["fedprox", "fedavg"]),
    ],
)
def test_globs_and_choices_of_options(quire, tmp_path, swept, strategies):
    status, _, err = quire("run", "-m", *SMALL, swept, "hydra.sweep.dir=s")
    assert (status, err) == (0, "")
    ran = [yaml.safe_load((tmp_path / "s" / str(job) / "settings.yaml").read_text()) for job in range(len(strategies))]
    assert [settings["strategy"]["name"] for settings in ran] == strategies
    about = json.loads((tmp_path / "s" / "sweep.json").read_text(encoding="utf-8"))
    assert about["planned"] == len(strategies) == len(list((tmp_path / "s").glob("*/job.json")))


def test_without_progress_a_sweep_is_silent_about_its_page(quire, tmp_path):
    args = ["run", "-m", *SMALL, "seed=1,2", "output.progress=none", "hydra.sweep.dir=s"]
    status, out, err = quire(*args)
    assert (status, err, "Sweep" in out) == (0, "", False)
    assert (tmp_path / "s" / "sweep.html").exists()


def test_showing_the_settings_of_a_sweep_makes_no_page(quire, tmp_path):
    status, out, _ = quire("run", "hydra.mode=MULTIRUN", *SMALL, "seed=1", "--cfg", "job", "hydra.sweep.dir=s")
    assert status == 0
    assert "Sweep" not in out
    assert not (tmp_path / "s").exists()


def test_with_validation_rows_the_test_rows_are_scored_once_at_the_end(quire, tmp_path):
    status, _, _ = quire("run", *SMALL[:-1], VALID, "hydra.run.dir=mine")
    assert status == 0
    compared = json.loads((tmp_path / "mine" / "comparison.json").read_text(encoding="utf-8"))
    assert set(compared["everyone"]) == {"federated"}  # output.baselines=false
    first, *_ = (tmp_path / "mine" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(first)["scored"] == "validation"
    page = (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert "weighted by validation rows" in page
    assert f"{100 * compared['everyone']['federated']['balanced_accuracy']:.1f}" in page


@joblib
@pytest.mark.slow
def test_jobs_side_by_side_give_the_same_models_in_one_line_each(quire, tmp_path):
    args = ["run", "-m", *SMALL, "strategy.min_silos=2,3", "seed=1,2", "runtime.faults=['drop:train:2:hospital-1']"]
    assert quire(*args, "hydra.sweep.dir=one")[0] == 1
    status, out, err = quire(*args, "hydra.sweep.dir=two", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert status == 1
    assert models(tmp_path / "one", 4) == models(tmp_path / "two", 4)
    assert sorted(line.split("  ")[0] for line in out.splitlines()[:-1]) == ["job 0", "job 1"]
    assert out.splitlines()[-1] == "Sweep: two/sweep.html"
    assert sorted(line.split(": ")[1] for line in err.splitlines()[:-1]) == ["job 2", "job 3"]
    assert err.splitlines()[-1] == "quire: 2 of 4 jobs failed."
    pids = {json.loads((tmp_path / "two" / str(job) / "job.json").read_text())["pid"] for job in range(4)}
    assert os.getpid() not in pids
    assert "QUIRE_SWEEP" not in os.environ


@joblib
def test_as_many_jobs_at_a_time_as_the_cores_can_bear():
    from joblib import cpu_count

    from quire.conf.compose import compose
    from quire.simulation.sweep_plan import plan, take_apart

    settings = [compose("runtime.threads=1"), compose("runtime.threads=2")]
    swept = take_apart(["runtime.threads=1,2"])
    told = plan(["hydra/launcher=joblib"], swept, settings)
    assert told.extra == (f"hydra.launcher.n_jobs={max(1, cpu_count() // 2)}",)
    assert plan(["hydra/launcher=joblib", "hydra.launcher.n_jobs=7"], swept, settings).extra == ()
    assert plan([], swept, settings).extra == ()


def started(tmp_path):
    """Start a sweep of endless jobs, two at a time, and return once both have gone some rounds."""
    args = ["run", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2,3", "hydra.sweep.dir=s"]
    process = subprocess.Popen(
        [sys.executable, "-m", "quire", *args, "strategy.rounds=100000", "output.report=false"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journals = [tmp_path / "s" / str(job) / "metrics.jsonl" for job in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.read_text().count('"event": "round"') > 2 for path in journals):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


@joblib
@pytest.mark.slow
def test_ctrl_c_ends_all_jobs_and_still_writes_the_page(tmp_path):
    process = started(tmp_path)
    try:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to every process of the sweep
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "quire: Interrupted: what was reached is in s.\n"
    assert out.endswith("Sweep: s/sweep.html\n")
    assert [read_about(tmp_path / "s" / str(job))["status"] for job in (0, 1)] == ["interrupted"] * 2
    assert (tmp_path / "s" / "0" / "model.safetensors").exists()
    assert "This sweep was stopped after" in (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")


@joblib
@pytest.mark.slow
def test_a_job_that_is_killed_fails_and_the_sweep_says_so(tmp_path):
    process = started(tmp_path)
    try:
        os.kill(json.loads((tmp_path / "s" / "0" / "job.json").read_text())["pid"], signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "A process that ran jobs was killed" in err.splitlines()[-1]
    assert [read_about(tmp_path / "s" / str(job))["status"] for job in (0, 1)] == ["failed"] * 2
    assert (tmp_path / "s" / "sweep.html").exists()


@pytest.mark.slow
@optuna
def test_optuna_searches_by_the_score_on_validation_rows(quire, tmp_path):
    trials = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "training.lr=tag(log,interval(0.001,1))"]
    status, out, err = quire("run", "-m", *SMALL, *trials, "strategy=fedavg,fedprox", VALID, "hydra.sweep.dir=s")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "Sweep: s/sweep.html"
    best = yaml.safe_load((tmp_path / "s" / "optimization_results.yaml").read_text())
    lines = [(tmp_path / "s" / str(job) / "metrics.jsonl").read_text().splitlines()[-2] for job in range(4)]
    assert best["best_value"] == max(json.loads(line)["evaluate"]["balanced_accuracy"] for line in lines)
    assert set(best["best_params"]) == {"training.lr", "strategy"}
    assert "sweeper optuna" in (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")


@optuna
def test_optuna_with_nothing_but_failed_jobs_says_so(quire):
    args = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "training.lr=interval(0.1,1)", VALID]
    status, _, err = quire("run", "-m", *SMALL, *args, "runtime.faults=['error:train:1:*']", "hydra.sweep.dir=s")
    assert status == 1
    assert err.splitlines()[-1] == "quire: 2 of 2 jobs failed."
    assert "quire: Optuna found nothing, for no job was completed." in err


def test_a_private_sweep_ends_with_what_privacy_costs_and_why_a_run_was_refused(quire, tmp_path):
    args = ["privacy=record", "privacy.epsilon=2,inf", "training.batch_size=16,170", "hydra.sweep.dir=s"]
    status, out, err = quire("run", "-m", *SMALL, *args)
    assert status == 2
    assert out.splitlines()[-1] == "Sweep: s/sweep.html"
    *refused, last = err.splitlines()
    why = "training.batch_size=170 is larger than the silo"
    assert len(refused) == 2
    assert all(line.startswith(f"quire: hospital-1 cannot take part: {why}") for line in refused)
    assert last == "quire: 2 of 4 jobs failed."
    page = (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")
    assert "what privacy costs" in page
    assert why in page
    assert "Papernot and Steinke" in page
    rows = json.loads((tmp_path / "s" / "privacy_utility.json").read_text(encoding="utf-8"))["rows"]
    found = {(row["training.batch_size"], row["privacy.epsilon"]): row for row in rows}
    assert {at: row["completed"] for at, row in found.items()} == {
        (16, 2): 1,
        (16, "inf"): 1,
        (170, 2): 0,
        (170, "inf"): 0,
    }
    assert {at for at, row in found.items() if row["noise_multiplier_low"] is not None} == {(16, 2)}
    assert found[16, 2]["signal_to_noise_first"] > 0


def test_an_epsilon_beyond_what_is_accounted_for_is_refused_before_any_job(quire, tmp_path):
    status, _, err = quire("run", "-m", *SMALL, "privacy=record", "privacy.epsilon=2,1e9,inf", "hydra.sweep.dir=s")
    assert status == 2
    assert err.startswith("quire: privacy.epsilon=1e+09 is more than")
    assert not list(tmp_path.glob("s/*/run.json"))


def test_a_setting_of_a_swept_group_waits_for_its_group(quire, tmp_path):
    args = ["privacy=record,silo", "privacy.delta=1e-4", "output.progress=none"]
    status, _, err = quire("run", "-m", *SMALL, *args, "hydra.sweep.dir=s")
    assert (status, err) == (0, "")
    ran = [yaml.safe_load((tmp_path / "s" / str(job) / "settings.yaml").read_text()) for job in range(2)]
    assert [(one["privacy"]["name"], one["privacy"]["delta"]) for one in ran] == [("record", 1e-4), ("silo", 1e-4)]


def test_only_what_the_default_option_lacks_waits():
    from quire.simulation.sweep_plan import for_hydra, take_apart

    told = ["strategy=fedavg,fedprox", "strategy.rounds=2", "strategy.mu=0.1", "privacy=record", "privacy.clip=2"]
    assert for_hydra(told, take_apart(told)) == [*told[:2], "strategy.mu=choice(0.1)", *told[3:]]
    assert for_hydra(told[3:], take_apart(told[3:])) == told[3:]


@joblib
@pytest.mark.slow
def test_private_jobs_side_by_side_give_the_same_models(quire, tmp_path):
    args = ["run", "-m", *SMALL, "privacy=record", "privacy.epsilon=1,8"]
    assert quire(*args, "hydra.sweep.dir=one")[0] == 0
    status, _, err = quire(*args, "hydra.sweep.dir=two", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert (status, err) == (0, "")
    assert models(tmp_path / "one", 2) == models(tmp_path / "two", 2)
    assert len(set(models(tmp_path / "one", 2))) == 2
    one, two = (json.loads((tmp_path / name / "privacy_utility.json").read_text()) for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
@optuna
def test_optuna_over_private_runs_says_what_that_costs(quire, tmp_path):
    trials = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "privacy.clip=tag(log,interval(0.1,10))"]
    args = ["privacy=record", "privacy.epsilon=4", VALID, "hydra.sweep.dir=s"]
    status, _, err = quire("run", "-m", *SMALL, *trials, *args)
    assert (status, err) == (0, "")
    page = (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")
    assert "Optuna searched here" in page
    assert "three runs long" in page
    assert "promise epsilon 12 by basic composition" in page


OPTUNA = ["hydra/sweeper=optuna", "training.lr=interval(0.1,1)"]
REFUSED = {
    "a search without validation rows": (OPTUNA, "there are none: add data.validation_fraction=0.2", optuna),
    "a search that nobody scores": ([*OPTUNA, VALID, "strategy.fraction_evaluate=0"], "asks no silo to score", optuna),
    "a search for the worst": ([*OPTUNA, VALID, "hydra.sweeper.direction=minimize"], "must be maximize", optuna),
    "a search for a lucky seed": ([*OPTUNA, VALID, "seed=1,2"], "would look for the luckiest seed", optuna),
    "an interval beyond the limits": (["hydra/sweeper=optuna", "training.lr=interval(-1,1)"], "greater than 0", optuna),
    "an interval that nothing searches": (["training.lr=interval(0.1,1)"], "add hydra/sweeper=optuna", None),
    "no job at a time": (
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=0", "seed=1,2"],
        "hydra.launcher.n_jobs must be at least 1",
        joblib,
    ),
    "Ray beside Ray": (["hydra/launcher=joblib", "runtime=flower", "seed=1,2"], "Ray shares out the cores", joblib),
    "a launcher that there is not": (["hydra/launcher=nothing", "seed=1,2"], "Hydra cannot use these arguments", None),
    "a glob over numbers": (["training.lr=glob(*)"], "training.lr=glob(*): glob names options of a group", None),
    "a glob that names nothing": (["strategy=glob(x*)"], "strategy=glob(x*) names no option of strategy", None),
    "a glob over what does not fit": (["partition=glob(*)"], "cannot be shared out by partition=natural", None),
    "a choice that does not exist": (["strategy=choice(fedavg,nope)"], "strategy=nope does not exist", None),
    "a sweep with a bad value": (["data.validation_fraction=0.1,1"], "validation_fraction must be", None),
    "flags that exclude each other": (["seed=1,2", "--cfg", "job"], "Only one of --run", None),
    "a value twice": (["seed=1,2", "seed=3"], "is set twice", None),
}


@pytest.mark.parametrize("case", [pytest.param(name, marks=mark or ()) for name, (_, _, mark) in REFUSED.items()])
def test_a_mistake_gets_one_sentence_before_any_job(case, quire, tmp_path):
    args, words, _ = REFUSED[case]
    status, _, err = quire("run", "-m", *args)
    assert status == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1, err
    assert not list(tmp_path.rglob("job.json"))


@pytest.mark.parametrize(("kind", "name"), [("launcher", "joblib"), ("sweeper", "optuna")])
def test_a_missing_plugin_names_the_extra(kind, name, quire, monkeypatch):
    monkeypatch.setattr("quire.simulation.sweep_plan._installed", lambda plugin: False)
    status, _, err = quire("run", "-m", f"hydra/{kind}={name}", "seed=1,2", VALID)
    assert status == 2
    assert f"hydra-{name}-{kind}: pip install 'quire[sweep]'." in err


@pytest.mark.parametrize("where", ["s", "${oc.env:SWEEP_HERE}"])
def test_a_sweep_is_never_overwritten(where, quire, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_HERE", "s")
    assert quire("run", "-m", *SMALL, "seed=1,2", "hydra.sweep.dir=s")[0] == 0
    before = (tmp_path / "s" / "sweep.html").read_bytes()
    status, _, err = quire("run", "-m", *SMALL, "seed=3,4", f"hydra.sweep.dir={where}")
    assert status == 2
    assert err == "quire: The folder 's' already holds a sweep: choose another with hydra.sweep.dir=FOLDER.\n"
    assert (tmp_path / "s" / "sweep.html").read_bytes() == before
