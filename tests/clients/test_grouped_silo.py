"""Nine real silos in three groups, in this process: what each of them knows, keeps, signs and refuses."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from flwr.app import Message, Metadata
from group_silos import GROUPED, GROUPS, IN_GROUPS, NAMES, grouped
from secure_place import RUN, Place
from secure_runs import rounds_of
from secure_silos import first_model, stages_of
from typer.testing import CliRunner

import quire
from quire.cli import app
from quire.clients import contract
from quire.clients.arrays import fingerprint
from quire.clients.identity import load_identity, new_identity, read_roster
from quire.errors import RunFailed
from quire.privacy.secagg.state import Stage
from quire.simulation.grid import _NODE_GONE, _runtime_error
from quire.simulation.verify_transcripts import audit_run
from quire.strategies.folder import read_about
from quire.transparency.checkpoints import countersigners
from quire.transparency.reading import Entries
from quire.transparency.verify import Place as LogPlace
from quire.transparency.verify import verify_log

VICTIM = "hospital-5"
SEEN: list[tuple[Metadata, float]] = []  # of every message of that run, with when it was delivered


def quire_says(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run of two rounds, of a server that keeps a log and transcripts."""
    folder = tmp_path_factory.mktemp("ran")
    new_identity(folder / "log.key")
    place = Place(folder, f"{GROUPED} output.transcripts=true", IN_GROUPS, silos=len(NAMES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_LOG_KEY", str(folder / "log.key"))
        place.grid.swap = lambda message, silo: SEEN.append((message.metadata, time.time()))
        place.serve()
    return place


# ------------------------------------------------------------------------------------------------- honest
def test_real_silos_come_to_the_inline_model(ran: Place, tmp_path: Path) -> None:
    assert read_about(ran.folder / "run")["model"] == quire.run(GROUPED, tmp_path / "inline").model
    for line in rounds_of(ran.folder / "run"):
        assert [one["silos"] for one in line["secure"]["groups"]] == GROUPS
        assert (line["replied"], line["failed"]) == (NAMES, [])


def test_every_silo_has_charged_for_each_round_and_gave_shares_once(ran: Place) -> None:
    for name in NAMES:
        assert ran.charges(name) == 1  # privacy=none spends without limit, at once
        stages = stages_of(ran.files[name].parent)
        assert (stages.count(Stage.MASKED), stages.count(Stage.UNMASKED)) == (2, 2)


def test_no_silo_loses_time_to_answer_while_other_groups_agree_on_keys(ran: Place) -> None:
    """Flower counts a message's time to live from when it was written."""
    keys = max(when for about, when in SEEN if about.message_type == contract.READY)
    first = [about.created_at for about, _ in SEEN if (about.message_type, about.group_id) == (contract.SHARES, "1")]
    assert len(first) == len(NAMES)
    assert min(first) > keys


def test_all_groups_countersign_what_binds_a_round_and_it_all_verifies(ran: Place) -> None:
    run, roster = ran.folder / "run", ran.folder / "silos" / "roster.json"
    members, key = read_roster(roster).roster, load_identity(ran.folder / "log.key").public
    log = verify_log(LogPlace.of(run), key, members)
    assert log.wrong == []
    assert [set(countersigners(note, members)) for note in log.notes[:2]] == [set(NAMES)] * 2
    checkpoints = [note.checkpoint.hash for note in log.notes[:2]]
    assert [line["secure"]["checkpoint"] for line in rounds_of(run)] == checkpoints
    bound = [entry.body for _, entry in Entries(LogPlace.of(run).entries).each() if entry.kind == "checkpoint"]
    assert [(body["checkpoint"], sorted(body["silos"])) for body in bound] == [(one, NAMES) for one in checkpoints]
    audit = audit_run(run, roster)
    assert audit.wrong == []
    assert [(one.round, one.group, one.models) for one in audit.attempts] == [
        (number, group, True) for number in (1, 2) for group in (1, 2, 3)
    ]
    assert {one.replay.head.log_root.hex() for one in audit.attempts} == set(checkpoints)


def test_the_command_line_verifies_it(ran: Place) -> None:
    run, roster = str(ran.folder / "run"), str(ran.folder / "silos" / "roster.json")
    status, text = quire_says("transcript", "verify", run, "--roster", roster)
    assert (status, "2 models recomputed" in text, text.endswith("Verified.")) == (0, True, True), text
    status, text = quire_says("log", "verify", run, "--roster", roster)
    assert (status, "18 countersignatures were checked" in text) == (0, True), text


def test_a_countersignature_that_is_gone_is_missed_in_any_group(ran: Place, tmp_path: Path) -> None:
    run = shutil.copytree(ran.folder / "run", tmp_path / "run")
    file = LogPlace.of(run).checkpoints
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("\u2014 hospital-6 ")))
    status, text = quire_says("log", "verify", str(run), "--roster", str(ran.folder / "silos" / "roster.json"))
    assert (status, "lacks the countersignature of hospital-6" in text) == (1, True), text


