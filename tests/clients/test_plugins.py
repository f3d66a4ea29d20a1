"""What an operator adds: a real package, installed into a folder of its own, approved by name."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import quire
from quire.clients.data.connectors import Connector
from quire.clients.plugins import CONNECTORS, load_plugin
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.errors import DataError, RunFailed
from quire.simulation.baselines import compare

CODE = """
import numpy as np
from quire.clients.data.connectors import Connector, Raw


def read(source):
    rows = source.plain()["rows"]
    return Raw({name: np.arange(rows) % 2 if name == "sick" else np.array(["some"] * rows, dtype=object)
                if name == "pain" else np.linspace(100, 200, rows) for name in source.wanted})


made_up = Connector("made_up", frozenset({"rows"}), read)
liar = made_up
number = 5
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lay a package out as pip would, in a folder on the path."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def lay_out(
        entries: str, package: str = "quire_made_up", code: str = CODE, group: str = "quire.connectors"
    ) -> None:
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{package}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entries}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, package, raising=False)

    yield lay_out
    sys.modules.pop("quire_made_up", None)


def test_an_approved_connector_reads_rows(install, home):
    install("made_up = quire_made_up:made_up")
    home.silo("{connector: made_up, rows: 20}", "plugins: [made_up]")
    data = home.load().data
    assert len(data.train) + len(data.test) == 20
    home.silo("{connector: made_up, rows: 20, path: x}", "plugins: [made_up]")
    with pytest.raises(DataError, match="'data' has no key 'path'; there are connector, missing, missing_in, rows"):
        home.load()


def test_installed_is_not_approved_and_approved_is_not_installed(install, home):
    home.silo("{connector: made_up, rows: 20}", "plugins: [made_up]")
    with pytest.raises(DataError, match=r"\(quire\.connectors\) is not installed here"):
        home.load()
    install("made_up = quire_made_up:made_up")
    home.silo("{connector: made_up, rows: 20}", "plugins: [another]")
    with pytest.raises(DataError, match=r"is not approved: the operator adds it to 'plugins' in silo\.yaml"):
        home.load()
    assert "quire_made_up" not in sys.modules, "what is not approved must not even be imported"


@pytest.mark.parametrize(
    ("entry", "name", "words"),
    [
        ("liar = quire_made_up:liar", "liar", "calls itself 'made_up': a plug-in must bear the name"),
        ("number = quire_made_up:number", "number", "is not a Connector"),
        ("gone = quire_made_up:gone", "gone", r"cannot be loaded \(AttributeError\)"),
        ("lost = no_such_module:x", "lost", r"cannot be loaded \(ModuleNotFoundError\)"),
    ],
)
def test_a_plugin_that_is_not_what_it_says(install, entry, name, words):
    install(entry)
    with pytest.raises(DataError, match=words):
        load_plugin(CONNECTORS, name, Connector, [name])


def test_a_plugin_installed_by_two_packages(install):
    install("made_up = quire_made_up:made_up")
    install("made_up = quire_other:made_up", package="quire_other")
    with pytest.raises(DataError, match="installed by more than one package"):
        load_plugin(CONNECTORS, "made_up", Connector, ["made_up"])


def test_no_plugin_takes_the_place_of_a_connector_of_quires_own(install, home):
    install("csv = quire_made_up:made_up")
    home.silo("{connector: csv, path: rows.csv}", "plugins: [csv]")
    assert home.read().data.connector.read.__module__ == "quire.clients.data.connectors.csv_file"


# ------------------------------------------------------------------------------------------------ models
MODEL = """
from torch import nn
from quire.clients.tasks.models import Model


def build(inputs, outputs, image):
    return nn.Sequential(nn.Linear(inputs, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, outputs))


mine = Model("mine", build)
dropping = Model("dropping", lambda inputs, outputs, image: nn.Sequential(nn.Linear(inputs, outputs), nn.Dropout()))
strange = Model("strange", lambda inputs, outputs, image: nn.Sequential(nn.PReLU(), nn.Linear(inputs, outputs)))
normed = Model("normed", lambda inputs, outputs, image: nn.Sequential(nn.BatchNorm1d(inputs), nn.Linear(inputs, 1)))
"""
OVERRIDES = (
    "task=breast_cancer partition.silos=3 partition.alpha=1 strategy.rounds=2 task.model=plugin task.plugin=mine"
)


