"""The transparency log of a run: what it says, that a resumed run goes on with it, and what `quire verify` finds."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from killing import die, killed, resumed
from private_runs import SILOS, Consortium, journal, rewrite, write_run

from quire.clients.identity import IdentityFileError, new_identity
from quire.conf.compose import compose
from quire.errors import QuireError, RunFailed
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import settings_hash
from quire.simulation.inline import run_inline
from quire.simulation.verify import verify_run
from quire.strategies import run_log
from quire.strategies.card import run_card, write_card
from quire.strategies.folder import RunFolder, read_about
from quire.strategies.material import read_material
from quire.transparency.errors import LogError
from quire.transparency.log import Log
from quire.transparency.reading import Entries, read_notes
from quire.transparency.verify import Place, verify_log

CONSORTIUM = Consortium()
KEY = PrivateIdentity.from_seed(b"log".ljust(32))
SMALL = (
    "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=3 privacy=record privacy.epsilon=3 "
    "output.baselines=false"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return write_run(folder, CONSORTIUM, silent=("hospital-2", 3), log_key=KEY)


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def entries_of(folder, *kinds):
    found = [entry for _, entry in Entries(Place.of(folder).entries).each()]
    return [entry for entry in found if entry.kind in kinds] if kinds else found


def wrong(folder):
    return "\n".join(verify_run(folder).wrong)


def test_a_run_says_what_silos_would_look_for(original):
    found = verify_log(Place.of(original), KEY.public)
    assert found.wrong == []
    assert found.kinds == {
        **{"begin": 1, "session": 1, "cohort": 4, "model": 4, "ledger_head": 11, "refusal": 1, "end": 1},
        "journal": len(journal(original)),
    }
    [session] = entries_of(original, "session")
    assert session.body["settings"] == settings_hash(json.loads(json.dumps(compose(_overrides(original)).as_dict())))
    assert session.body["code"] == read_about(original)["code"]
    assert [entry.body["silos"] for entry in entries_of(original, "cohort")] == [sorted(SILOS)] * 4
    assert [entry.body["model"] for entry in entries_of(original, "model")] == [
        line["model"] for line in journal(original) if line["event"] == "round"
    ]
    [refusal] = entries_of(original, "refusal")
    assert (refusal.round, refusal.body) == (3, {"silo": "hospital-2", "code": "late"})
    assert [note.checkpoint.size for note in found.notes][-1] == found.size


def _overrides(folder):
    import yaml

    return yaml.safe_load((folder / "settings.yaml").read_text())["overrides"]


def test_an_honest_run_verifies_with_its_log(run):
    found = verify_run(run)
    assert found.wrong == []
    assert any(words.startswith("The log: Key: ") for words in found.notes)


def test_a_journal_that_was_rewritten_with_its_card_is_told_by_the_log(run):
    """What the receipts do not sign, such as why a silo was left out, only the log holds."""
    lines = journal(run)
    [failure] = [failure for line in lines for failure in line.get("failed", [])]
    failure["words"] = "it left"
    rewrite(run, lines)
    write_card(run)
    assert run_card(read_material(run))
    assert "The log was told another line 4 of metrics.jsonl." in wrong(run)


def test_a_line_more_or_less_is_told(run):
    lines = journal(run)
    rewrite(run, [*lines, {"event": "resume", "round": 4}])
    assert f"The log was told {len(lines)} lines of metrics.jsonl, which has {len(lines) + 1}." in wrong(run)


def test_a_changed_log_is_told(run):
    path = Place.of(run).entries
    path.write_bytes(path.read_bytes().replace(b'"round":2', b'"round":3', 1))
    assert "The log: The root at" in wrong(run)


def test_a_log_that_was_begun_anew_by_whoever_has_the_key_still_has_to_fit(run):
    """Without countersignatures the server can write another log; it can only say what the run folder says."""
    kept = entries_of(run)[1:]
    changes = {
        "is of other settings than settings.yaml": lambda entry: entry.kind == "session",
        "has no entry for the ledger of hospital-1 at 12 entries": lambda entry: (
            entry.kind == "ledger_head" and entry.body["entries"] == 12
        ),
        "does not say that the run was completed": lambda entry: entry.kind == "end",
        "was told": lambda entry: entry.kind == "journal",
    }
    for words, gone in changes.items():
        shutil.rmtree(run / "log")
        with Log.open(run / "log", "run/forged", KEY, 1) as log:
            for entry in kept:
                if entry.kind == "session" and gone(entry):
                    body = {**entry.body, "settings": "00" * 32}
                    log.append(type(entry)(entry.kind, entry.run, entry.round, entry.time, body))
                elif not gone(entry):
                    log.append(entry)
            log.checkpoint(1)
        assert f"The log {words}" in wrong(run)


def test_entries_that_nobody_signed_are_told(run):
    path = Place.of(run).checkpoints
    notes = path.read_bytes().split(b"\n\n")
    path.write_bytes(b"\n\n".join(notes[:-3]) + b"\n\n")
    assert wrong(run) == "The log ends with entries that are under no checkpoint."
    path.unlink()
    assert wrong(run) == "The log ends with entries that are under no checkpoint."


def test_another_card_or_model_at_the_end_is_told(run):
    about = read_about(run)
    (run / "run.json").write_text(json.dumps({**about, "model": "00" * 32}))
    assert "The log ends with another model than run.json." in wrong(run)
    (run / "run.json").write_text(json.dumps(about))
    card = run / "privacy_card.json"
    card.write_bytes(card.read_bytes() + b"\n")
    assert "The log ends with another privacy_card.json." in wrong(run)


def test_names_that_entries_cannot_have_become_hashes():
    assert run_log.word("hospital-1") == "hospital-1"
    for name in ("", "é", "a b", "x" * 65, "-x"):
        assert run_log.word(name).startswith("name-")
        assert run_log.word(name) != run_log.word(name + "x")


@pytest.fixture
def key(tmp_path, monkeypatch):
    new_identity(tmp_path / "log.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "log.key"))
    return tmp_path / "log.key"


def die_in_the_log(round_number):
    """Kill after the run folder has a round, and before the log has it."""
    write = run_log.RunLog._write

    def dying(self, entries, at):
        made = list(entries)
        if any(entry.round == round_number for entry in made):
            die()
        write(self, made, at)

    run_log.RunLog._write = dying


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_its_log(key, tmp_path):
    killed(SMALL, tmp_path / "run", lambda: die_in_the_log(2))
    before = verify_log(Place.of(tmp_path / "run"))
    assert before.wrong == []
    assert any("The log was told 2 lines" in words for words in verify_run(tmp_path / "run").notes)
    resumed(SMALL, tmp_path / "run")
    found = verify_run(tmp_path / "run")
    assert found.wrong == []
    after = verify_log(Place.of(tmp_path / "run"))
    assert after.wrong == []
    assert (after.kinds["session"], after.kinds["resume"], after.origin) == (2, 1, before.origin)
    assert after.notes[: len(before.notes)] == before.notes
    assert entries_of(tmp_path / "run", "resume")[0].body == {"lines": 2}


@pytest.mark.slow
def test_a_log_is_gone_on_with_under_its_own_key_only(key, tmp_path, monkeypatch):
    killed(SMALL, tmp_path / "run", lambda: die_in_the_log(2))
    new_identity(tmp_path / "other.key")
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "other.key"))
    with pytest.raises(LogError, match="another name or key"):
        resumed(SMALL, tmp_path / "run")
    monkeypatch.delenv("QUIRE_LOG_KEY")
    with pytest.raises(RunFailed, match="goes on only with the key"):
        resumed(SMALL, tmp_path / "run")
    assert read_about(tmp_path / "run")["status"] == "failed"


@pytest.mark.slow
def test_a_run_under_masks_that_was_killed_goes_on_to_the_same_model_and_verifies(key, tmp_path):
    """Killed once the run folder has a round, all of whose silos have countersigned, and before the log has it."""
    overrides = f"{SMALL} aggregation=secure"
    run_inline(compose(overrides), tmp_path / "whole")
    killed(overrides, tmp_path / "run", lambda: die_in_the_log(2))
    resumed(overrides, tmp_path / "run")
    assert read_about(tmp_path / "run")["model"] == read_about(tmp_path / "whole")["model"]
    for name in ("run", "whole"):
        assert verify_run(tmp_path / name).wrong == []
        bound = entries_of(tmp_path / name, "checkpoint")
        assert [(entry.round, len(entry.body["silos"])) for entry in bound] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_rounds_under_masks_name_their_attempts(key, tmp_path):
    settings = compose(
        "task=breast_cancer partition=iid partition.silos=4 strategy.rounds=2 aggregation=secure output.baselines=false"
    )
    run_inline(settings, tmp_path / "run")
    found = verify_log(Place.of(tmp_path / "run"))
    assert (found.wrong, found.kinds["cohort"], found.kinds["model"]) == ([], 2, 2)


def test_without_a_key_there_is_no_log_and_a_wrong_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("QUIRE_LOG_KEY", raising=False)
    small = compose("partition=iid partition.silos=2 strategy.rounds=1 output.baselines=false")
    run_inline(small, tmp_path / "plain")
    assert not (tmp_path / "plain" / "log").exists()
    monkeypatch.setenv("QUIRE_LOG_KEY", str(tmp_path / "nowhere.key"))
    with pytest.raises(IdentityFileError, match=r"nowhere\.key"):
        run_inline(small, tmp_path / "none")
    assert read_about(tmp_path / "none")["status"] == "failed"


def test_a_run_that_fails_says_so_in_its_log(key, tmp_path, monkeypatch):
    from quire.strategies.folder import RunFolder

    def refused(*arguments):
        raise QuireError("It was not to be.")

    monkeypatch.setattr(RunFolder, "round_done", refused)
    with pytest.raises(QuireError, match="not to be"):
        run_inline(compose("partition=iid partition.silos=2 strategy.rounds=1"), tmp_path / "run")
    [end] = entries_of(tmp_path / "run", "end")
    assert end.body["status"] == "failed"
    assert os.listdir(tmp_path / "run" / "log")
    assert verify_log(Place.of(tmp_path / "run")).wrong == []


@pytest.mark.parametrize("kept", [0, 1])
def test_a_log_whose_checkpoints_were_taken_away_is_not_signed_again(key, tmp_path, kept):
    """Whoever changes a stopped run cannot have the server sign what it has become."""
    folder = tmp_path / "run"
    write_run(folder, CONSORTIUM, log_key=KEY)
    file = Place.of(folder).checkpoints
    notes = [note.encode() + b"\n" for note in read_notes(file)[0]]
    assert len(notes) > 3
    file.write_bytes(b"".join(notes[:kept]))
    (folder / "run.json").write_text(json.dumps({**read_about(folder), "status": "running"}))
    with pytest.raises(LogError, match="no checkpoint covers"):
        run_log.RunLog(RunFolder(folder, reopen=True), KEY, "7")
