"""The bundle that ``runtime=flower`` submits: the code that runs here, and nothing else."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from quire.clients.code import code_hash
from quire.conf.compose import compose
from quire.simulation.flower_app import run_config, stage

ROOT = Path(__file__).resolve().parents[2]


def test_the_staged_app_declares_what_the_project_declares(tmp_path):
    staged = tomllib.loads((stage(tmp_path / "quire") / "pyproject.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert staged["tool"]["flwr"]["app"] == project["tool"]["flwr"]["app"]
    assert staged["project"]["name"] == project["project"]["name"]
    assert staged["project"]["version"] == project["project"]["version"]


def test_the_staged_code_is_the_code_that_runs_here_wherever_it_is_run_from(tmp_path):
    app = stage(tmp_path / "quire")
    foreign = tmp_path / "elsewhere"
    for package in ("quire", "clients", "strategies"):
        (foreign / package).mkdir(parents=True)
        (foreign / package / "__init__.py").write_text("raise RuntimeError('foreign')")
    script = f"import sys; sys.path[0] = {str(app)!r}; from quire.clients.code import code_hash; print(code_hash())"
    done = subprocess.run([sys.executable, "-c", script], cwd=foreign, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_hash()


def test_nothing_but_code_and_settings_is_staged(tmp_path):
    app = stage(tmp_path / "quire")
    files = [path.relative_to(app) for path in app.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".yaml", ".toml"}
    assert {path.parts[0] for path in files} >= {"quire", "conf", "clients", "privacy", "strategies"}
    assert not any("test" in path.parts[0] or "__pycache__" in path.parts for path in files)


RACE = """
import importlib.util, sys, threading, time
sys.path[0] = sys.argv[1]
importing = threading.Thread(target=importlib.import_module, args=(sys.argv[2],))
importing.start()
while "quire" not in sys.modules:
    time.sleep(0.01)
try:
    print(importlib.util.find_spec(sys.argv[3]) is not None)
finally:
    importing.join()
"""


def test_the_components_are_found_while_another_thread_is_still_importing_quire(tmp_path):
    """Flower looks for the ClientApp in one thread while another one imports the ServerApp."""
    app = stage(tmp_path / "quire")
    package = app / "quire" / "__init__.py"
    package.write_text(package.read_text().replace("\n_HERE", "\nimport time; time.sleep(1)\n_HERE", 1))
    components = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    modules = [components[name].partition(":")[0] for name in ("serverapp", "clientapp")]
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(app), *modules], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    "overrides",
    ["", "task=breast_cancer strategy.rounds=3", "task.silo_label='my silo'", 'a="b" c=\\d', "ä=ü\x7f"],
)
def test_overrides_survive_the_run_config_file(tmp_path, overrides):
    settings = compose("")
    object.__setattr__(changed := type(settings)(**vars(settings)), "overrides", overrides)
    assert tomllib.loads(run_config(changed, tmp_path / "run.toml").read_text()) == {"overrides": overrides}
