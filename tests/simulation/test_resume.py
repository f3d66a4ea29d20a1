"""A killed run resumes to the model of the run that was never killed, bit for bit."""

import json
import os

import left_behind
import pytest
from command_line import command_line
from killing import die, killed, lines, resumed

import quire
from quire import compose
from quire.errors import RunFailed, SettingsError
from quire.simulation.inline import run_inline
from quire.simulation.resume import settings_of
from quire.strategies import checkpoint, folder
from quire.strategies.folder import RunFolder, read_about

SMALL = (
    "partition.silos=4 strategy.rounds=12 strategy.fraction=0.75 "
    "output.progress=none output.baselines=false output.report=false"
)
PLAIN = {"fedavg": "partition.alpha=1", "scaffold": "partition.alpha=1 strategy=scaffold"}
PRIVATE = {
    "private": "partition=iid privacy=record training.batch_size=16",
    "private-silos": "partition=iid privacy=silo privacy.delta=1e-5 strategy=fedadam",
}


def outcome(overrides, folder):
    """The overrides of a run, and its outcome when nothing happens to it."""
    overrides = f"{SMALL} {overrides}"
    return overrides, quire.run(overrides, folder / "run").model, lines(folder / "run")


@pytest.fixture(scope="module", params=PLAIN)
def whole(request, tmp_path_factory):
    return outcome(PLAIN[request.param], tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("line", [1, 2, 3, 5, 6, 8, 9, 11, 12, 13])
def test_killed_after_any_line_of_the_journal(whole, line, tmp_path):
    overrides, model, journal = whole
    path, written = tmp_path / "run", []

    def arm():
        original = RunFolder._line

        def line_then_die(self, event):
            original(self, event)
            written.append(event)
            if len(written) == line:
                die()

        RunFolder._line = line_then_die

    killed(overrides, path, arm)
    assert len((path / "metrics.jsonl").read_text().splitlines()) == line
    assert resumed(overrides, path) == model
    assert lines(path) == journal
    assert read_about(path)["status"] == "completed"


@pytest.mark.parametrize("write", [1, *(pytest.param(write, marks=pytest.mark.slow) for write in (2, 3, 8)), 11])
@pytest.mark.parametrize("moment", ["half-way", "before the file takes its name", "after it"])
def test_killed_inside_a_checkpoint_write(whole, write, moment, tmp_path):
    overrides, model, journal = whole
    path, writes = tmp_path / "run", []

    def arm():
        original = checkpoint.replace

        def replace_and_die(target, content, sync=True):
            writes.append(target)
            if len(writes) == write:
                temporary = target.with_name(f".{target.name}.new")
                if moment == "after it":
                    original(target, content, sync)
                else:
                    temporary.write_bytes(content[: len(content) // 2] if moment == "half-way" else content)
                die()
            original(target, content, sync)

        checkpoint.replace = replace_and_die

    killed(overrides, path, arm)
    assert resumed(overrides, path) == model
    assert lines(path) == journal
    assert list(path.rglob(".*")) == []


@pytest.mark.parametrize("kind", [*PLAIN, *(pytest.param(kind, marks=pytest.mark.slow) for kind in PRIVATE)])
def test_killed_again_and_again(kind, tmp_path):
    overrides, model, journal = outcome((PLAIN | PRIVATE)[kind], tmp_path / "whole")
    path = tmp_path / "run"

    def arm():
        original = RunFolder.round_done

        def round_then_die(self, report, state):
            original(self, report, state)
            die()

        RunFolder.round_done = round_then_die

    killed(overrides, path, arm)
    for number in range(2, 5):
        child = os.fork()
        if child == 0:
            try:
                arm()
                resumed(overrides, path)
            finally:
                os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert json.loads((path / "checkpoint" / "latest.json").read_text())["round"] == number
    assert resumed(overrides, path) == model
    assert lines(path) == journal


def failed_run(path):
    overrides = f"{SMALL} runtime.faults=['drop:train:3:*']"
    with pytest.raises(RunFailed):
        quire.run(overrides, path)
    return overrides


def test_a_torn_last_line_is_cut_off_and_what_stood_before_is_kept(tmp_path):
    failed_run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    with (tmp_path / "metrics.jsonl").open("a") as journal:
        journal.write('{"event": "round", "round": 3, "coh')
    RunFolder(tmp_path, reopen=True).resume()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before[:3]


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "latest truncated", "latest of another kind"])
def test_a_damaged_checkpoint_is_refused_in_words_and_nothing_is_lost(damage, tmp_path):
    overrides = failed_run(tmp_path)
    (state,) = [path for path in (tmp_path / "checkpoint").iterdir() if path.suffix == ".safetensors"]
    content, latest = state.read_bytes(), tmp_path / "checkpoint" / "latest.json"
    if damage == "missing":
        state.unlink()
    elif damage.startswith("latest"):
        latest.write_text(latest.read_text()[:20] if "truncated" in damage else "[]")
    else:
        state.write_bytes(content[:-7] if damage == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFailed, match=r"The checkpoint in .* is damaged .*: this run cannot go on, start it anew\."):
        resumed(overrides, tmp_path)
    assert {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "run.log"
    } == before


def test_the_last_checkpoint_on_the_disk_serves_when_a_power_cut_spoiled_the_newest(tmp_path, monkeypatch):
    expected = quire.run(SMALL, tmp_path / "whole").model
    monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 0.0)
    saves = []
    original = checkpoint.Checkpoints.save

    def save(self, kept):
        if len(saves) == 1:  # the first is forced to the disk, those after it are not
            monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN_SYNCS", 1e9)
        saves.append(kept.state.round)
        original(self, kept)
        if len(saves) == 3:
            raise RunFailed("The power is gone.")

    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    with pytest.raises(RunFailed, match="The power is gone"):
        quire.run(SMALL, tmp_path / "cut")
    monkeypatch.undo()
    (tmp_path / "cut" / "checkpoint" / "round-00003.safetensors").write_bytes(b"")
    assert resumed(SMALL, tmp_path / "cut") == expected
    rounds = [line for line in lines(tmp_path / "cut") if line["event"] == "round"]
    assert [line["round"] for line in rounds] == list(range(1, 13))


