"""A silo that reads its own rows: what it answers, and what it refuses."""

from __future__ import annotations

import os

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from quire import compose
from quire.clients import contract
from quire.clients.arrays import decode, encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.tasks import Classification, Regression, task_of
from quire.clients.tasks.moments import MEAN, SCALE
from quire.errors import DataError, SettingsError
from quire.privacy.randomness import stream
from quire.simulation.grid import InlineGrid, server_identity

OVERRIDES = "task=tabular partition.silos=2"


@pytest.fixture(autouse=True)
def _as_server():
    with server_identity(run_id=7):
        yield


class Node:
    """One SuperNode with a silo file in its config."""

    def __init__(self, home, overrides=OVERRIDES, **config):
        config = config or {SILO_KEY: str(home.folder / "silo.yaml")}
        self.home, self.overrides = home, overrides
        self.grid = InlineGrid(app, {10: Context(7, 10, config, RecordDict(), {"overrides": overrides})})

    def ask(self, stage, **config):
        model = task_of(compose(self.overrides), self.home.read().schema).initial_arrays(stream(1, "model"))
        records = {"arrays": encode(model), "config": ConfigRecord({"server-round": 1, **config})}
        (reply,) = self.grid.send_and_receive([Message(RecordDict(records), 10, stage)])
        return reply

    def code(self, stage, **config):
        return contract.Code(self.ask(stage, **config).error.code).name


def test_it_says_its_own_name_and_the_hash_of_its_schema(home):
    identity = Node(home).ask("query").content["identity"]
    assert identity["silo"] == "home"
    assert identity["schema"] == home.read().schema.sha256


def test_a_silo_without_a_name_is_called_after_its_place(home):
    home.write("silo.yaml", "data: {connector: csv, path: rows.csv}")
    file = str(home.folder / "silo.yaml")
    assert Node(home, **{SILO_KEY: file, "partition-id": 1}).ask("query").content["identity"]["silo"] == "silo-2"
    assert Node(home, **{SILO_KEY: file}).code("query") == "DATA_UNAVAILABLE"


def test_it_trains_and_scores_on_its_own_rows(home):
    trained, scored = Node(home).ask("train").content, Node(home).ask("evaluate").content
    assert trained["metrics"]["num-examples"] + scored["metrics"]["num-examples"] == 12
    assert set(decode(trained["update"])) == {"0.weight", "0.bias"}


def test_fewer_rows_than_a_batch_are_one_smaller_batch(home):
    assert Node(home, f"{OVERRIDES} training.batch_size=100000").ask("train").has_content()


def test_a_silo_of_one_class_takes_part(home, caplog):
    home.write("rows.csv", "age,chol,pain,sick\n" + "1,200,none,1\n" * 6)
    assert Node(home).ask("train").has_content()
    assert "auc" not in Node(home).ask("evaluate").content["metrics"]
    assert "all rows are of one class" in caplog.text


@pytest.mark.parametrize("rows", ["", "1,200,none,1\n"])
def test_an_empty_silo_and_a_silo_of_one_row(home, rows):
    home.write("rows.csv", f"age,chol,pain,sick\n{rows}")
    assert Node(home).code("train") == "DATA_UNAVAILABLE"
    with pytest.raises(DataError, match="holds no rows" if not rows else "names 1 row; at least two are needed"):
        home.load()


def test_what_is_wrong_with_the_rows_stays_at_the_silo(home, caplog):
    home.write("rows.csv", "age,chol,pain,sick\nsecret,200,none,1\n")
    reply = Node(home).ask("train")
    assert contract.Code(reply.error.code) is contract.Code.DATA_UNAVAILABLE
    assert "age" not in reply.error.reason
    assert "'age' has values that are not numbers" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("changed", ["rows.csv", "silo.yaml", "schema.yaml"])
def test_a_file_that_changes_during_the_run(home, changed, caplog):
    node = Node(home)
    assert node.ask("train").has_content()
    new = {
        "rows.csv": (home.folder / "rows.csv").read_text() + "70,300,none,1\n",
        "silo.yaml": "name: home\ndata: {connector: csv, path: rows.csv, missing_in: {chol: [150]}}",
        "schema.yaml": (home.folder / "schema.yaml").read_text().replace("high: 500", "high: 501"),
    }
    home.write(changed, new[changed])
    assert node.code("train") == "DATA_UNAVAILABLE"
    assert "The rows of home changed during the run" in caplog.text
    assert node.code("evaluate") == "DATA_UNAVAILABLE"
    assert Node(home).ask("train").has_content(), "another run may have other rows"


def test_a_file_that_was_only_touched_has_not_changed(home):
    node = Node(home)
    node.ask("train")
    os.utime(home.folder / "rows.csv", (1, 1))
    assert node.ask("train").has_content()


def test_a_file_that_changes_while_it_is_read(home, monkeypatch):
    from quire.clients.data import own

    plain = own._rows

    def slowly(section, sieve):
        rows = plain(section, sieve)
        home.write("rows.csv", "age,chol,pain,sick\n")
        return rows

    monkeypatch.setattr(own, "_rows", slowly)
    with pytest.raises(DataError, match="changed while it was read"):
        home.load()


def test_a_file_that_disappears(home):
    node = Node(home)
    node.ask("train")
    (home.folder / "rows.csv").unlink()
    assert node.code("train") == "DATA_UNAVAILABLE"


