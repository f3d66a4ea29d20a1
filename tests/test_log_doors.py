"""The transparency log on a SuperLink with three SuperNodes: all countersigned, or two logs and no sum."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import split_view
from hospitals import SILOS, Hospitals
from secure_place import RECORD
from secure_runs import PRIVATE, rounds_of
from secure_silos import first_model, overrides_of

from quire.clients.arrays import fingerprint
from quire.clients.identity import load_identity, new_identity, read_roster
from quire.privacy.secagg.state import Stage
from quire.simulation.verify import verify_run
from quire.strategies.folder import read_about
from quire.transparency.checkpoints import Note, countersigners
from quire.transparency.memory import Memory
from quire.transparency.reading import Entries, read_notes
from quire.transparency.verify import Place, verify_log

pytestmark = pytest.mark.slow
SILO_NAMES = [f"hospital-{place + 1}" for place in range(SILOS)]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_identity(tmp_path / "log.key")
    return tmp_path / "log.key"


def is_closed(run: Path) -> bool:
    """Say whether the run's log has its last entry, and a checkpoint over that."""
    place = Place.of(run)
    notes, _ = read_notes(place.checkpoints)
    *_, (number, last) = Entries(place.entries).each()
    return last.kind == "end" and bool(notes) and notes[-1].checkpoint.size == number + 1


def ended(folder: Path, key: Path, policy: str, overrides: str, lie: Callable[[Hospitals], None]) -> Hospitals:
    """Run a federation to its end, and stop it."""
    made = Hospitals(folder, policy)
    try:
        lie(made)
        made.start(QUIRE_LOG_KEY=str(key))
        made.submit(overrides)
        made.wait(lambda: (made.run / "run.json").exists(), 800.0)
        made.wait(lambda: read_about(made.run)["status"] != "running", 800.0)
        made.wait(lambda: is_closed(made.run), 60.0)  # the log is told after the folder
        (folder / "logs").write_text(made.logs())
    finally:
        made.close()
    return made


def seen(made: Hospitals, silo: str, origin: str) -> Note:
    """Return the checkpoint that a silo has seen last."""
    last = Memory(made.files[silo].parent / "store" / "logs").last(origin)
    assert last is not None
    return last[0]


@pytest.mark.timeout(1800)
def test_every_round_is_countersigned_by_silos_that_have_pinned_the_key(tmp_path: Path, key: Path) -> None:
    pinned = load_identity(key).public
    overrides = overrides_of(SILOS, 2, f"{PRIVATE} strategy.fraction_evaluate=0 runtime.join_timeout=300")
    made = ended(tmp_path, key, f"{RECORD}, log: '{pinned.fingerprint}'", overrides, lambda made: None)
    about, text = read_about(made.run), (tmp_path / "logs").read_text()
    assert (about["status"], about["error"], about["runtime"]) == ("completed", None, "deployment"), text

    roster = tmp_path / "silos" / "roster.json"
    found = verify_run(made.run, roster)
    assert found.wrong == [], text
    assert any("6 countersignatures were checked" in words for words in found.notes)
    log = verify_log(Place.of(made.run), pinned, read_roster(roster).roster)
    assert log.wrong == []
    bound = [entry for _, entry in Entries(Place.of(made.run).entries).each() if entry.kind == "checkpoint"]
    assert [(entry.round, entry.body["silos"]) for entry in bound] == [(1, SILO_NAMES), (2, SILO_NAMES)]
    for name in SILO_NAMES:
        assert seen(made, name, log.origin).checkpoint.hash == bound[-1].body["checkpoint"]

    # What no silo can sign for another: without one of these lines the folder does not verify.
    file = Place.of(made.run).checkpoints
    lines = file.read_text().splitlines(keepends=True)
    gone = next(line for line in lines if line.startswith("\u2014 hospital-2 "))
    file.write_text("".join(line for line in lines if line != gone))
    (wrong,) = verify_run(made.run, roster).wrong
    assert "Round 1 was bound to" in wrong
    assert "lacks the countersignature of hospital-2" in wrong


@pytest.mark.timeout(1800)
def test_a_server_that_shows_two_logs_gets_no_sum(tmp_path: Path, key: Path) -> None:
    """It shows the third silo another history under the same name and key, and overlooks what gives that away."""

    def lie(made: Hospitals) -> None:
        rooms = made.app / "strategies"
        shutil.copyfile(Path(split_view.__file__), rooms / "split_view.py")
        with (rooms / "log_bound.py").open("a") as file:
            file.write("\n\nfrom quire.strategies.split_view import lie  # noqa: E402\n\nlie()\n")

    policy = "modes: [none], aggregation: [secure], code: [], min_cohort: 3, colluders: 0, test_seed: true"
    three = "strategy.min_silos=3 aggregation.attempts=1 runtime.join_timeout=300"
    overrides = overrides_of(SILOS, 1, three).replace(f"strategy.min_silos={SILOS - 1} ", "")
    made = ended(tmp_path, key, policy, overrides, lie)
    about, text = read_about(made.run), (tmp_path / "logs").read_text()
    assert about["status"] == "failed", text
    assert "secure aggregation came to nothing in 1 attempt," in about["error"]
    assert rounds_of(made.run) == []
    assert about["model"] == fingerprint(first_model(overrides))
    for name in SILO_NAMES:
        stages = made.stages(name)
        assert Stage.SHARED in stages, text
        assert not {Stage.MASKED, Stage.CONFIRMED, Stage.UNMASKED} & set(stages)

    # Two checkpoints that contradict each other, both with the server's signature and countersigned: evidence.
    place = Place.of(made.run)
    log = verify_log(place, load_identity(key).public)
    assert log.wrong == []
    one, other = (seen(made, name, log.origin) for name in ("hospital-1", split_view.VICTIM))
    assert (one.checkpoint.origin, one.checkpoint.size) == (other.checkpoint.origin, other.checkpoint.size)
    assert one.checkpoint.root != other.checkpoint.root
    kept = next(note for note in log.notes if note.checkpoint == one.checkpoint)
    assert set(countersigners(kept, read_roster(tmp_path / "silos" / "roster.json").roster)) == {*SILO_NAMES[:2]}