def test_a_complete_run_has_nothing_to_resume(tmp_path):
    quire.run(f"{SMALL}", tmp_path)
    with pytest.raises(SettingsError, match="is complete: there is nothing to resume"):
        resumed(SMALL, tmp_path)


def test_other_settings_and_other_code_are_refused_by_name(tmp_path, monkeypatch):
    overrides = failed_run(tmp_path)
    with pytest.raises(
        SettingsError, match=r"was started with training\.lr=1\.0, not 0\.5: it can only go on with that"
    ):
        run_inline(compose(f"{overrides} training.lr=0.5"), tmp_path, resume=True)
    with pytest.raises(SettingsError, match="strategy=fedavg, not fedprox"):
        run_inline(compose(f"{overrides} strategy=fedprox"), tmp_path, resume=True)
    from quire.strategies import server_app

    monkeypatch.setattr(server_app, "CODE_HASH", "0" * 64)
    with pytest.raises(SettingsError, match="was started with other code than is here now"):
        run_inline(compose(overrides), tmp_path, resume=True)


@pytest.mark.parametrize(
    ("again", "began", "key"),
    [
        ("privacy.epsilon=2 privacy=record", "privacy=none", "privacy.epsilon"),
        ("aggregation.colluders=1 aggregation=secure", "aggregation=plain", "aggregation.colluders"),
    ],
)
def test_a_setting_that_the_run_did_not_have_is_refused_in_words(tmp_path, again, began, key):
    left = left_behind.began(tmp_path / "run")
    with pytest.raises(SettingsError, match=f"was started with {began}, which has no {key}: it can only go on"):
        settings_of(left, again.split())


