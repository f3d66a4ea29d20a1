"""Policies and settings that go together, to be changed one thing at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quire.clients.policy.case import State
from quire.clients.policy.model import Policy, Population
from quire.conf.compose import compose
from quire.privacy.dp.spending import Spending

RECORD = "task=breast_cancer privacy=record privacy.epsilon=2 privacy.delta=1e-5 strategy.min_silos=4"


class Asked:
    """A decision's three arguments: accepted as they are."""

    def __init__(self) -> None:
        self.policy = Policy(
            modes=frozenset({"record", "silo"}),
            aggregation=frozenset({"plain"}),
            code=frozenset({"c" * 64}),
            population=Population("heart-2020", 400),
            epsilon=4.0,
            delta=1e-5,
            trusts_server=True,
            lines=(("epsilon", 12),),
        )
        self.overrides = RECORD
        self.state = State(stage="train", code="c" * 64, spent=Spending.zero())

    def args(self):
        return self.policy, compose(self.overrides), self.state

    def limit(self, **changes):
        self.policy = replace(self.policy, **changes)

    def ask(self, more: str):
        keys = {item.split("=")[0] for item in more.split()}
        kept = [item for item in self.overrides.split() if item.split("=")[0] not in keys]
        self.overrides = " ".join([*kept, more])

    def none(self):
        self.overrides = "task=breast_cancer strategy.min_silos=4"

    def know(self, **changes):
        self.state = replace(self.state, **changes)


@pytest.fixture
def asked() -> Asked:
    return Asked()
