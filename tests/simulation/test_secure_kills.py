"""Real silos with stores, and their server, killed with SIGKILL at every stage: the exact sum, or a clean end.

And never two sums of one round: whatever was killed and went on, the shares that left the silos open one attempt.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from secure_runs import apart, bound_of, rounds_of
from secure_silos import (
    FIRST,
    Deployment,
    Killed,
    die,
    first_model,
    left_silos,
    overrides_of,
    plain_mean,
    serve,
    warm,
    write_silos,
)

from quire.clients import contract
from quire.errors import RunFailed
from quire.privacy.secagg.messages import Masked, Unmasked
from quire.strategies.folder import read_about

SILOS, THRESHOLD = 3, 2
SESSION = contract.SECURE_STAGES[:3]


class Consortium:
    """Silos on the disk, and runs with them."""

    def __init__(self, folder: Path) -> None:
        warm(overrides_of(SILOS, 1))
        self.folder, self.roster = folder, folder / "silos" / "roster.json"
        self.files = write_silos(folder / "silos", SILOS)
        self.left = folder / "left"

    def grid(self, run: int, overrides: str) -> Deployment:
        return Deployment(self.files, run, overrides, self.left)

    def serve(self, grid: Deployment, run: int, overrides: str, resume: bool = False) -> list:
        return serve(grid, run, self.folder / "run", self.roster, overrides, resume)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


def check_sums(seen: Sequence, overrides: str, model: dict[str, np.ndarray] | None = None) -> None:
    """Every round moved the model by the plain mean of what its survivors trained."""
    model = model or first_model(overrides)
    for report, state in seen:
        assert len(report.replied) >= THRESHOLD
        rows = 120 * len(report.replied)  # fewer than they have: a laxer bound
        expected = plain_mean(overrides, model, report.replied, state.round)
        assert apart(expected, state.model) <= bound_of(overrides, rows, SILOS) + 1e-6
        model = state.model


def check_openings(left: Path) -> None:
    """No two attempts of a round of a run were opened, and nobody gave shares or a vector twice."""
    openers: Counter[tuple[int, str, bytes]] = Counter()
    gave: Counter[tuple[int, str, str]] = Counter()
    for line in left_silos(left, contract.UNMASK):
        if line["data"][3:4] and (message := _read(Unmasked, line["data"])) is not None:
            openers[line["run"], line["round"], message.context] += 1
            gave[line["run"], line["round"], line["silo"]] += 1
    assert not gave or max(gave.values()) == 1
    opened = Counter((run, number) for (run, number, _), count in openers.items() if count >= THRESHOLD)
    assert not opened or max(opened.values()) == 1
    vectors = [
        (line["silo"], message.context)
        for line in left_silos(left, contract.MASK)
        if (message := _read(Masked, line["data"])) is not None
    ]
    assert len(set(vectors)) == len(vectors)


def _read(kind, data):
    """Read a message of this kind; None where a refusal is in its place."""
    try:
        return kind.decode(data)
    except ValueError:
        return None


# ----------------------------------------------------------------------------------------------------- silos
def killing(consortium: Consortium, places: Sequence[tuple[str, int | str]]) -> None:
    """Kill one silo in each round; all go on with what is in their stores."""
    overrides = overrides_of(SILOS, len(places) + 1, "aggregation.rekey_every=1")
    grid = consortium.grid(7, overrides)
    for number, (stage, moment) in enumerate(places, start=1):
        grid.kills[stage, str(number), f"hospital-{number % SILOS + 1}"] = Killed(moment)
    seen = consortium.serve(grid, 7, overrides)
    assert len(seen) == len(places) + 1
    assert len(grid.died) == len(places)
    for (stage, _), (report, _) in zip(places, seen, strict=False):
        killed = f"hospital-{report.round % SILOS + 1}"
        assert (killed in report.replied) == (stage in (contract.CONFIRM, contract.UNMASK))
        assert (killed, stage.split(".")[1], "node_gone") in {(f.silo, f.stage, f.code) for f in report.failed}
    assert len(seen[-1][0].replied) == SILOS  # all are back
    check_sums(seen, overrides)
    check_openings(consortium.left)


@pytest.mark.slow
def test_a_silo_is_killed_while_it_writes_and_before_it_sends(consortium: Consortium) -> None:
    killing(consortium, [(contract.MASK, 3), (contract.UNMASK, "reply")])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_silo_is_killed_at_every_stage(consortium: Consortium) -> None:
    places = list(itertools.product(contract.SECURE_STAGES, (1, 2, 4, 6, "reply")))
    killing(consortium, [*places, (contract.SHARES, 9), (contract.SHARES, 12)])


@pytest.mark.parametrize(
    "moment", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(5, marks=pytest.mark.slow)]
)
def test_two_silos_are_killed_and_the_round_is_tried_again(consortium: Consortium, moment: int | str) -> None:
    overrides = overrides_of(SILOS, 1)
    grid = consortium.grid(7, overrides)
    for silo in ("hospital-1", "hospital-3"):
        grid.kills[contract.MASK, "1", silo] = Killed(moment)
    seen = consortium.serve(grid, 7, overrides)
    ((report, _),) = seen
    assert [attempt["error"] for attempt in report.secure["attempts"]] == ["TooFewSurvivors", None]
    check_sums(seen, overrides)
    check_openings(consortium.left)


def test_shares_that_were_written_down_and_not_sent_are_sent_when_asked_for_again(consortium: Consortium) -> None:
    """Killed between the store and the reply, two of three: without their shares the sum would never open."""
    overrides = overrides_of(SILOS, 1)
    grid = consortium.grid(7, overrides)
    for silo in ("hospital-1", "hospital-3"):
        grid.kills[contract.UNMASK, "1", silo] = Killed("reply")
    seen = consortium.serve(grid, 7, overrides)
    assert len(grid.died) == 2
    ((report, _),) = seen
    assert [attempt["error"] for attempt in report.secure["attempts"]] == [None]
    assert len(report.replied) == SILOS
    check_sums(seen, overrides)
    check_openings(consortium.left)


# -------------------------------------------------------------------------------------------------- the server
def serve_and_die(consortium: Consortium, overrides: str, stage: str, number: int, answered: int) -> None:
    """Be a server, in a process of its own, that is killed once so many silos have answered at a stage."""
    child = os.fork()
    if child == 0:
        try:
            grid, count = consortium.grid(7, overrides), [0]

            def before(message: Message) -> None:
                about = message.metadata
                if (about.message_type, about.group_id) == (stage, str(number)):
                    count[0] += 1
                    if count[0] > answered:
                        die()

            grid.before = before
            consortium.serve(grid, 7, overrides)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def check_after_the_server_died(consortium: Consortium, stage: str, answered: int) -> None:
    overrides, number = overrides_of(SILOS, 2), 1 if stage in SESSION else 2
    serve_and_die(consortium, overrides, stage, number, answered)
    assert read_about(consortium.folder / "run")["status"] == "running"
    assert len(rounds_of(consortium.folder / "run")) == number - 1
    # A server that goes on under the number of the same run, as no honest one can: silos know the round.
    # Too few are left who have not given their shares; or who have begun round 2, whose model it tells without the sum
    # of round 1, so that those who know that round's model cannot follow.
    if (stage, answered) in ((contract.UNMASK, 2), (contract.SHARES, 0), (contract.SHARES, 1)):
        with pytest.raises(RunFailed, match="Round 2 failed: secure aggregation came to nothing in 3 attempts"):
            consortium.serve(consortium.grid(7, overrides), 7, overrides, resume=True)
        # As Flower does: another run, with charges of its own, goes on from the checkpoint.
        seen = consortium.serve(consortium.grid(8, overrides), 8, overrides, resume=True)
    else:
        seen = consortium.serve(consortium.grid(7, overrides), 7, overrides, resume=True)
    assert [state.round for _, state in seen] == list(range(number, 3))
    first = None if number == 1 else _model_after_round_one(overrides)
    check_sums(seen, overrides, first)
    check_openings(consortium.left)


def _model_after_round_one(overrides: str) -> dict[str, np.ndarray]:
    model = first_model(overrides)
    names = [f"hospital-{place + 1}" for place in range(SILOS)]
    expected = plain_mean(overrides, model, names, 1)
    return {name: expected[name].astype(model[name].dtype) for name in model}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("answered", [0, 1, 2])
@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_the_server_is_killed_at_every_stage(consortium: Consortium, stage: str, answered: int) -> None:
    check_after_the_server_died(consortium, stage, answered)


# ----------------------------------------------------------------------------------------------------- torch
@pytest.mark.slow
def test_no_stage_but_training_imports_torch(consortium: Consortium) -> None:
    """Each message is answered by a process that forgets all of Quire, and that only training gives torch to."""
    import sys

    overrides = overrides_of(SILOS, 1)
    grid = consortium.grid(7, overrides)
    deliver = Deployment._live

    def without(self, message, silo, kill, read, write):
        import secure_silos

        if silo == "hospital-2" and message.metadata.message_type != contract.SHARES:
            for name in list(sys.modules):
                if name.split(".")[0] in ("quire", "torch", "opacus"):
                    del sys.modules[name]
            sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it raises
            import quire.clients.client_app

            secure_silos.app = quire.clients.client_app.app
        deliver(self, message, silo, kill, read, write)

    Deployment._live = without
    try:
        ((report, _),) = consortium.serve(grid, 7, overrides)
    finally:
        Deployment._live = deliver
    assert report.failed == []
    assert len(report.replied) == SILOS
    assert len(left_silos(consortium.left, contract.UNMASK)) == SILOS
    assert FIRST + 1 in grid.get_node_ids()
