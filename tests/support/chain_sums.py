"""What the tests of the model chain have in common: sums as honest silos come to them, and the server's steps."""

from __future__ import annotations

from functools import cache

import numpy as np

from quire.clients import contract
from quire.clients.secure.agreement import Agreement, agreement_of
from quire.clients.secure.chain import Known, Path, digest_of
from quire.clients.secure.terms import terms_of
from quire.conf.compose import compose
from quire.conf.schema import Settings
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.shares import add_share, words
from quire.privacy.secagg.masks import Words
from quire.strategies.chosen import algorithm_of
from quire.strategies.distributed import MEMORY, collected
from quire.strategies.rounds import Algorithm, RoundState

SILOS = ["a", "b", "c", "d", "e"]
STEPPING = ["fedavg", "fedavg strategy.server_lr=0.3", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]
SHARED = (
    "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 privacy.records=500 privacy.largest=100 "
    "training.lr=0.1"
)
BY_SILO = "privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5"
KINDS = ["", "aggregation.bits=16 aggregation.rotation=true", SHARED, f"{SHARED} aggregation.rotation=true", BY_SILO]
RUNS = [f"strategy={strategy} {kind}" for strategy in STEPPING for kind in KINDS] + ["strategy=fednova"]


@cache
def settings_of(more: str) -> Settings | None:
    try:
        return compose(f"task=breast_cancer aggregation=secure {more}")
    except SettingsError:  # such as FedProx under the record unit
        return None


ALLOWED = [more for more in RUNS if settings_of(more) is not None]


def model_of(seed: int = 0, kind: type[np.floating] = np.float32) -> dict[str, np.ndarray]:
    source = np.random.default_rng(seed)
    return {"w": source.normal(size=(7, 3)).astype(kind), "a": source.normal(size=5).astype(kind)}


@cache
def run_of(more: str) -> tuple[Agreement, Algorithm]:
    chosen = settings_of(more)
    assert chosen is not None
    agreement = agreement_of(terms_of(chosen, chosen.aggregation, 5), model_of())  # type: ignore[arg-type]
    return agreement, algorithm_of(chosen.strategy)


def honest_sum(agreement: Agreement, seed: int) -> Words:
    """A sum as five silos come to it, with their noise."""
    source = np.random.default_rng(seed)
    total = np.zeros(agreement.point.length, np.uint32)
    for place in range(5):
        coin = Csprng(np.random.default_rng([seed, place]).bytes(32))
        vector = source.normal(size=agreement.layout.size) * source.choice([0.0, 0.01, 0.3, 10.0])
        if isinstance(agreement.point, Encoding):
            if agreement.terms.step < 0:  # the record unit: a sum of at most so many clipped gradients
                vector *= agreement.point.clip * 20 / np.linalg.norm(vector) if vector.any() else 0.0
            total += add_share(agreement.point, words(agreement.point, vector, coin)[0], coin)
            continue
        update = {"w": vector[:21].reshape(7, 3).astype(np.float32), "a": vector[21:].astype(np.float32)}
        update |= {name: np.array(3.0) for name, _ in agreement.terms.metrics if name == contract.STEPS}
        told = {contract.TRAIN_LOSS: 0.5}
        total += agreement.encode(update, int(source.integers(1, 91)), told, coin).words
    return total


def served(agreement: Agreement, algorithm: Algorithm, state: RoundState, total: Words, silos: int = 5) -> RoundState:
    """The next state, by what the server does."""
    found = collected(agreement, total, SILOS[:silos], state.memory)
    moved = algorithm.step(state, found.mean, silos / 5)
    return RoundState(moved.round, moved.model, {**moved.memory, **found.kept})


def told(state: RoundState) -> RoundState:
    return RoundState(state.round, state.model, {name: part for name, part in state.memory.items() if name != MEMORY})


def path_of(more: str, first: int = 1, last: int = 4) -> tuple[Agreement, Algorithm, Path, dict[int, RoundState]]:
    agreement, algorithm = run_of(more)
    states, sums = {1: RoundState(0, model_of())}, {}
    for number in range(1, last):
        sums[number] = honest_sum(agreement, number)
        states[number + 1] = told(served(agreement, algorithm, states[number], sums[number]))
    since = {number: total for number, total in sums.items() if number >= first}
    return agreement, algorithm, Path(first, states[first], last, since), states


def known_of(states: dict[int, RoundState], at: int) -> Known:
    return Known(at, digest_of(states[at]))
