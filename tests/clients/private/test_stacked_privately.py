"""DP-SGD of several silos at once, beside each silo by itself: the same draws, the same sums, the same noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.data.silo import Rows
from quire.clients.private import stacked
from quire.clients.private.ahead import train_privately_ahead
from quire.clients.private.plan import Plan
from quire.clients.private.sgd import PrivateBench
from quire.clients.private.stacked import PrivateSilo, train_stacked_privately
from quire.clients.tasks.classification import Classification
from quire.clients.tasks.regression import Regression
from quire.clients.training import Workbench
from quire.conf.schema import SgdTraining
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.randomness import key


def plan_of(steps=3, rate=0.3, noise=1.0, clip=1.0, batch=4, discrete=True):
    return Plan(Unit.RECORD, clip, noise, rate, steps, batch, discrete, 1e-3)


def training_of(**told):
    given = {"name": "sgd", "epochs": 1, "steps": 0, "batch_size": 8, "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0}
    return SgdTraining(**{**given, "local_layers": (), "tuning_epochs": 0, "tuning_lr": None, **told})


def rows_of(rng, count, task, dtype=np.float32):
    x = rng.normal(size=(count, task.features)).astype(dtype)
    return Rows(x, rng.integers(0, task.classes, count) if task.classes else rng.normal(size=count).astype(np.float32))


def source_of(place):
    return Csprng(key(7, "silo", place))


def bench_of(task, dtype=np.float32):
    bench = Workbench(task)
    private = PrivateBench(bench, "auto")
    if dtype == np.float64:  # after it was tried out, on single precision
        bench.model.double()
        bench.parameters = list(bench.model.parameters())
        bench._views = {name: tensor.detach().numpy() for name, tensor in bench.model.state_dict().items()}
    return private


@st.composite
def cases(draw):
    classes, features = draw(st.sampled_from([0, 2, 3])), draw(st.sampled_from([1, 5, 300]))
    hidden = tuple(draw(st.lists(st.sampled_from([2, 9, 70]), max_size=2)))
    if classes:
        task = Classification("t", features, classes, "mlp" if hidden else "logistic", hidden)
    else:
        task = Regression("t", features, "mlp" if hidden else "linear", hidden, 0.0, 1.0)
    training = training_of(
        lr=draw(st.sampled_from([0.001, 0.02])),
        momentum=draw(st.sampled_from([0.0, 0.9])),
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
    )
    discrete = draw(st.booleans())
    plans = [
        plan_of(
            steps=draw(st.integers(1, 4)),
            rate=draw(st.sampled_from([0.02, 0.3, 1.0])),  # at 0.02 most batches are empty
            noise=draw(st.sampled_from([0.0, 1.3])),
            clip=draw(st.sampled_from([1e-3, 0.5, 50.0])),
            discrete=discrete,
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    return task, training, plans, draw(st.sampled_from([0.0, 0.4])), draw(st.integers(0, 2**32))


def compared(case, dtype):
    task, training, plans, mu, seed = case
    rng = np.random.default_rng(seed)
    model = {name: part.astype(dtype) for name, part in task.initial_arrays(rng).items()}
    rows = [rows_of(rng, int(rng.integers(1, 20)), task, dtype) for _ in plans]
    silos = [
        PrivateSilo(own, plan, source_of(place)) for place, (own, plan) in enumerate(zip(rows, plans, strict=True))
    ]
    together = train_stacked_privately(task, model, silos, training, mu)
    bench = bench_of(task, dtype)
    for place, (silo, outcome) in enumerate(zip(silos, together, strict=True)):
        bench.bench.load(model)
        source = source_of(place)
        steps = bench.train(silo.rows, silo.plan, training, source, mu)
        # What comes next out of both sources: they have drawn exactly as much.
        assert source.bytes(16) == silo.source.bytes(16)
        yield outcome, bench.bench.difference(model), steps, model


@settings(max_examples=40, deadline=None)
@given(cases())
def test_in_double_precision_whole_rounds_agree_to_nine_digits(case):
    for outcome, alone, steps, _ in compared(case, np.float64):
        found = outcome.steps
        assert (found.rows, found.clipped, found.broken) == (steps.rows, steps.clipped, steps.broken)
        assert (found.loss, found.signal) == pytest.approx((steps.loss, steps.signal), rel=1e-9, abs=1e-12)
        assert found.noise == pytest.approx(steps.noise, rel=1e-9)
        for name, part in alone.items():
            assert outcome.update[name].dtype == np.float64
            # Sums are stepped with in single precision in both: a digit that is rounded the other way is 6e-8 of it.
            assert np.abs(outcome.update[name] - part).max() <= 1e-9 * max(np.abs(part).max(), 1e-3)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_one_step_in_single_precision_agrees_to_five_digits(case):
    task, training, plans, mu, seed = case
    one = [plan_of(1, plan.rate, plan.noise_multiplier, plan.clip, plan.batch, discrete=False) for plan in plans]
    for outcome, alone, steps, model in compared((task, training, one, mu, seed), np.float32):
        assert outcome.steps.signal == pytest.approx(steps.signal, rel=1e-5, abs=1e-9)
        assert outcome.steps.noise == pytest.approx(steps.noise, rel=1e-9)
        for name, part in alone.items():
            assert np.abs(outcome.update[name] - part).max() <= 1e-5 * max(
                np.abs(part).max(), np.abs(model[name]).max()
            )


@pytest.fixture
def two():
    task = Classification("t", 6, 3, "mlp", (5,))
    rng = np.random.default_rng(4)
    model = task.initial_arrays(rng)
    rows = [rows_of(rng, count, task) for count in (9, 30)]
    return task, model, rows


def test_a_row_adds_at_most_the_clip_whoever_is_beside_it(two):
    """Each silo's sum without noise, of all its rows: no longer than the clip for each of them, and reached."""
    task, model, rows = two
    clip, plan = 1e-3, plan_of(steps=1, rate=1.0, noise=0.0, clip=1e-3)
    silos = [PrivateSilo(own, plan, source_of(place)) for place, own in enumerate(rows)]
    for silo, outcome in zip(silos, train_stacked_privately(task, model, silos, training_of(lr=1.0)), strict=True):
        assert outcome.steps.clipped == len(silo.rows) == outcome.steps.rows
        assert 0 < outcome.steps.signal <= clip * len(silo.rows) * (1 + 1e-9)
    single = PrivateSilo(rows[0].take(np.array([2])), plan, source_of(0))
    beside = PrivateSilo(rows[1], plan, source_of(1))
    outcome = train_stacked_privately(task, model, [single, beside], training_of(lr=1.0))[0]
    assert outcome.steps.signal == pytest.approx(clip, rel=1e-9)


