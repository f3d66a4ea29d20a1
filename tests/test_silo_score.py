"""``quire silo score``: the simulator's own figures of a silo, from the run folder and that silo's file alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Call, command_line
from safetensors.numpy import load_file, save_file

from quire.conf.compose import compose
from quire.errors import DataError
from quire.simulation.baselines import compare
from quire.strategies.folder import read_overrides

CLINICS = ("north", "east", "south")
SCHEMA = (
    "columns: {age: {low: 20, high: 95}, days: {low: 0, high: 60, missing: true, impute: 7}}\n"
    "target: {name: back, kind: classification, classes: [0, 1]}\n"
)


def clinics(folder: Path) -> None:
    folder.mkdir()
    (folder / "schema.yaml").write_text(SCHEMA)
    for seed, name in enumerate(CLINICS):
        rng = np.random.default_rng(seed)
        age, days = rng.integers(20, 95, 80), rng.integers(1, 30, 80)
        back = (0.1 * (age - 60) + 0.2 * (days - 15) + rng.normal(0, 1, 80) > 0).astype(int)
        lines = [f"{a},{d},{b}" for a, d, b in zip(age, days, back, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["age,days,back", *lines]) + "\n")
        (folder / f"{name}.yaml").write_text(f"name: {name}\ndata: {{connector: csv, path: {name}.csv}}\n")


@pytest.fixture
def quire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    clinics(tmp_path / "silos")
    return command_line(monkeypatch, capsys)


def trained(quire: Call, *settings: str) -> dict[str, dict[str, float]]:
    """Train, and return the simulator's scores of the federated model by silo."""
    plain = ("output.report=false", "output.baselines=false", "output.progress=none", "strategy.rounds=3")
    run = ("run", "task=tabular", "silos=silos", "hydra.run.dir=run", *plain, *settings)
    assert quire(*run)[0] == 0
    compared = compare(compose(read_overrides(Path("run"))), Path("run"), silos=Path("silos"))
    return {name: ways["federated"] for name, ways in compared["own"].items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("data.preprocessing=federated",),
        ("data.validation_fraction=0.2", "seed=7"),
        ("privacy=record", "privacy.epsilon=4", "strategy.fraction_evaluate=0"),
    ],
    ids=" ".join,
)
def test_a_silo_finds_what_the_simulator_found(quire: Call, settings: tuple[str, ...]) -> None:
    expected = trained(quire, *settings)
    Path("sent").mkdir()  # what an operator would send: no more than these
    for name in ("run.json", "settings.yaml", "model.safetensors"):
        shutil.copy(f"run/{name}", f"sent/{name}")
    for name in CLINICS:
        status, out, err = quire("silo", "score", "sent", "--silo", f"silos/{name}.yaml", "--json")
        assert (status, err) == (0, "")
        found = json.loads(out)
        assert (found["silo"], found["rows"]) == (name, 80)
        assert 0 < found["tested"] < 40
        assert found["scores"] == pytest.approx(expected[name], rel=1e-6)
    status, out, _ = quire("silo", "score", "sent", "--silo", "silos/north.yaml")
    assert status == 0
    assert f"accuracy           {expected['north']['accuracy']:.4f}" in out


def test_without_a_test_row_there_is_no_score(quire: Call) -> None:
    """Under privacy everybody of a silo may withdraw, and the run goes on."""
    trained(quire, "privacy=record", "privacy.epsilon=4", "strategy.fraction_evaluate=0")
    table = Path("silos/north.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},id", *(f"{line},p" for line in lines[1:])]))
    file = Path("silos/north.yaml")
    own = "store: own\nidentity: own.key\npopulation: {name: a, records: 80}\n"
    said = "consent: {subject: id, withdrawn: {connector: csv, path: out.csv, key: id}}\n"
    file.write_text(f"{file.read_text()}{own}{said}")
    Path("silos/out.csv").write_text("id\np\n")
    status, out, err = quire("silo", "score", "run", "--silo", "silos/north.yaml")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "north has no row left that was kept for testing" in err
    with pytest.raises(DataError, match="north has no row left to train on"):
        compare(compose(read_overrides(Path("run"))), Path("run"), silos=Path("silos"))


def test_what_is_not_the_runs_is_refused_in_a_sentence(quire: Call) -> None:
    trained(quire)

    def refused(*arguments: str, ends: int = 2) -> str:
        status, out, err = quire("silo", "score", *arguments)
        assert (status, out, err.count("\n")) == (ends, "", 1)
        return err

    assert "no readable run.json" in refused("nowhere", "--silo", "silos/north.yaml")
    assert "nothing.yaml" in refused("run", "--silo", "silos/nothing.yaml")
    model = load_file("run/model.safetensors")
    save_file({name: array + 1 for name, array in model.items()}, "run/model.safetensors")
    assert "is not the model that run.json names" in refused("run", "--silo", "silos/north.yaml")
    Path("run/model.safetensors").write_bytes(b"\xff" * 40)
    assert "cannot be read" in refused("run", "--silo", "silos/north.yaml", ends=1)
    save_file(model, "run/model.safetensors")
    Path("silos/schema.yaml").write_text(SCHEMA.replace("high: 60", "high: 61"))
    assert "another schema" in refused("run", "--silo", "silos/north.yaml")
    Path("silos/schema.yaml").write_text(SCHEMA)
    Path("silos/north.yaml").write_text("data: {connector: csv, path: north.csv}\n")
    assert "has no 'name'" in refused("run", "--silo", "silos/north.yaml")
    about = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**about, "model": None, "status": "running"}))
    assert "has no model yet" in refused("run", "--silo", "silos/east.yaml")
