"""A run under distributed noise that is killed, and goes on: to the same model, noise probes and card."""

import json

import pytest
from killing import die, killed, resumed
from shared_runs import UNITS, card_of, rounds_of

import quire
from quire.clients import contract
from quire.simulation.grid import InlineGrid
from quire.simulation.verify import verify_run

KINDS = {unit: f"{text} strategy.rounds=3 output.progress=none" for unit, text in UNITS.items()}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """The overrides of a run, and where it is when nothing happened to it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    quire.run(KINDS[request.param], folder)
    return KINDS[request.param], folder


@pytest.mark.parametrize("stage", [contract.SHARES, contract.MASK, contract.UNMASK])
def test_killed_within_a_round(whole, stage, tmp_path):
    overrides, folder = whole

    def arm():
        deliver, seen = InlineGrid._deliver, []

        def deadly(self, message):
            seen.append((message.metadata.message_type, message.metadata.group_id))
            if seen.count((stage, "2")) == 2:  # one silo has answered
                die()
            return deliver(self, message)

        InlineGrid._deliver = deadly

    killed(overrides, tmp_path / "run", arm)
    assert len(rounds_of(tmp_path / "run")) == 1
    assert resumed(overrides, tmp_path / "run") == json.loads((folder / "run.json").read_text())["model"]
    mine, theirs = ([line["released"] for line in rounds_of(place)] for place in (tmp_path / "run", folder))
    assert mine == theirs
    assert card_of(tmp_path / "run") == card_of(folder)
    assert verify_run(tmp_path / "run").wrong == []
