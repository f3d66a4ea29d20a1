"""The recipes, with the data as their authors published it where that is present."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import quire
from quire.clients.data.own import load
from quire.clients.tasks.schema import read_schema
from quire.conf.compose import compose
from quire.simulation.baselines import compare
from quire.simulation.silos import local_silos

ROOT = Path(__file__).resolve().parent.parent
RAW = ROOT.parent / "shared" / "data"
RECIPES = ("heart_disease", "credit_default", "mnist")


def raw(name: str) -> Path:
    if not (RAW / name).is_dir():
        pytest.skip(f"the data of {name} is not here: it is never part of the project")
    return RAW / name


def lay_out(name: str, out: Path, **options) -> Path:
    runpy.run_path(str(ROOT / "recipes" / name / "prepare.py"))["main"](raw(name), out, **options)
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_schema_and_a_script_and_no_data(name: str) -> None:
    folder = ROOT / "recipes" / name
    assert read_schema(folder / "schema.yaml").features > 10
    assert {path.name for path in folder.iterdir() if path.name != "__pycache__"} == {"prepare.py", "schema.yaml"}


def test_heart_disease_is_four_hospitals(tmp_path: Path) -> None:
    silos = local_silos(compose("task=tabular"), lay_out("heart_disease", tmp_path))
    assert silos.names == ("cleveland", "hungarian", "switzerland", "va")
    settings = compose("task=tabular")
    found = {}
    for name, where in zip(silos.names, silos.where, strict=True):
        data = load(settings, where, name).data
        y = np.concatenate([data.train.y, data.test.y])
        found[name] = (len(y), int(y.sum()))
        chol = np.concatenate([data.train.x, data.test.x])[:, 8]  # after age, sex (2), chest pain (4), blood pressure
        assert np.isnan(chol).mean() == pytest.approx({"switzerland": 1.0, "va": 0.28}.get(name, 0.0), abs=0.09)
    # Rows and diseased as in the data set's published description.
    assert found == {"cleveland": (303, 139), "hungarian": (294, 106), "switzerland": (123, 115), "va": (200, 149)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["public", "federated"])
def test_heart_disease_is_learned(tmp_path: Path, how: str) -> None:
    folder = lay_out("heart_disease", tmp_path / "silos")
    overrides = f"task=tabular data.preprocessing={how}"
    quire.run(overrides, tmp_path / "run", silos=folder)
    everyone = compare(compose(overrides), tmp_path / "run", silos=folder)["everyone"]
    assert everyone["federated"]["auc"] > 0.85
    assert everyone["federated"]["balanced_accuracy"] > everyone["majority"]["balanced_accuracy"] + 0.2


def test_credit_default_is_dealt_out_or_split_by_a_column(tmp_path: Path) -> None:
    overrides = "task=tabular partition.silos=5 strategy.rounds=2"
    folder = lay_out("credit_default", tmp_path / "banks")
    quire.run(overrides, tmp_path / "run", silos=folder)
    written = compare(compose(f"{overrides} output.baselines=false"), tmp_path / "run", silos=folder)
    assert sum(written["rows"].values()) == 30_000
    assert written["everyone"]["federated"]["auc"] > 0.68
    by_column = lay_out("credit_default", tmp_path / "by", by="EDUCATION")
    silos = local_silos(compose("task=tabular partition.silos=5"), by_column)
    loaded = [
        load(compose("task=tabular"), where, name).data for where, name in zip(silos.where, silos.names, strict=True)
    ]
    assert sum(len(data.train) + len(data.test) for data in loaded) == 30_000


@pytest.mark.slow
def test_mnist_is_learned_by_a_cnn(tmp_path: Path) -> None:
    folder = lay_out("mnist", tmp_path / "offices", silos=4, rows=2000)
    overrides = "task=images partition.silos=4 strategy.rounds=4 strategy.evaluate_every=4 training.epochs=3"
    quire.run(overrides, tmp_path / "run", silos=folder)
    written = compare(compose(f"{overrides} output.baselines=false"), tmp_path / "run", silos=folder)
    assert written["rows"] == {"train": 2000, "test": 10_000}
    assert written["everyone"]["federated"]["accuracy"] > 0.85
