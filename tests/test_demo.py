"""What `make demo` runs: five hospitals under shared noise, with settings that no test row has seen."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from quire.clients.data.simulated import federation
from quire.conf.compose import compose
from quire.conf.schema import RecordDistributedPrivacy, SecureAggregation
from tests.support.command_line import command_line

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def demo() -> str:
    """The overrides of the demo, as make hands them over."""
    if shutil.which("make") is None:
        pytest.skip("make is not there")
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = re.findall(r"^\S*quire run (.*) hydra\.run\.dir=runs/demo$", done.stdout, flags=re.MULTILINE)
    assert len(lines) == 1
    return str(lines[0])


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("demo_settings")


def test_it_is_five_hospitals_under_noise_that_they_share(demo: str) -> None:
    settings = compose(demo)
    assert settings.partition.silos == 5
    assert settings.task.name == "breast_cancer"
    assert isinstance(settings.privacy, RecordDistributedPrivacy)
    assert isinstance(settings.aggregation, SecureAggregation)
    assert settings.privacy.epsilon <= 2
    assert settings.output.baselines


def test_readme_benchmark_and_its_page_say_what_it_runs(demo: str, chosen: ModuleType) -> None:
    assert demo == f"{chosen.BASE} {chosen.CHOSEN}"
    assert f"\nquire run {demo} hydra.run.dir=runs/demo\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| epsilon of the winner \| .* \| quire run (.*) \|$", page, flags=re.MULTILINE) == [demo]


def test_settings_are_tried_on_training_rows_alone(demo: str, chosen: ModuleType) -> None:
    silos = federation(compose(demo))
    tested = {row.tobytes() for silo in silos for row in silo.test.x}
    assert compose(demo).seed not in chosen.SEEDS
    aside = []
    for seed in (chosen.SEEDS[0], chosen.SEEDS[-1]):
        train, validation = chosen.rows_of(seed)
        parts = [{row.tobytes() for row in rows.x} for rows in (*train, validation)]
        assert not tested & set.union(*parts)
        assert sum(len(rows) for rows in train) + len(validation) == sum(len(silo.train) for silo in silos)
        assert len(validation) == pytest.approx(0.2 * sum(len(silo.train) for silo in silos), abs=5)
        aside.append(parts[-1])
    assert aside[0] != aside[1]


@pytest.mark.slow
def test_the_cells_are_trained_as_the_product_trains(chosen: ModuleType) -> None:
    """Without noise and with every row in every batch, a cell is the product's own run on the same rows."""
    cell = (("privacy.sampling_rate", 1.0), ("strategy.rounds", 20), ("training.lr", 2.0), ("privacy.clip", 1.0))
    train, validation = chosen.rows_of(101)
    found = chosen.trained(cell, 44.0, 101)
    assert found["balanced_accuracy"] > 0.9
    assert chosen.trained(cell, 44.0, 101) == found
    assert chosen.trained(cell, 0.01, 101)["loss"] > 2 * found["loss"]
    assert len(train) == 5
    assert len(validation) > 80


def test_a_short_demo_verifies_and_has_all_models_on_its_page(
    demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = command_line(monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    short = re.sub(r"strategy\.rounds=\d+", "strategy.rounds=2", demo).split()
    status, out, _ = call("run", *short, "hydra.run.dir=runs/demo", "output.progress=plain")
    assert status == 0
    assert out.rstrip().endswith("Report: runs/demo/report.html")
    status, out, _ = call("verify", "runs/demo")
    assert status == 0
    assert out.rstrip().endswith("Verified.")
    page = (tmp_path / "runs" / "demo" / "report.html").read_text(encoding="utf-8")
    epsilon = f"epsilon {compose(demo).privacy.epsilon:g}"
    for words in (
        f'<th scope="row">Federated, {epsilon}, delta 1e-05</th>',
        '<th scope="row">Federated, without privacy</th><td class="said">one batch a round as in this run',
        '<th scope="row">Federated, without privacy</th><td class="said">one local pass in each round</td>',
        '<th scope="row">Pooled</th>',
        *(f'<th scope="row">hospital-{place} alone</th>' for place in range(1, 6)),
        '<th scope="row">Guessing</th>',
        f"Privacy at {epsilon}",
    ):
        assert words in page