def test_a_refused_resume_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    overrides = failed_run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("quire.clients.code.code_hash", lambda: "0" * 64)
    with pytest.raises(SettingsError, match="was started with other code"):
        resumed(overrides, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_resumed_run_needs_the_silos_that_it_began_with(tmp_path):
    overrides = failed_run(tmp_path)
    about = tmp_path / "run.json"
    assert json.loads(about.read_text())["held_to"]["silos"] == [f"hospital-{place}" for place in range(1, 5)]
    about.write_text(about.read_text().replace("hospital-3", "hospital-9"))
    with pytest.raises(RunFailed, match=r"began with other silos \(hospital-1, hospital-2, hospital-9, hospital-4\)"):
        run_inline(compose(overrides), tmp_path, resume=True)
    about.write_text(about.read_text().replace("hospital-9", "hospital-3"))
    assert read_about(tmp_path)["status"] == "failed"


def test_two_processes_cannot_write_one_run(tmp_path):
    failed_run(tmp_path)
    first = RunFolder(tmp_path, reopen=True)
    with pytest.raises(SettingsError, match="is being written by a run that is still going on"):
        RunFolder(tmp_path, reopen=True)
    first.close()
    RunFolder(tmp_path, reopen=True).close()


def test_what_silos_remember_cannot_be_made_up(tmp_path):
    """A checkpoint from a runtime that cannot see into its silos is not enough for SCAFFOLD."""
    overrides = f"{SMALL} strategy=scaffold runtime.faults=['drop:train:3:*']"
    with pytest.raises(RunFailed):
        quire.run(overrides, tmp_path)
    latest = tmp_path / "checkpoint" / "latest.json"
    latest.write_text(json.dumps({**json.loads(latest.read_text()), "silos": False}))
    with pytest.raises(RunFailed, match=r"its silos remember something .* only runtime=inline can give it back"):
        resumed(overrides, tmp_path)


@pytest.fixture
def command(monkeypatch, capsys):
    call = command_line(monkeypatch, capsys)
    return lambda *args: call("run", *args)


def test_the_command_line_resumes_and_shows_only_what_is_new(tmp_path, command):
    overrides = "partition=iid partition.silos=3 strategy.rounds=4 output.baselines=false output.report=false"
    expected = quire.run(overrides, tmp_path / "whole").model

    def arm():
        original = RunFolder.round_done

        def round_then_die(self, report, state):
            original(self, report, state)
            if state.round == 2:
                die()

        RunFolder.round_done = round_then_die

    killed(overrides, tmp_path / "run", arm)
    status, out, err = command(f"resume={tmp_path / 'run'}", "partition.silos=3")
    assert (status, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == ["3/4", "4/4"]
    assert read_about(tmp_path / "run")["model"] == expected


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["training.lr=0.5"], "was started with training.lr=1.0, not 0.5"),
        (["strategy=fedprox"], "was started with strategy=fedavg, not fedprox"),
        (["-m", "seed=1,2"], "'-m' cannot be used with resume=FOLDER"),
        (["hydra.run.dir=x"], "'hydra.run.dir=x' cannot be used with resume=FOLDER"),
        (["training.rate=1"], "There is no setting 'training.rate'"),
        (["resume=other"], "Name the folder of one run"),
    ],
)
def test_what_cannot_be_resumed_is_refused_in_a_sentence(args, words, tmp_path, command):
    failed_run(tmp_path / "run")
    status, _, err = command(f"resume={tmp_path / 'run'}", *args)
    assert status == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path, command):
    status, _, err = command(f"resume={tmp_path}")
    assert status == 2
    assert "is not the folder of a run" in err


def test_a_run_that_failed_for_a_reason_that_is_gone_goes_on(tmp_path, monkeypatch):
    overrides = f"{SMALL} strategy.min_silos=2"
    from quire.simulation import inline
    from quire.simulation.faults import Fault

    expected = quire.run(overrides, tmp_path / "whole").model
    grid = inline.InlineGrid
    monkeypatch.setattr(inline, "InlineGrid", lambda *args: grid(*args[:3], [Fault.parse("drop:train:5:*")]))
    with pytest.raises(RunFailed):
        quire.run(overrides, tmp_path / "run")
    monkeypatch.undo()
    assert resumed(overrides, tmp_path / "run") == expected


def test_the_difference_between_settings_is_named():
    one = compose("seed=1 task.hidden=[16]")
    assert folder.difference(one, one) == ""
    assert folder.difference(one, compose("seed=2")) == "seed=1, not 2"
    assert folder.difference(one, compose("task.hidden=[3,4]")) == "task.hidden=[16], not [3, 4]"
    assert folder.difference(one, compose("output.report=false")) == ""
