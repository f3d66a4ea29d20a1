"""A secure run that is killed, and goes on with new keys: in a simulation to the same model, bit for bit."""

import json

import pytest
from killing import die, killed, resumed
from secure_runs import BASE, PRIVATE, rounds_of

import quire
from quire.clients import contract
from quire.simulation.grid import InlineGrid
from quire.strategies.folder import RunFolder

FOUR = f"{BASE} aggregation=secure partition.silos=4 strategy.rounds=4 output.progress=none strategy.fraction=0.75"
KINDS = {"plain": FOUR, "private": f"{FOUR} {PRIVATE}"}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """The overrides of a run, and where it is when nothing happened to it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    quire.run(KINDS[request.param], folder)
    return KINDS[request.param], folder


def model_in(folder):
    return json.loads((folder / "run.json").read_text())["model"]


def told(folder):
    """What the journal says of rounds, less times and keys, which are others after a resumption."""
    return [
        {
            key: line[key]
            for key in ("round", "cohort", "replied", "failed", "train", "model", "receipts")
            if key in line
        }
        for line in rounds_of(folder)
    ]


@pytest.mark.parametrize("line", [1, 3, 5])
def test_killed_after_a_line_of_the_journal(whole, line, tmp_path):
    overrides, folder = whole
    written = []

    def arm():
        original = RunFolder._line

        def line_then_die(self, event):
            original(self, event)
            written.append(event)
            if len(written) == line:
                die()

        RunFolder._line = line_then_die

    killed(overrides, tmp_path / "run", arm)
    assert resumed(overrides, tmp_path / "run") == model_in(folder)
    assert told(tmp_path / "run") == told(folder)


SOME = (contract.PAIRS, contract.MASK)  # the others take their turn among the slow ones


@pytest.mark.parametrize(
    "stage",
    [pytest.param(one, marks=() if one in SOME else pytest.mark.slow) for one in contract.SECURE_STAGES],
)
def test_killed_within_a_round_at_any_stage(whole, stage, tmp_path):
    overrides, folder = whole
    place = "1" if stage in (contract.OPEN, contract.PAIRS, contract.READY) else "3"

    def arm():
        deliver, seen = InlineGrid._deliver, []

        def deadly(self, message):
            seen.append((message.metadata.message_type, message.metadata.group_id))
            if seen.count((stage, place)) == 2:  # one silo has answered
                die()
            return deliver(self, message)

        InlineGrid._deliver = deadly

    killed(overrides, tmp_path / "run", arm)
    assert len(rounds_of(tmp_path / "run")) == int(place) - 1
    assert resumed(overrides, tmp_path / "run") == model_in(folder)
    assert told(tmp_path / "run") == told(folder)
