"""Every benchmark's short form keeps the contract that benchmarks/harness.py states."""

import json
import operator
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HELPERS = {
    *("deployed", "deployed_large", "deployed_rounds", "plain_flower", "proxy_load", "secagg_node"),
    *(
        "example_network",
        "groups_cost",
        "harness",
        "hospitals",
        "made_up_columns",
        "noisy_sgd",
        "pfl_contender",
        "pfl_environment",
        "poisoning_roc",
        "record_runs",
        "render",
        "run_all",
        "secagg_parts",
        "secure_cheats",
        "simulation_work",
    ),
}
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in HELPERS)
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@pytest.mark.slow
@pytest.mark.bench
@pytest.mark.timeout(330)
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_short_form_writes_figures_that_say_whether_their_goals_are_met(name, tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / f"{name}.py"),
        "--quick",
        "--json",
        str(tmp_path / "figures.json"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures
    assert len({figure["figure"] for figure in figures}) == len(figures)
    for figure in figures:
        assert set(figure) == {"figure", "value", "goal", "met", "note"}
        assert isinstance(figure["note"], str)
        assert figure["value"] is not None or figure["note"].startswith("not measured")
        if figure["goal"] is None:
            assert figure["met"] is None
        else:
            sign, limit = figure["goal"].split()
            assert figure["met"] is (figure["value"] is not None and COMPARE[sign](figure["value"], float(limit)))
    assert any(figure["goal"] for figure in figures)


def test_the_run_of_all_knows_every_script():
    done = subprocess.run(
        [sys.executable, "-c", "import run_all; print(*sorted(run_all.BENCHMARKS))"],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == SCRIPTS