def test_a_model_of_ones_own(install, monkeypatch, tmp_path):
    install("mine = quire_made_up:mine\nnormed = quire_made_up:normed", code=MODEL, group="quire.models")
    monkeypatch.delenv("QUIRE_PLUGINS", raising=False)
    with pytest.raises(DataError, match=r"is not approved: .* at a server to QUIRE_PLUGINS"):
        quire.run(OVERRIDES, tmp_path / "refused")
    monkeypatch.setenv("QUIRE_PLUGINS", "other, mine, normed")
    first = quire.run(OVERRIDES, tmp_path / "a")
    assert quire.run(OVERRIDES, tmp_path / "b").model == first.model
    assert set(load_file(tmp_path / "a" / "model.safetensors")) == {
        f"{layer}.{part}" for layer in (0, 1, 3) for part in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("normed", r"its layer '0' \(BatchNorm1d\) does not do the same in training and in scoring"),
        ("dropping", r"its layer '1' \(Dropout\) does not do the same"),
        ("strange", r"there is no rule for the first value of '0\.weight'"),
    ],
)
def test_a_model_that_cannot_be_trained_here_is_refused_in_words(name, words, install, monkeypatch, tmp_path):
    install(f"{name} = quire_made_up:{name}", code=MODEL, group="quire.models")
    monkeypatch.setenv("QUIRE_PLUGINS", name)
    with pytest.raises(DataError, match=words):
        quire.run(OVERRIDES.replace("plugin=mine", f"plugin={name}"), tmp_path)


def test_a_silo_uses_only_models_that_its_own_file_approves(install, monkeypatch, home):
    install("mine = quire_made_up:mine", code=MODEL, group="quire.models")
    monkeypatch.setenv("QUIRE_PLUGINS", "mine")  # the server's approval is not the silo's
    settings = compose("task=tabular task.model=plugin task.plugin=mine")
    with pytest.raises(DataError, match="is not approved"):
        task_of(settings, home.read().schema, home.read().plugins)
    home.silo("{connector: csv, path: rows.csv}", "plugins: [mine]")
    assert task_of(settings, home.read().schema, home.read().plugins).features == 4


# ------------------------------------------------------------------------------------------------- tasks
TASK = """
from dataclasses import dataclass
import torch
from quire.clients.tasks import Classification
from quire.clients.tasks.base import TaskPlugin


@dataclass(frozen=True)
class Weighted(Classification):
    def loss(self, logits, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits.squeeze(1), y.to(logits.dtype), pos_weight=torch.tensor(4.0))

    def metrics(self, logits, y):
        return {**super().metrics(logits, y), "sensitivity": float((logits[y == 1, 0] > 0).mean())}


def make(schema, hidden):
    return Weighted("weighted", schema.features, len(schema.target.classes), "mlp", hidden)


def cannot(schema, hidden):
    raise RuntimeError("secret")


weighted = TaskPlugin("weighted", make)
liar = TaskPlugin("weighted", make)
model = make
broken = TaskPlugin("broken", cannot)
half = TaskPlugin("half", lambda schema, hidden: "a text has no build_model")
unlike = TaskPlugin("unlike", lambda schema, hidden: [])
"""
OWN_TASK = "task=plugin task.plugin=weighted partition.silos=2 strategy.rounds=2 task.hidden=[5]"


@pytest.fixture
def clinics(home, tmp_path: Path) -> Path:
    """A folder of two silos that approve the plug-in `weighted`, with the same rows."""
    for number in (1, 2):
        home.silo("{connector: csv, path: rows.csv}", "plugins: [weighted]").rename(tmp_path / f"clinic-{number}.yaml")
        own = tmp_path / f"clinic-{number}.yaml"
        own.write_text(own.read_text().replace("name: home", f"name: clinic-{number}"))
    return tmp_path


