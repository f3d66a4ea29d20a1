"""Which layers stay in a silo, and that neither the model that travels has them nor a server can overwrite them."""

import numpy as np
import pytest

from quire.clients.local import train_locally
from quire.clients.tasks import task_of
from quire.clients.tasks.local_layers import first_model, joined, local_names
from quire.clients.training import Workbench, WrongModel
from quire.clients.work import train_update
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.randomness import stream

MLP = "task=digits task.model=mlp task.hidden=[4]"


@pytest.mark.parametrize(
    ("model", "words", "names"),
    [
        ("task.model=mlp task.hidden=[4,5]", ("head",), {"4.weight", "4.bias"}),
        ("task.model=mlp task.hidden=[4,5]", ("0", "4.bias"), {"0.weight", "0.bias", "4.bias"}),
        ("task.model=cnn task.hidden=[]", ("norm",), {"2.weight", "2.bias", "6.weight", "6.bias"}),
        ("task.model=cnn task.hidden=[]", ("head", "2"), {"2.weight", "2.bias", "10.weight", "10.bias"}),
        ("task.model=mlp task.hidden=[4]", (), set()),
    ],
)  # fmt: skip
def test_words_name_parameters(model, words, names):
    assert local_names(task_of(compose(f"task=digits {model}")), words) == names


@pytest.mark.parametrize(
    ("words", "said"),
    [(("1",), "names '1'"), (("0.weights",), "names '0.weights'"), (("0", "head"), "nothing to learn together")],
)
def test_words_that_name_nothing_or_everything_are_refused(words, said):
    with pytest.raises(SettingsError, match=said):
        local_names(task_of(compose(MLP)), words)


def test_what_travels_lacks_them_and_a_silo_adds_its_own():
    settings = compose(f"{MLP} training.local_layers=[head]")
    task = task_of(settings)
    wire, whole = first_model(task, settings), task.initial_arrays(stream(settings.seed, "model"))
    assert set(whole) - set(wire) == {"2.weight", "2.bias"}
    before = joined(task, settings, wire, {})
    assert all(np.array_equal(before[name], whole[name]) for name in whole)
    own = {"2.weight": whole["2.weight"] + 1, "2.bias": whole["2.bias"] + 1}
    after = joined(task, settings, wire, own)
    assert all(after[name] is own[name] for name in own)
    half = joined(task, settings, wire, {"2.bias": own["2.bias"], "unsent": own["2.bias"]})
    assert set(half) == set(whole)
    assert half["2.bias"] is own["2.bias"]
    assert np.array_equal(half["2.weight"], whole["2.weight"])
    with pytest.raises(ValueError, match="stay in the silos"):
        joined(task, settings, whole, own)


def test_the_first_model_is_drawn_anew_only_for_what_a_silo_has_not_kept(monkeypatch):
    settings = compose(f"{MLP} training.local_layers=[head]")
    task = task_of(settings)
    wire, whole = first_model(task, settings), task.initial_arrays(stream(settings.seed, "model"))
    own, draws = {name: whole[name] for name in ("2.weight", "2.bias")}, []
    monkeypatch.setattr(type(task), "initial_arrays", lambda self, rng: draws.append(rng) or whole)
    assert set(joined(task, settings, wire, own)) == set(whole)
    assert not draws
    joined(task, settings, wire, {"2.bias": own["2.bias"]})
    assert len(draws) == 1


def test_a_server_that_sends_them_is_refused_by_the_silo():
    settings = compose(f"{MLP} training.local_layers=[head]")
    whole = task_of(settings).initial_arrays(stream(settings.seed, "model"))
    from quire.clients.entropy import Seeded

    with pytest.raises(WrongModel, match="stay in the silos"):
        train_update(settings, 0, "site-1", whole, {}, {}, 1, Seeded(1))


@pytest.mark.parametrize("strategy", ["fedavg", "fednova", "qfedavg"])
def test_training_sends_the_others_and_keeps_these(strategy):
    from quire.clients.data.silo import Rows

    settings = compose(f"{MLP} training.local_layers=[head] strategy={strategy} training.epochs=1")
    task = task_of(settings)
    whole, rng = task.initial_arrays(stream(1, "model")), np.random.default_rng(0)
    rows = Rows(rng.random((20, 64), np.float32), rng.integers(0, 10, 20))
    bench = Workbench(task)
    local = local_names(task, ("head",))
    trained = train_locally(bench, rows, settings, np.random.default_rng(1), whole, {}, {}, local)
    assert {name for name in trained.update if "/" not in name} == {"0.weight", "0.bias"}
    assert set(trained.memory) == local
    assert all(not np.array_equal(trained.memory[name], whole[name]) for name in local)
    if strategy == "fedavg":
        plainly = train_locally(bench, rows, settings, np.random.default_rng(1), whole, {}, {})
        assert all(np.array_equal(plainly.update[name], trained.update[name]) for name in trained.update)
        assert plainly.memory == {}
