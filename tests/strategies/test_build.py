"""Settings become the strategy they name, with every parameter."""

import dataclasses

import pytest

from quire import FedAdam, FedProx, compose
from quire.conf.schema import GROUPS
from quire.strategies.build import build_strategy
from quire.strategies.strategy import FederatedStrategy


@pytest.mark.parametrize("name", GROUPS["strategy"])
def test_every_strategy_of_the_schema_can_be_built(name):
    strategy = build_strategy(compose(f"strategy={name} strategy.fraction=0.5 strategy.evaluate_every=3 seed=9"))
    assert isinstance(strategy, FederatedStrategy)
    assert type(strategy).__name__.lower() == name
    assert (strategy.fraction_train, strategy.evaluate_every, strategy.min_silos, strategy.seed) == (0.5, 3, 2, 9)


@pytest.mark.parametrize("name", GROUPS["strategy"])
def test_every_parameter_of_an_option_reaches_its_algorithm(name):
    """A setting that is read and then forgotten would be a lie."""
    own = {"mu", "server_lr", "momentum", "beta_1", "beta_2", "tau"}
    fields = [field.name for field in dataclasses.fields(GROUPS["strategy"][name]) if field.name in own]
    assert "server_lr" in fields
    usual = build_strategy(compose(f"strategy={name}")).algorithm
    for field in fields:
        changed = build_strategy(compose(f"strategy={name} strategy.{field}=0.123")).algorithm
        assert changed != usual
        assert 0.123 in dataclasses.astuple(changed)


def test_the_classes_are_the_public_ones():
    assert type(build_strategy(compose("strategy=fedprox"))) is FedProx
    assert type(build_strategy(compose("strategy=fedadam"))) is FedAdam
