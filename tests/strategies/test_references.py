"""Whole runs of every strategy against the same algorithm in a few independent lines of float64 numpy.

The reference knows the data, the order of the rows and the papers' pseudo-code; nothing else of Quire.
"""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file

import quire
from quire import compose
from quire.clients.data.simulated import federation
from quire.clients.tasks import task_of
from quire.privacy.randomness import stream

BASE = (
    "partition.silos=4 partition.alpha=0.5 strategy.rounds=4 training.epochs=2 training.batch_size=16 training.lr=0.3"
)


def gradient(w, x, y):
    """Of the mean logistic loss; w holds the weights and, last, the bias."""
    error = (1.0 / (1.0 + np.exp(-(x @ w[:-1] + w[-1]))) - y) / len(y)
    return np.append(error @ x, error.sum())


class Silo:
    def __init__(self, place, data, settings):
        self.name, self.settings = f"hospital-{place + 1}", settings
        self.x, self.y = data.train.x.astype(np.float64), data.train.y.astype(np.float64)
        self.control = np.zeros(31)

    def train(self, w0, number, pull=lambda w, w0: 0.0):
        """Return the new weights and the number of steps."""
        plan, rng, w, v, steps = self.settings.training, stream(1, "batches", number, self.name), w0.copy(), 0.0, 0
        for _ in range(plan.steps or plan.epochs):
            order = rng.permutation(len(self.y))
            for batch in np.split(order, range(plan.batch_size, len(order), plan.batch_size)):
                if plan.steps and steps == plan.steps:
                    break
                v = plan.momentum * v + gradient(w, self.x[batch], self.y[batch]) + pull(w, w0)
                w, steps = w - plan.lr * v, steps + 1
        return w, steps


def fedavg(silos, w, number, memory, chosen, pull=lambda w, w0: 0.0):
    trained = [silo.train(w, number, pull)[0] for silo in silos]
    return w + chosen.server_lr * np.average([new - w for new in trained], axis=0, weights=[len(s.y) for s in silos])


def fedprox(silos, w, number, memory, chosen):
    return fedavg(silos, w, number, memory, chosen, lambda w, w0: chosen.mu * (w - w0))


def fednova(silos, w, number, memory, chosen):
    rho, share = silos[0].settings.training.momentum, np.array([len(s.y) for s in silos]) / sum(len(s.y) for s in silos)
    trained = [silo.train(w, number) for silo in silos]
    # |a_i|: how often each gradient counts in the end, summed over the steps one by one.
    lengths = [sum(sum(rho**k for k in range(tau - step)) for step in range(tau)) for _, tau in trained]
    direction = sum(p * (new - w) / length for p, (new, _), length in zip(share, trained, lengths, strict=True))
    return w + chosen.server_lr * (share @ lengths) * direction


def scaffold(silos, w, number, memory, chosen):
    c, moves, changes = memory.setdefault("c", np.zeros(31)), [], []
    for silo in silos:
        new, tau = silo.train(w, number, lambda _w, _w0, silo=silo: c - silo.control)
        control = silo.control - c + (w - new) / (tau * silo.settings.training.lr)
        moves.append(new - w)
        changes.append(control - silo.control)
        silo.control = control
    memory["c"] = c + np.sum(changes, axis=0) / 4
    return w + chosen.server_lr * np.mean(moves, axis=0)


def qfedavg(silos, w, number, memory, chosen):
    lipschitz, top, bottom = chosen.lipschitz or 1.0 / silos[0].settings.training.lr, 0.0, 0.0
    for silo in silos:
        loss = np.mean(np.log1p(np.exp(-(2 * silo.y - 1) * (silo.x @ w[:-1] + w[-1]))))
        delta_w = lipschitz * (w - silo.train(w, number)[0])
        top = top + len(silo.y) * loss**chosen.q * delta_w
        bottom += len(silo.y) * (chosen.q * loss ** (chosen.q - 1) * (delta_w @ delta_w) + lipschitz * loss**chosen.q)
    return w - chosen.server_lr * top / bottom


