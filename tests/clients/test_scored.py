"""Scoring several silos' rows in one pass, beside each silo scoring its own."""

import dataclasses

import numpy as np
import pytest
import torch

from quire.clients import scored
from quire.clients.data.silo import Rows
from quire.clients.scored import is_scorable, score_together
from quire.clients.simulation import simulated, with_done_ahead
from quire.clients.tasks.classification import Classification
from quire.clients.tasks.models import Model
from quire.clients.tasks.regression import Regression
from quire.clients.training import Workbench, WrongModel, workbench
from quire.conf.compose import compose

TASKS = [
    Classification("t", 20, 2, "logistic", ()),
    Classification("t", 20, 5, "mlp", (7,)),
    Classification("t", 64, 10, "cnn", (8,), (1, 8, 8)),
    Regression("t", 9, "linear", (), -3.0, 5.0),
]


def rows_of(rng, count, task):
    x = rng.normal(size=(count, task.features)).astype(np.float32)
    y = rng.integers(0, task.classes, count) if task.classes else rng.normal(size=count).astype(np.float32)
    return Rows(x, y)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.model)
@pytest.mark.parametrize("most", [4, 2048])
def test_every_silo_gets_the_scores_that_it_would_work_out(task, most, monkeypatch):
    monkeypatch.setattr(scored, "_most", lambda task: most)  # 4: silos then lie in more than one block
    rng = np.random.default_rng(1)
    model = task.initial_arrays(rng)
    silos = [rows_of(rng, count, task) for count in (5, 1, 12)]
    real = Workbench(task)
    real.load(model)
    for rows, bench in zip(silos, score_together(task, model, silos), strict=True):
        bench.load({name: part.copy() for name, part in model.items()})
        expected, found = real.score(rows), bench.score(rows)
        assert list(found) == list(expected)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(bench.logits(rows), real.logits(rows), rtol=0, atol=1e-5)


def test_asked_about_another_model_or_other_rows_it_passes_them():
    task, rng = TASKS[1], np.random.default_rng(2)
    model = task.initial_arrays(rng)
    silos = [rows_of(rng, count, task) for count in (5, 8)]
    bench = score_together(task, model, silos)[0]
    real = Workbench(task)
    other = {name: part * 2 for name, part in model.items()}
    for arrays, rows in ((other, silos[0]), (model, silos[1]), (model, Rows(silos[0].x * 2, silos[0].y))):
        bench.load(arrays)
        real.load(arrays)
        np.testing.assert_array_equal(bench.logits(rows), real.logits(rows))
    assert not np.array_equal(bench.logits(silos[1]), bench._outputs)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.model)
def test_a_copy_that_is_tuned_is_scored_as_it_then_is(task):
    """A silo asks the bench that it scored the model with, before its app lets go of it."""
    rng = np.random.default_rng(3)
    model = task.initial_arrays(rng)
    silos = [rows_of(rng, count, task) for count in (5, 8)]
    plan = dataclasses.replace(compose("task=digits").training, batch_size=4)
    bench, real = score_together(task, model, silos)[0], Workbench(task)
    before = bench.load(model) or bench.score(silos[0])
    for one in (bench, real):
        one.load(model)
        assert one.train(silos[1], plan, np.random.default_rng(4)) > 0.0
    assert bench.score(silos[0]) == real.score(silos[0]) != before
    for name, part in real.difference(model).items():
        np.testing.assert_array_equal(bench.difference(model)[name], part)
        np.testing.assert_array_equal(bench.arrays()[name], real.arrays()[name])
    bench.load(model)
    assert bench.score(silos[0]) == before


def test_what_is_no_model_of_the_task_is_refused():
    task, rng = TASKS[1], np.random.default_rng(2)
    model = task.initial_arrays(rng)
    silos = [rows_of(rng, count, task) for count in (5, 8)]
    torn = {name: part[..., :1] for name, part in model.items()}
    with pytest.raises(WrongModel):
        score_together(task, torn, silos)
    bench = score_together(task, model, silos)[0]
    with pytest.raises(WrongModel):
        bench.load(torn)


def test_only_in_a_simulation_and_for_its_own_task_is_it_there():
    task, rng = TASKS[0], np.random.default_rng(2)
    bench = score_together(task, task.initial_arrays(rng), [rows_of(rng, 3, task)])[0]
    with with_done_ahead(bench):
        assert workbench(task) is not bench
        with simulated():
            assert workbench(task) is bench
            assert workbench(TASKS[1]) is not bench


def test_rows_that_a_model_of_ones_own_could_mix_and_many_rows_are_left_to_the_silo():
    assert is_scorable(TASKS[2], 700)
    assert not is_scorable(TASKS[2], 800)  # a cnn: what lies between its layers would leave the cache
    assert is_scorable(TASKS[1], 2048)
    assert not is_scorable(TASKS[1], 2049)
    assert not is_scorable(TASKS[1], 0)
    own = Model("own", lambda inputs, outputs, image: torch.nn.Linear(inputs, outputs))
    assert not is_scorable(Classification("t", 20, 5, "plugin", (), None, own), 5)
