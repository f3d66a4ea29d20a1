"""Training several silos at once, beside training each by itself: the same, whatever the shapes and settings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients import stacked
from quire.clients.ahead import Asked, train_ahead
from quire.clients.data.silo import Rows
from quire.clients.simulation import done_ahead, simulated, with_done_ahead
from quire.clients.slopes import is_dense
from quire.clients.stacked import is_gain, train_stacked
from quire.clients.tasks.classification import Classification
from quire.clients.tasks.models import Model
from quire.clients.tasks.regression import Regression
from quire.clients.training import Workbench, workbench
from quire.conf.schema import SgdTraining


class Bench(Workbench):
    """A workbench in either precision."""

    def __init__(self, task, dtype):
        super().__init__(task)
        if dtype == np.float64:
            self.model.double()
            self.parameters = list(self.model.parameters())
            self._views = {name: tensor.detach().numpy() for name, tensor in self.model.state_dict().items()}


def rows_of(rng, count, task, dtype):
    x = rng.normal(size=(count, task.features)).astype(dtype)
    return Rows(x, rng.integers(0, task.classes, count) if task.classes else rng.normal(size=count).astype(np.float32))


def plan_of(**told):
    given = {"name": "sgd", "epochs": 1, "steps": 0, "batch_size": 8, "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0}
    return SgdTraining(**{**given, "local_layers": (), "tuning_epochs": 0, "tuning_lr": None, **told})


@st.composite
def cases(draw):
    classes, features = draw(st.sampled_from([0, 2, 3, 10])), draw(st.sampled_from([1, 4, 50, 120]))
    hidden = tuple(draw(st.lists(st.integers(1, 9), max_size=2)))
    if classes:
        task = Classification("t", features, classes, "mlp" if hidden else "logistic", hidden)
    else:
        task = Regression("t", features, "mlp" if hidden else "linear", hidden, 0.0, 1.0)
    plan = plan_of(
        epochs=draw(st.integers(1, 3)),
        steps=draw(st.sampled_from([0, 0, 1, 5])),
        batch_size=draw(st.sampled_from([1, 3, 8, 100])),
        lr=draw(st.sampled_from([0.001, 0.02])),
        momentum=draw(st.sampled_from([0.0, 0.9])),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
    )
    counts = draw(st.lists(st.integers(1, 23), min_size=1, max_size=5))
    mu, corrected = draw(st.sampled_from([0.0, 0.3])), draw(st.booleans())
    return task, plan, counts, mu, corrected, draw(st.integers(0, 2**32))


def compared(case, dtype):
    """Return pairs of updates, from stacked training and from the silo's own, with the size of the parameters."""
    task, plan, counts, mu, corrected, seed = case
    rng = np.random.default_rng(seed)
    model = {name: part.astype(dtype) for name, part in task.initial_arrays(rng).items()}
    silos = [rows_of(rng, count, task, dtype) for count in counts]
    extra = [{name: rng.normal(size=part.shape).astype(dtype) for name, part in model.items()} for _ in silos]
    together = train_stacked(
        task,
        model,
        [(rows, np.random.default_rng(place)) for place, rows in enumerate(silos)],
        plan,
        mu,
        extra if corrected else None,
    )
    bench = Bench(task, dtype)
    for place, (rows, outcome) in enumerate(zip(silos, together, strict=True)):
        bench.load(model)
        loss = bench.train(rows, plan, np.random.default_rng(place), mu, extra[place] if corrected else None)
        assert list(outcome.update) == list(model)
        assert outcome.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
        for name, part in bench.difference(model).items():
            assert outcome.update[name].dtype == dtype
            assert outcome.update[name].shape == part.shape
            yield outcome.update[name], part, max(np.abs(part).max(), np.abs(model[name]).max())


@settings(max_examples=60, deadline=None)
@given(cases())
def test_in_double_precision_the_two_agree_to_twelve_digits(case):
    for together, alone, size in compared(case, np.float64):
        assert np.abs(together - alone).max() <= 1e-12 * size


@settings(max_examples=30, deadline=None)
@given(cases())
def test_one_step_in_single_precision_agrees_to_five_digits(case):
    task, plan, *rest = case
    step = plan_of(steps=1, batch_size=plan.batch_size, lr=plan.lr, weight_decay=plan.weight_decay)
    for together, alone, size in compared((task, step, *rest), np.float32):
        assert np.abs(together - alone).max() <= 1e-5 * size


@pytest.mark.parametrize("features", [12, 400])
def test_what_pads_a_short_batch_adds_nothing_even_where_its_outputs_are_not_finite(features, monkeypatch):
    """A silo's update does not depend on whom it is padded beside: also with weights that overflow on its first row."""
    task, plan = Classification("t", features, 3, "mlp", (6,)), plan_of(batch_size=20)
    rng = np.random.default_rng(3)
    model = task.initial_arrays(rng)
    small, large = rows_of(rng, 5, task, np.float32), rows_of(rng, 20, task, np.float32)
    slopes, seen = stacked.slopes, []

    def poisoned(given_task, out, y):
        losses, pull = slopes(given_task, out, y)
        if pull.shape[:2] == (2, 20):
            seen.append(True)
            losses[1, 5:], pull[1, 5:] = float("nan"), float("inf")  # what lies beside the small silo's five rows
        return losses, pull

    monkeypatch.setattr(stacked, "slopes", poisoned)
    both = train_stacked(task, model, [(large, np.random.default_rng(1)), (small, np.random.default_rng(2))], plan)
    assert seen
    alone = train_stacked(task, model, [(small, np.random.default_rng(2))], plan)[0]
    for name, part in both[1].update.items():
        np.testing.assert_allclose(part, alone.update[name], rtol=0, atol=1e-6)
    assert both[1].loss == pytest.approx(alone.loss, rel=1e-6)