# ------------------------------------------------------------------------------------------------- who is gone
def losing(place: Place, stage: str, numbers: str, silo: str = VICTIM) -> None:
    """Let a silo be gone from a stage of these rounds on."""
    deliver = place.grid._deliver

    def gone(message: Message) -> Message:
        about, place_of = message.metadata, contract.SECURE_STAGES.index
        later = about.message_type in contract.SECURE_STAGES and place_of(about.message_type) >= place_of(stage)
        if later and about.group_id in numbers and place.grid._names[about.dst_node_id] == silo:
            return _runtime_error(message, _NODE_GONE)
        return deliver(message)

    place.grid._deliver = gone  # type: ignore[method-assign]


def test_a_lost_group_loses_the_round_and_the_run_goes_on(tmp_path: Path) -> None:
    asked = grouped(2, "aggregation.byzantine=1 aggregation.attempts=2 output.transcripts=true")
    place = Place(tmp_path, asked, IN_GROUPS, silos=len(NAMES))
    losing(place, contract.MASK, "1")
    place.serve()
    lost, good = rounds_of(tmp_path / "run")
    assert "2 of 3 groups came to a sum that can be used, and it takes 3 against " in lost["lost"]
    assert f"{VICTIM}, mask: " in lost["lost"]
    assert VICTIM in good["replied"]
    assert len(good["replied"]) == len(NAMES)
    assert audit_run(tmp_path / "run", tmp_path / "silos" / "roster.json").wrong == []


def test_a_silo_whose_policy_refuses_ends_a_run_that_needs_its_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = grouped(3, "aggregation.byzantine=1 aggregation.attempts=2")
    place = Place(tmp_path, asked, IN_GROUPS, silos=len(NAMES))
    file = place.files[VICTIM]
    file.write_text(file.read_text().replace("min_cohort: 2", "min_cohort: 4"))
    with pytest.raises(RunFailed) as ended:
        place.serve()
    text = str(ended.value)
    assert text.startswith("Round 2 failed: 2 of 3 groups came to a sum that can be used, and it takes 3 against ")
    assert text.endswith(f"({VICTIM}: it takes no part in this run)); 2 rounds in a row were lost.")
    assert "node 104 is left out: its own policy does not allow these settings" in caplog.text
    about = read_about(tmp_path / "run")
    assert (about["status"], about["error"]) == ("failed", text)
    assert about["model"] == fingerprint(first_model(asked))


def test_a_silo_that_never_joins_is_missed_before_anything_is_trained(tmp_path: Path) -> None:
    asked = grouped(1, "runtime.join_timeout=1")
    place = Place(tmp_path, asked, IN_GROUPS, silos=len(NAMES))
    del place.files[VICTIM]
    place.grid = type(place.grid)(place.files, RUN, asked, tmp_path / "left")
    with pytest.raises(RunFailed, match="8 nodes joined, but the settings have 9 silos"):
        place.serve()
    assert not list((tmp_path / "silos").glob("*/store/ledger/*"))