def test_what_pads_a_short_batch_adds_nothing_even_where_it_is_not_finite(two, monkeypatch):
    task, model, rows = two
    plan = plan_of(steps=1, rate=1.0, noise=0.0)
    slopes, seen = stacked.slopes, []

    def poisoned(given_task, out, y):
        losses, pull = slopes(given_task, out, y)
        if pull.shape[:2] == (2, 30):
            seen.append(True)
            losses[0, 9:], pull[0, 9:] = float("nan"), float("inf")  # what lies beside the small silo's nine rows
        return losses, pull

    alone = train_stacked_privately(task, model, [PrivateSilo(rows[0], plan, source_of(0))], training_of())[0]
    monkeypatch.setattr(stacked, "slopes", poisoned)
    silos = [PrivateSilo(own, plan, source_of(place)) for place, own in enumerate(rows)]
    both = train_stacked_privately(task, model, silos, training_of())
    assert seen
    assert (both[0].steps.rows, both[0].steps.broken) == (alone.steps.rows, 0)
    assert both[0].steps.loss == pytest.approx(alone.steps.loss, rel=1e-6)
    assert both[0].steps.signal == pytest.approx(alone.steps.signal, rel=1e-6)
    for name, part in both[0].update.items():
        np.testing.assert_allclose(part, alone.update[name], rtol=0, atol=1e-7)


def test_a_row_without_a_finite_gradient_adds_zero_and_is_counted_and_harms_nobody(two):
    task, model, rows = two
    torn = Rows(rows[0].x.copy(), rows[0].y)
    torn.x[3] = np.inf
    plan = plan_of(steps=2, rate=1.0)
    silos = [PrivateSilo(own, plan, source_of(place)) for place, own in enumerate((torn, rows[1]))]
    together = train_stacked_privately(task, model, silos, training_of())
    bench = bench_of(task)
    for place, (silo, outcome) in enumerate(zip(silos, together, strict=True)):
        bench.bench.load(model)
        steps = bench.train(silo.rows, plan, training_of(), source_of(place))
        assert outcome.steps.broken == steps.broken == (2 if place == 0 else 0)
        assert outcome.steps.loss == pytest.approx(steps.loss, rel=1e-5)
        for name, part in bench.bench.difference(model).items():
            assert np.isfinite(outcome.update[name]).all()
            np.testing.assert_allclose(outcome.update[name], part, rtol=0, atol=1e-4 * np.abs(part).max())