def test_a_task_of_ones_own(install, monkeypatch, clinics, tmp_path):
    install("weighted = quire_made_up:weighted", code=TASK, group="quire.tasks")
    monkeypatch.delenv("QUIRE_PLUGINS", raising=False)
    with pytest.raises(
        DataError, match=r"'weighted' \(quire\.tasks\) is not approved: .* at a server to QUIRE_PLUGINS"
    ):
        quire.run(OWN_TASK, tmp_path / "refused", silos=clinics)
    monkeypatch.setenv("QUIRE_PLUGINS", "weighted")
    first = quire.run(OWN_TASK, tmp_path / "a", silos=clinics)
    assert quire.run(OWN_TASK, tmp_path / "b", silos=clinics).model == first.model
    plain = OWN_TASK.replace("task=plugin task.plugin=weighted", "task=tabular task.model=mlp")
    assert quire.run(plain, tmp_path / "c", silos=clinics).model != first.model
    assert load_file(tmp_path / "a" / "model.safetensors")["0.weight"].shape == (5, 4)
    events = map(json.loads, (tmp_path / "a" / "metrics.jsonl").read_text().splitlines())
    scores = [event["evaluate"] for event in events if event["event"] == "round"]
    assert all({"loss", "accuracy", "sensitivity"} <= set(score) for score in scores)
    compared = compare(compose(OWN_TASK), tmp_path / "a", silos=clinics)
    assert "sensitivity" in compared["everyone"]["pooled"]


def test_a_silo_that_has_not_approved_a_task_drops_out_by_name(install, monkeypatch, clinics, tmp_path):
    install("weighted = quire_made_up:weighted", code=TASK, group="quire.tasks")
    monkeypatch.setenv("QUIRE_PLUGINS", "weighted")
    own = clinics / "clinic-2.yaml"
    own.write_text(own.read_text().replace("[weighted]", "[another]"))
    with pytest.raises(RunFailed, match=r"1 of 2 silos.*clinic-2"):
        quire.run(OWN_TASK, tmp_path / "run", silos=clinics)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", r"'gone' \(quire\.tasks\) is not installed here"),
        ("liar", r"'liar' \(quire\.tasks\) calls itself 'weighted': a plug-in must bear the name"),
        ("model", r"'model' \(quire\.tasks\) is not a TaskPlugin"),
        ("broken", r"'broken' cannot make its task \(RuntimeError\)\.$"),
        ("half", r"'half' makes something that is not a task: it has no 'name'"),
        ("unlike", r"'unlike' cannot make its task \(TypeError\)\.$"),
    ],
)
def test_a_task_that_is_not_one_is_refused_in_words(name, words, install, monkeypatch, home):
    entries = "\n".join(f"{one} = quire_made_up:{one}" for one in ("liar", "model", "broken", "half", "unlike"))
    install(entries, code=TASK, group="quire.tasks")
    monkeypatch.setenv("QUIRE_PLUGINS", name)
    with pytest.raises(DataError, match=words):
        task_of(compose(f"task=plugin task.plugin={name}"), home.read().schema)


def test_a_plugin_of_another_kind_is_not_a_task(install, monkeypatch, home):
    install("mine = quire_made_up:mine", code=MODEL, group="quire.models")
    monkeypatch.setenv("QUIRE_PLUGINS", "mine")
    with pytest.raises(DataError, match=r"'mine' \(quire\.tasks\) is not installed here"):
        task_of(compose("task=plugin task.plugin=mine"), home.read().schema)


def test_the_task_on_the_page_works_as_it_stands(install, monkeypatch, home, tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "bring-your-own-data.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S) if "TaskPlugin" in block)
    install("quantile = quire_made_up:QUANTILE", code=code, group="quire.tasks")
    monkeypatch.setenv("QUIRE_PLUGINS", "quantile")
    schema = (tmp_path / "schema.yaml").read_text()
    home.write("schema.yaml", schema.replace("classification, classes: [0, 1]", "regression, low: 0, high: 1"))
    for number in (1, 2):
        home.write(f"clinic-{number}.yaml", "data: {connector: csv, path: rows.csv}\nplugins: [quantile]\n")
    (tmp_path / "silo.yaml").unlink()
    quire.run("task=plugin task.plugin=quantile partition.silos=2 strategy.rounds=2", tmp_path / "run", silos=tmp_path)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-2])
    assert {"loss", "rmse", "mae", "r2"} == set(line["evaluate"])
