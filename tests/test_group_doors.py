"""Groups of silos through two doors: Flower's simulation engine, and a SuperLink with nine SuperNodes.

On the SuperLink, which keeps a transparency log and transcripts, a SuperNode is killed in the third round: with
byzantine=1 it takes all three groups, so that this round is lost, and nothing but this round.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from group_silos import GROUPED, GROUPS, IN_GROUPS, NAMES, grouped
from hospitals import ManyHospitals
from secure_runs import model_of, rounds_of

import quire
from quire.clients.arrays import fingerprint
from quire.clients.identity import load_identity, new_identity, read_roster
from quire.conf.compose import compose
from quire.privacy.secagg.state import Stage
from quire.simulation.flower import run_flower
from quire.simulation.verify_transcripts import audit_run
from quire.strategies.folder import read_about
from quire.transparency.checkpoints import countersigners
from quire.transparency.verify import Place, verify_log

pytestmark = pytest.mark.slow
VICTIM = "hospital-5"  # of the second group


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inline") / "run"
    quire.run(GROUPED, folder)
    return folder


@pytest.mark.timeout(600)
def test_flowers_simulation_engine_comes_to_the_inline_model(tmp_path: Path, inline: Path) -> None:
    found = run_flower(compose(f"{GROUPED} runtime=flower"), tmp_path / "flower")
    about = read_about(tmp_path / "flower")
    assert (about["runtime"], about["status"], about["error"]) == ("flower", "completed", None)
    assert found.model == read_about(inline)["model"]
    for mine, theirs in zip(rounds_of(tmp_path / "flower"), rounds_of(inline), strict=True):
        for key in ("replied", "train", "evaluate", "model"):
            assert mine.get(key) == theirs.get(key), key
        assert mine["secure"]["groups"] == theirs["secure"]["groups"]
        assert [one["silos"] for one in mine["secure"]["groups"]] == GROUPS
        assert [(one["group"], one["u3"], one["error"]) for one in mine["secure"]["attempts"]] == [
            (number, silos, None) for number, silos in enumerate(GROUPS, start=1)
        ]


@pytest.mark.timeout(1800)
def test_nine_supernodes_come_to_the_inline_model_until_one_of_a_group_is_killed(tmp_path: Path, inline: Path) -> None:
    new_identity(tmp_path / "log.key")
    hospitals = ManyHospitals(tmp_path, IN_GROUPS, silos=len(NAMES))
    more = "aggregation.byzantine=1 aggregation.attempts=2 strategy.deadline=45 runtime.join_timeout=300"

    def over() -> bool:
        return (hospitals.run / "run.json").exists() and read_about(hospitals.run)["status"] != "running"

    try:
        hospitals.start(QUIRE_LOG_KEY=str(tmp_path / "log.key"))
        hospitals.submit(grouped(3, f"{more} output.transcripts=true"))
        # It has begun the third round, and dies while it trains, deals or masks.
        hospitals.wait(lambda: over() or hospitals.stages(VICTIM).count(Stage.SHARED) == 3, 800.0)
        hospitals.kill(VICTIM)
        hospitals.wait(over, 800.0)
        hospitals.wait(lambda: verify_log(Place.of(hospitals.run)).wrong == [], 60.0)  # it is told after the folder
        about, logs = read_about(hospitals.run), hospitals.logs()
        stages = {name: hospitals.stages(name) for name in NAMES}
    finally:
        hospitals.close()
    (tmp_path / "logs").write_text(logs)
    assert (about["status"], about["error"], about["runtime"]) == ("completed", None, "deployment"), logs
    assert "Traceback" not in logs

    *good, lost = rounds_of(hospitals.run)
    for mine, theirs in zip(good, rounds_of(inline), strict=True):
        assert (mine["replied"], mine["failed"], mine["model"]) == (NAMES, [], theirs["model"])
        assert [one["silos"] for one in mine["secure"]["groups"]] == GROUPS
        assert mine["silos"] == {}  # no silo's own figures
    assert fingerprint(model_of(hospitals.run)) == about["model"] == lost["model"] == good[-1]["model"]
    assert "2 of 3 groups came to a sum that can be used, and it takes 3 against " in lost["lost"]
    assert VICTIM in lost["lost"]
    for name in NAMES:
        # One sum of a round at most; the others of the victim's group masked in the third, and opened nothing.
        apart = name in GROUPS[1]
        assert stages[name].count(Stage.UNMASKED) == (2 if apart else 3), (name, stages[name])
        (ledger,) = (hospitals.files[name].parent / "store" / "ledger").iterdir()
        assert ledger.read_text().count('"kind":"charge"') == 1  # privacy=none spends without limit, at once

    roster = tmp_path / "silos" / "roster.json"
    members = read_roster(roster).roster
    log = verify_log(Place.of(hospitals.run), load_identity(tmp_path / "log.key").public, members)
    assert log.wrong == []
    assert [set(countersigners(note, members)) for note in log.notes[:2]] == [set(NAMES)] * 2
    assert [line["secure"]["checkpoint"] for line in good] == [note.checkpoint.hash for note in log.notes[:2]]
    audit = audit_run(hospitals.run, roster)
    assert audit.wrong == []
    assert {one.round for one in audit.attempts if one.models} == {1, 2}