def test_the_wide_and_the_narrow_form_of_the_first_layer_agree(monkeypatch):
    task, plan = Classification("t", 60, 4, "mlp", (7,)), plan_of(epochs=3, momentum=0.5, weight_decay=0.2)
    rng = np.random.default_rng(1)
    model = {name: part.astype(np.float64) for name, part in task.initial_arrays(rng).items()}
    silos = [rows_of(rng, count, task, np.float64) for count in (9, 20, 30)]

    def trained(**more):
        return train_stacked(
            task, model, [(rows, np.random.default_rng(place)) for place, rows in enumerate(silos)], plan, 0.3, **more
        )

    used = []
    spanned = stacked.SpannedLayers.updates
    monkeypatch.setattr(stacked.SpannedLayers, "updates", lambda self: used.append(1) or spanned(self))
    narrow = trained()
    assert used == [1]
    zero = {name: np.zeros_like(part) for name, part in model.items()}
    wide = trained(corrections=[zero] * 3)  # SCAFFOLD's corrections, though zero, do not lie in the span
    assert used == [1]
    for one, other in zip(narrow, wide, strict=True):
        for name in model:
            np.testing.assert_allclose(one.update[name], other.update[name], rtol=1e-11, atol=1e-13)


def test_a_silo_without_rows_is_refused_as_ever():
    task = Classification("t", 2, 2, "logistic", ())
    empty = Rows(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))
    model = task.initial_arrays(np.random.default_rng(1))
    with pytest.raises(ValueError, match="no row"):
        train_stacked(task, model, [(empty, np.random.default_rng(1))], plan_of())


def test_only_dense_models_of_ours_are_stacked_and_only_where_it_is_a_gain():
    assert is_dense(Classification("t", 784, 10, "mlp", (128,)))
    assert is_dense(Regression("t", 3, "linear", (), 0.0, 1.0))
    assert not is_dense(Classification("t", 64, 10, "cnn", (8,), (1, 8, 8)))
    own = Model("own", lambda inputs, outputs, image: torch.nn.Linear(inputs, outputs))
    assert not is_dense(Classification("t", 64, 10, "plugin", (), None, own))
    assert is_gain(Classification("t", 784, 10, "mlp", (128,)), plan_of(batch_size=20), 60)
    assert not is_gain(Classification("t", 784, 10, "mlp", (4096, 4096)), plan_of(batch_size=20), 60)
    assert not is_gain(Classification("t", 784, 10, "mlp", (128,)), plan_of(batch_size=5000), 5000)
    assert is_gain(Classification("t", 784, 10, "mlp", (128,)), plan_of(batch_size=20), 60, private=True)
    assert not is_gain(Classification("t", 784, 10, "mlp", (128,)), plan_of(batch_size=190), 600, private=True)
    assert not is_gain(Classification("t", 784, 10, "mlp", (500,)), plan_of(batch_size=5), 60, private=True)


# ------------------------------------------------------------ what the app finds in its workbench's place
@pytest.fixture
def ahead():
    task, plan = Classification("t", 6, 3, "mlp", (4,)), plan_of()
    rng = np.random.default_rng(5)
    model = task.initial_arrays(rng)
    silos = [rows_of(rng, count, task, np.float32) for count in (9, 14)]
    asked = [Asked(rows, np.random.default_rng(place)) for place, rows in enumerate(silos)]
    return task, plan, model, silos, train_ahead(task, model, plan, 0.0, asked)


def test_outside_a_simulation_nothing_is_done_ahead(ahead):
    task, *_, done = ahead
    with with_done_ahead(done[0]):
        assert done_ahead() is None
        assert workbench(task) is not done[0]
        with simulated():
            assert workbench(task) is done[0]
            assert workbench(Classification("t", 6, 3, "mlp", (5,))) is not done[0]
    with simulated():
        assert workbench(task) is not done[0]


def test_what_was_asked_for_is_there_already(ahead, monkeypatch):
    _task, plan, model, silos, done = ahead
    monkeypatch.setattr(Workbench, "train", None)
    done[1].load({name: part.copy() for name, part in model.items()})
    assert done[1].train(silos[1], plan, np.random.default_rng(1)) == done[1]._outcome.loss
    assert done[1].difference(model) is done[1]._outcome.update


@pytest.mark.parametrize("other", ["rows", "model", "plan", "rng", "mu", "correction", "again"])
def test_asked_for_anything_else_it_trains_as_ever(ahead, other):
    task, plan, model, silos, done = ahead
    real, bench = Workbench(task), done[1]
    start = {name: part + 1 for name, part in model.items()} if other == "model" else model
    correction = {name: np.ones_like(part) for name, part in model.items()} if other == "correction" else None
    rows = Rows(silos[1].x.copy(), silos[1].y) if other == "rows" else silos[1]
    how = plan_of(lr=0.5) if other == "plan" else plan

    def trained(of, again=False):
        of.load(start)
        rng = np.random.default_rng(7 if other == "rng" else 1)
        of.train(rows, how, rng, 0.5 if other == "mu" else 0.0, correction)
        if again:
            of.train(rows, how, rng)
        return of.difference(start)

    found, expected = trained(bench, other == "again"), trained(real, other == "again")
    for name in model:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6)
    if other not in ("rows", "again"):
        assert any(not np.array_equal(found[name], bench._outcome.update[name]) for name in model)
