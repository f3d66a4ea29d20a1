"""Local training against torch's own optimiser and against the proximal term written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quire.clients.data.silo import Rows
from quire.clients.tasks import Classification
from quire.clients.training import Workbench, WrongModel, _batches, gradients_of, steps
from quire.conf.schema import SgdTraining
from quire.privacy.randomness import stream

TASKS = [
    Classification("binary", features=5, classes=2, model="logistic", hidden=()),
    Classification("deep", features=5, classes=3, model="mlp", hidden=(7, 4)),
]


PLAIN = {"name": "sgd", "epochs": 2, "steps": 0, "batch_size": 4, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def plan(**changes):
    return SgdTraining(**{**PLAIN, "local_layers": (), "tuning_epochs": 0, "tuning_lr": None, **changes})


def rows_of(task, n=18):
    rng = stream(3, "rows", task.name)
    return Rows(rng.standard_normal((n, task.features), dtype=np.float32), rng.integers(0, task.classes, n))


def reference(task, first, rows, how, mu):
    """The same training by torch.optim.SGD and autograd, with the proximal term inside the loss."""
    model = task.build_model()
    model.load_state_dict({name: torch.tensor(array) for name, array in first.items()})
    anchors = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay)
    rng = stream(1, "batches")
    for _ in range(how.epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), how.batch_size):
            batch = order[start : start + how.batch_size]
            loss = task.loss(model(torch.tensor(rows.x[batch])), torch.tensor(rows.y[batch]))
            for parameter, anchor in zip(model.parameters(), anchors, strict=True):
                loss = loss + mu / 2 * ((parameter - anchor) ** 2).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("mu", [0.0, 1.5])
def test_training_is_what_torch_does(task, momentum, weight_decay, mu):
    how = plan(momentum=momentum, weight_decay=weight_decay)
    rows, bench, first = rows_of(task), Workbench(task), task.initial_arrays(stream(1, "model"))
    bench.load(first)
    bench.train(rows, how, stream(1, "batches"), mu)
    for name, expected in reference(task, first, rows, how, mu).items():
        np.testing.assert_allclose(bench.arrays()[name], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_as_many_steps_as_epochs_have_are_those_epochs(task):
    rows, first = rows_of(task), task.initial_arrays(stream(1, "model"))  # 18 rows: batches of 4, 4, 4, 4, 2
    models, losses = [], []
    for how in (plan(momentum=0.9), plan(momentum=0.9, epochs=7, steps=10)):
        bench = Workbench(task)
        bench.load(first)
        losses.append(bench.train(rows, how, stream(1, "batches")))
        models.append(bench.arrays())
    assert losses[0] == losses[1]
    assert all((models[0][name] == models[1][name]).all() for name in first)


@given(rows=st.integers(1, 23), batch=st.integers(1, 9), count=st.integers(1, 40))
def test_steps_are_counted_and_every_epoch_sees_every_row_once(rows, batch, count):
    x, y = torch.arange(rows, dtype=torch.float32)[:, None], torch.zeros(rows, dtype=torch.int64)
    how = plan(steps=count, batch_size=batch)
    batches = list(_batches(x, y, how, stream(1, "batches")))
    assert len(batches) == count == steps(how, rows)
    seen = np.concatenate([part.numpy()[:, 0] for part, _ in batches])
    for start in range(0, len(seen), rows):
        epoch = seen[start : start + rows]
        assert len(set(epoch)) == len(epoch)
    assert all(len(y) == len(part) <= batch for part, y in batches)


def test_the_loss_of_a_broken_off_epoch_is_the_mean_over_the_rows_seen():
    task, rows = TASKS[0], rows_of(TASKS[0])
    bench = Workbench(task)
    bench.load(task.initial_arrays(stream(1, "model")))
    loss = bench.train(rows, plan(lr=1e-12, steps=2, batch_size=5), stream(1, "batches"))
    seen = stream(1, "batches").permutation(len(rows))[:10]
    assert loss == pytest.approx(bench.score(rows.take(seen))["loss"], rel=1e-5)


def test_the_proximal_term_holds_the_model_back():
    task, first = TASKS[1], TASKS[1].initial_arrays(stream(1, "model"))
    distances = []
    for mu in (0.0, 1.0, 5.0):
        bench = Workbench(task)
        bench.load(first)
        bench.train(rows_of(task), plan(epochs=20), stream(1, "batches"), mu)
        distances.append(sum(float((part**2).sum()) for part in bench.difference(first).values()))
    assert distances[0] > 1.5 * distances[1] > 1.5 * distances[2] > 0


def test_nothing_of_one_training_is_left_for_the_next():
    task, how = TASKS[1], plan(momentum=0.9)
    rows, first = rows_of(task), task.initial_arrays(stream(1, "model"))
    fresh, used = Workbench(task), Workbench(task)
    used.load({name: array + 1 for name, array in first.items()})
    used.train(rows, how, stream(2, "other"), mu=2.0)
    for bench in (fresh, used):
        bench.load(first)
        bench.train(rows, how, stream(1, "batches"))
    assert all((fresh.arrays()[name] == used.arrays()[name]).all() for name in first)


def test_the_loss_falls_and_is_the_mean_over_rows():
    task, rows = TASKS[0], rows_of(TASKS[0])
    bench = Workbench(task)
    bench.load(task.initial_arrays(stream(1, "model")))
    standing_still = bench.train(rows, plan(lr=1e-12, epochs=3), stream(1, "batches"))
    assert standing_still == pytest.approx(bench.score(rows)["loss"], rel=1e-5)
    assert bench.train(rows, plan(epochs=30), stream(1, "batches")) < standing_still


def test_a_model_of_another_form_is_refused():
    bench, first = Workbench(TASKS[1]), TASKS[1].initial_arrays(stream(1, "model"))
    name = next(iter(first))
    for wrong in (
        {**first, name: first[name][:-1]},
        {**first, name: first[name].astype(np.float64)},
        {key: array for key, array in first.items() if key != name},
        {**first, "extra": first[name]},
    ):
        with pytest.raises(WrongModel):
            bench.load(wrong)


def test_metrics_on_rows_worked_out_by_hand():
    task = TASKS[0]
    logits, y = np.array([[2.0], [-1.0], [0.5], [-3.0]], np.float32), np.array([1, 1, 0, 0])
    scores = task.metrics(logits, y)
    assert scores["accuracy"] == 0.5
    assert scores["balanced_accuracy"] == 0.5
    assert scores["auc"] == 0.75
    losses = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(1.0)), np.log1p(np.exp(0.5)), np.log1p(np.exp(-3.0))]
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert "auc" not in task.metrics(logits, np.ones(4, np.int64))


def test_balanced_accuracy_is_scikit_learns():
    from sklearn.metrics import balanced_accuracy_score

    from quire.clients.tasks.classification import label_metrics

    rng = stream(1, "labels")
    predicted, y = rng.integers(0, 4, 300), rng.integers(0, 3, 300)
    assert label_metrics(predicted, y)["balanced_accuracy"] == pytest.approx(
        np.mean([(predicted[y == label] == label).mean() for label in range(3)])
    )
    predicted = rng.integers(0, 3, 300)
    assert label_metrics(predicted, y)["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))


def test_the_first_model_ignores_torchs_global_generator():
    task = TASKS[1]
    torch.manual_seed(1)
    first = task.initial_arrays(stream(5, "model"))
    torch.manual_seed(2)
    torch.rand(7)
    again = task.initial_arrays(stream(5, "model"))
    assert all((first[name] == again[name]).all() for name in first)
    assert all(np.abs(first[name]).max() > 0 for name in first)
    assert list(first) == list(task.build_model().state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_gradients_are_autograds_own_to_the_bit(task, dtype):
    bench, rows = Workbench(task), rows_of(task)
    bench.load(task.initial_arrays(stream(1, "model")))
    model = bench.model.to(dtype)
    leaves = tuple(model.parameters())
    loss = lambda: task.loss(model(torch.tensor(rows.x, dtype=dtype)), torch.tensor(rows.y))  # noqa: E731
    for ours, theirs in zip(gradients_of(loss(), leaves), torch.autograd.grad(loss(), leaves), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)


def test_a_parameter_that_the_loss_does_not_depend_on_is_an_error_as_in_autograd():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="not have been used"):
        gradients_of(used.sum(), (used, unused))