def test_the_server_cannot_make_a_silo_read_a_file(home):
    """Without a file of its own in the node's config, no settings lead a silo to any."""
    assert Node(home, **{"partition-id": 0, "num-partitions": 2}).code("train") == "DATA_UNAVAILABLE"
    for more in ("data.path=/etc/passwd", "silos=/etc", "silo=/etc/passwd"):
        node = Node(home)
        node.grid._contexts[10].run_config["overrides"] = f"{OVERRIDES} {more}"
        assert node.code("train") == "SETTINGS_REFUSED"


# -------------------------------------------------------------------------------- federated preprocessing
def test_moments_are_given_only_where_the_settings_ask_for_them(home):
    assert Node(home).code("query.moments") == "BAD_REQUEST"
    parts = decode(Node(home, f"{OVERRIDES} data.preprocessing=federated").ask("query.moments").content["arrays"])
    assert {name: array.shape for name, array in parts.items()} == dict.fromkeys(("count", "sum", "squares"), (2,))


def test_federated_preprocessing_uses_what_the_server_sent(home):
    node = Node(home, f"{OVERRIDES} data.preprocessing=federated")
    first = decode(node.ask("train", **{MEAN: [0.0, 0.0], SCALE: [1.0, 1.0]}).content["update"])
    other = decode(node.ask("train", **{MEAN: [0.5, 0.0], SCALE: [1.0, 2.0]}).content["update"])
    assert (first["0.weight"] != other["0.weight"]).any()


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({}, "DATA_UNAVAILABLE"),
        ({MEAN: [0.0], SCALE: [1.0]}, "DATA_UNAVAILABLE"),
        ({MEAN: [0.0, 0.0]}, "BAD_REQUEST"),
        ({MEAN: [0.0, 0.0], SCALE: [1.0]}, "BAD_REQUEST"),
        ({MEAN: [0.0, 0.0], SCALE: [1.0, 0.0]}, "BAD_REQUEST"),
        ({MEAN: [0.0, float("nan")], SCALE: [1.0, 1.0]}, "BAD_REQUEST"),
        ({MEAN: "mean", SCALE: "scale"}, "BAD_REQUEST"),
        ({MEAN: [1, 2], SCALE: [1.0, 1.0]}, "BAD_REQUEST"),
    ],
)
def test_statistics_that_cannot_be_used(home, config, code):
    assert Node(home, f"{OVERRIDES} data.preprocessing=federated").code("train", **config) == code


# ------------------------------------------------------------------------------------------------- tasks
def test_the_schema_makes_the_task(home):
    settings, schema = compose(OVERRIDES), home.read().schema
    assert task_of(settings, schema) == Classification("tabular", 4, 2, "logistic", ())
    with pytest.raises(DataError, match="needs the agreed form of the rows"):
        task_of(settings)
    with pytest.raises(SettingsError, match="images are task=images, columns task=tabular"):
        task_of(compose("task=images"), schema)
    home.write("schema.yaml", "columns: {age: {low: 0, high: 9}}\ntarget: {name: y, kind: regression, low: 1, high: 5}")
    assert task_of(compose("task=tabular task.model=linear"), home.read().schema) == Regression(
        "tabular", 1, "linear", (), 1.0, 5.0
    )
    with pytest.raises(SettingsError, match=r"task\.model=logistic tells classes apart"):
        task_of(settings, home.read().schema)


def test_regression_scores_against_scikit_learn():
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    task = Regression("t", 3, "linear", (), low=10.0, high=50.0)
    rng = np.random.default_rng(1)
    y, predicted = rng.uniform(-1, 1, 40).astype(np.float32), rng.uniform(-1, 1, (40, 1)).astype(np.float32)
    scores, truth, guess = task.metrics(predicted, y), 30 + 20 * y, 30 + 20 * predicted[:, 0]
    assert scores["rmse"] == pytest.approx(root_mean_squared_error(truth, guess), rel=1e-5)
    assert scores["mae"] == pytest.approx(mean_absolute_error(truth, guess), rel=1e-5)
    assert scores["r2"] == pytest.approx(r2_score(truth, guess), rel=1e-5)
    assert scores["loss"] == pytest.approx(np.mean((predicted[:, 0] - y) ** 2), rel=1e-5)
    assert task.guess(y, y)["r2"] == pytest.approx(0, abs=1e-9)
    assert "r2" not in task.metrics(predicted[:1], y[:1])


@pytest.mark.parametrize("classes", [2, 10])
def test_a_cnn_has_group_norm_and_begins_the_same_from_the_same_generator(classes):
    task = Classification("c", 64, classes, "cnn", (8,), (1, 8, 8))
    first, again = (task.initial_arrays(stream(1, "model")) for _ in range(2))
    assert {name: array.shape for name, array in first.items()} == {
        name: tuple(tensor.shape) for name, tensor in task.build_model().state_dict().items()
    }
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["2.weight"] == 1).all()
    assert (first["2.bias"] == 0).all()
    assert np.abs(first["5.weight"]).max() <= 1 / np.sqrt(16 * 25)
    assert not [name for name in first if "running" in name]
    with pytest.raises(ValueError, match="a cnn needs images"):
        Classification("c", 64, 2, "cnn", ()).build_model()