def test_every_silo_has_noise_of_its_own_and_of_the_planned_size(two):
    task, model, rows = two
    plan = plan_of(steps=200, noise=1.5, clip=2.0, rate=0.01)
    silos = [PrivateSilo(own, plan, source_of(place)) for place, own in enumerate(rows)]
    one, other = train_stacked_privately(task, model, silos, training_of(lr=1e-9))
    size = sum(part.size for part in model.values())
    for outcome in (one, other):
        assert outcome.steps.noise == pytest.approx(1.5 * 2.0 * np.sqrt(size), rel=0.05)
    apart = [np.concatenate([part.ravel() for part in outcome.update.values()]) for outcome in (one, other)]
    assert abs(np.corrcoef(*apart)[0, 1]) < 0.5  # 53 numbers: were it shared, it would be 1


def test_a_silo_without_rows_is_refused(two):
    task, model, rows = two
    empty = Rows(rows[0].x[:0], rows[0].y[:0])
    with pytest.raises(ValueError, match="no row"):
        train_stacked_privately(task, model, [PrivateSilo(empty, plan_of(), source_of(0))], training_of())


# ------------------------------------------------------------ what the app finds in its private workbench's place
@pytest.fixture
def ahead(two):
    task, model, rows = two
    silos = [PrivateSilo(own, plan_of(), source_of(place)) for place, own in enumerate(rows)]
    return task, model, rows, train_privately_ahead(task, "auto", model, training_of(), 0.0, silos)


def test_what_was_asked_for_is_there_already_and_the_source_goes_on_behind_it(ahead, monkeypatch):
    task, model, rows, done = ahead
    bench = bench_of(task)
    bench.bench.load(model)
    source, own = source_of(1), source_of(1)
    bench.train(rows[1], plan_of(), training_of(), source)
    monkeypatch.setattr(PrivateBench, "train", None)
    done[1].bench.load({name: part.copy() for name, part in model.items()})
    assert done[1].train(rows[1], plan_of(), training_of(), own) is done[1]._outcome.steps
    assert done[1].bench.difference(model) is done[1]._outcome.update
    assert own.bytes(64) == source.bytes(64)  # nothing that was drawn ahead is drawn again


@pytest.mark.parametrize("other", ["rows", "model", "plan", "training", "mu", "source", "begun", "again"])
def test_asked_for_anything_else_it_trains_as_ever(ahead, other):
    task, model, rows, done = ahead
    start = {name: part + 1 for name, part in model.items()} if other == "model" else model
    own = Rows(rows[1].x.copy(), rows[1].y) if other == "rows" else rows[1]
    plan = plan_of(noise=2.0) if other == "plan" else plan_of()
    training = training_of(lr=0.5) if other == "training" else training_of()

    def trained(bench):
        source = source_of(9 if other == "source" else 1)
        if other == "begun":
            source.bytes(16)
        bench.bench.load(start)
        steps = bench.train(own, plan, training, source, 0.5 if other == "mu" else 0.0)
        if other == "again":
            steps = bench.train(own, plan, training, source)
        return bench.bench.difference(start), steps

    (found, steps), (expected, told) = trained(done[1]), trained(bench_of(task))
    assert (steps.rows, steps.clipped) == (told.rows, told.clipped)
    for name in model:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-3 * np.abs(expected[name]).max())
    if other not in ("rows", "again"):
        assert any(not np.array_equal(found[name], done[1]._outcome.update[name]) for name in model)


def test_a_source_is_taken_over_from_the_same_key_only_and_once():
    one, same, other = source_of(1), source_of(1), source_of(2)
    one.bytes(100)
    assert not other.take_over(one)
    assert other.bytes(32) == source_of(2).bytes(32)
    assert same.take_over(one)
    expected = source_of(1)
    expected.bytes(100)
    assert [same.bytes(10), one.bytes(10)] == [expected.bytes(10), expected.bytes(10)]
    assert not same.take_over(one)
