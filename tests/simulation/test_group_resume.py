"""A run of groups that is killed when some of them are through: it goes on to the same model, log and transcripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flwr.app import Message
from group_silos import GROUPS, grouped
from killing import die, killed, resumed
from secure_runs import rounds_of

import quire
from quire.clients import contract
from quire.clients.identity import load_identity, new_identity
from quire.privacy.secagg.server_round import ServerRound
from quire.simulation.grid import InlineGrid
from quire.simulation.verify_transcripts import audit_run
from quire.transparency.verify import Place, verify_log

RUN = grouped(3, "aggregation.rekey_every=2 output.transcripts=true")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the key of the log is, and beside it the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    new_identity(folder / "log.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_LOG_KEY", str(folder / "log.key"))
        quire.run(RUN, folder / "run")
    return folder


def told(folder: Path) -> list[dict[str, object]]:
    """What the journal says of rounds, less times and keys."""
    return [
        {key: line[key] for key in ("round", "cohort", "replied", "failed", "train", "model")}
        | {"groups": line["secure"]["groups"]}
        for line in rounds_of(folder)
    ]


@pytest.mark.parametrize(
    ("stage", "number", "group"),
    [
        pytest.param(contract.PAIRS, 1, 2, marks=pytest.mark.slow),  # the first group has its keys
        pytest.param(contract.SHARES, 2, 3, marks=pytest.mark.slow),
        (contract.MASK, 2, 2),  # the sum of the first group is open
        pytest.param(contract.UNMASK, 3, 3, marks=pytest.mark.slow),
    ],
)
def test_killed_between_groups(
    stage: str, number: int, group: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_LOG_KEY", str(whole / "log.key"))
    opened = tmp_path / "opened"

    def arm() -> None:
        deliver, unmask, seen = InlineGrid._deliver, ServerRound.unmask, list[str]()

        def deadly(self: InlineGrid, message: Message) -> Message:
            about = message.metadata
            if (about.message_type, about.group_id) == (stage, str(number)):
                seen.append(self._names[about.dst_node_id])
                if len([silo for silo in seen if silo in GROUPS[group - 1]]) == 2:  # one of it has answered
                    die()
            return deliver(self, message)

        def noting(self: ServerRound) -> object:
            total = unmask(self)
            with opened.open("a") as file:
                file.write(".")
            return total

        InlineGrid._deliver = deadly  # type: ignore[method-assign]
        ServerRound.unmask = noting  # type: ignore[assignment, method-assign]

    killed(RUN, tmp_path / "run", arm)
    before = {contract.PAIRS: 0, contract.SHARES: 3, contract.MASK: 4, contract.UNMASK: 8}[stage]
    assert (opened.read_text() if opened.exists() else "").count(".") == before
    assert len(rounds_of(tmp_path / "run")) == number - 1

    assert resumed(RUN, tmp_path / "run") == json.loads((whole / "run" / "run.json").read_text())["model"]
    assert told(tmp_path / "run") == told(whole / "run")
    audit = audit_run(tmp_path / "run")
    assert audit.wrong == []
    assert len([one for one in audit.attempts if one.models]) == 9
    log = verify_log(Place.of(tmp_path / "run"), load_identity(whole / "log.key").public)
    assert log.wrong == []