CASES = {
    "fedavg": (fedavg, ""),
    "fedavg, half a step": (fedavg, "strategy.server_lr=0.5"),
    "fedprox": (fedprox, "strategy=fedprox strategy.mu=0.7"),
    "fednova": (fednova, "strategy=fednova"),
    "fednova with momentum": (fednova, "strategy=fednova training.momentum=0.8 training.lr=0.05"),
    "fednova, 13 steps": (fednova, "strategy=fednova training.steps=13 training.epochs=1"),
    "fednova with momentum, 13 steps": (
        fednova,
        "strategy=fednova training.momentum=0.8 training.steps=13 training.epochs=1 training.lr=0.05",
    ),
    "fedavg, 13 steps": (fedavg, "training.steps=13 training.epochs=1 strategy.server_lr=0.7"),
    "scaffold, 13 steps": (scaffold, "strategy=scaffold training.steps=13 training.epochs=1"),
    "scaffold": (scaffold, "strategy=scaffold"),
    "qfedavg": (qfedavg, "strategy=qfedavg strategy.q=1.5"),
    "qfedavg with an L": (qfedavg, "strategy=qfedavg strategy.q=0.5 strategy.lipschitz=0.7 strategy.server_lr=0.9"),
    "scaffold, half a step": (scaffold, "strategy=scaffold strategy.server_lr=0.5"),
}


def with_changes(changes):
    """Return the overrides of BASE, those that a case changes replaced."""
    return " ".join({item.split("=")[0]: item for item in f"{BASE} {changes}".split()}.values())


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_papers_algorithm(case, tmp_path):
    algorithm, changes = CASES[case]
    overrides = with_changes(changes)
    settings = compose(overrides)
    quire.run(overrides, tmp_path)
    silos = [Silo(place, data, settings) for place, data in enumerate(federation(settings))]
    first = task_of(settings).initial_arrays(stream(1, "model"))
    w, memory = np.append(first["0.weight"].ravel(), first["0.bias"]).astype(np.float64), {}
    for number in range(1, 5):
        w = algorithm(silos, w, number, memory, settings.strategy)
    model = load_file(tmp_path / "model.safetensors")
    ours = np.append(model["0.weight"].ravel(), model["0.bias"])
    np.testing.assert_allclose(ours, w, rtol=1e-4, atol=1e-5)


def test_the_strategies_really_differ(tmp_path):
    models = {
        case: quire.run(with_changes(changes), tmp_path / str(place)).model
        for place, (case, (_, changes)) in enumerate(CASES.items())
        if "training.lr" not in changes
    }
    assert len(set(models.values())) == len(models)


def test_where_all_silos_take_as_many_steps_fednova_is_fedavg(tmp_path):
    changes = "training.steps=6 training.epochs=1"
    models = []
    for name in ("fedavg", "fednova"):
        quire.run(with_changes(f"{changes} strategy={name}"), tmp_path / name)
        models.append(load_file(tmp_path / name / "model.safetensors"))
    for name, part in models[0].items():
        np.testing.assert_allclose(models[1][name], part, rtol=1e-5, atol=1e-6)


def test_scaffold_sums_to_zero_drift_when_all_take_part(tmp_path):
    """With every silo in every round, the server's variate is the mean of the silos' own, as the paper requires."""
    from quire.clients import client_app
    from quire.clients.arrays import decode

    kept = {}
    original = client_app.train

    def spy(message, context):
        reply = original(message, context)
        kept[context.node_id] = decode(context.state["memory"])
        return reply

    from flwr.app import Context, RecordDict
    from flwr.clientapp import ClientApp

    from quire import Scaffold
    from quire.clients.arrays import encode
    from quire.simulation.grid import InlineGrid, server_identity

    app = ClientApp()
    app.train()(spy)
    overrides = "strategy=scaffold partition=iid partition.silos=3"
    contexts = {
        10 + place: Context(
            7, 10 + place, {"partition-id": place, "num-partitions": 3}, RecordDict(), {"overrides": overrides}
        )
        for place in range(3)
    }
    strategy = Scaffold(min_silos=3, fraction_evaluate=0.0)
    with server_identity(7):
        first = encode(task_of(compose(overrides)).initial_arrays(stream(1, "model")))
        strategy.start(InlineGrid(app, contexts), first, num_rounds=3)
    server = strategy._state.memory["control/0.weight"]
    assert np.abs(server).max() > 1e-3
    np.testing.assert_allclose(server, np.mean([memory["0.weight"] for memory in kept.values()], axis=0), atol=1e-6)


def test_silos_of_unlike_size_take_unlike_numbers_of_steps():
    """Otherwise the FedNova case above would prove nothing."""
    silos = federation(compose(BASE))
    assert len({math.ceil(len(silo.train) / 16) for silo in silos}) > 1
